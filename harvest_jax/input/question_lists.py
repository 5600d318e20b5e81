"""Rows with several questions about one clip, in lists; training and evaluation share this."""

from collections.abc import Mapping
from typing import Any

COLUMNS = ("question", "answer", "type")  # of a question: lists of equal length where a row has several


def each_question(cells: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The columns of a row once for each of its questions; the row itself if `question` is no list.

    Raises:
      ValueError: the lists are empty or of different lengths, or one of the columns is no list.
    """
    if not isinstance(cells.get("question"), list):
        if isinstance(cells.get("answer"), list):
            raise ValueError("`answer` is a list and `question` is not: several questions are lists of equal length")
        return [dict(cells)]
    lists = {name: cells[name] for name in COLUMNS if cells.get(name) is not None}
    lengths = {name: len(value) if isinstance(value, list) else "no list" for name, value in lists.items()}
    if len(set(lengths.values())) > 1 or not lists["question"]:
        found = ", ".join(f"`{name}` {length}" for name, length in lengths.items())
        raise ValueError(f"several questions are lists of equal length, not {found}")
    return [{**cells, **dict(zip(lists, values, strict=True))} for values in zip(*lists.values(), strict=True)]
