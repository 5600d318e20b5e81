"""Rows of questions and labels: what readers of several datasets check."""

from collections.abc import Mapping
from typing import Any

from harvest_jax.input.annotation_records import Record
from harvest_jax.terminal import printable

OPTIONS = 5  # of a question in every multiple-choice benchmark here


def choice(record: Record, options: list[str], first: int = 0) -> dict[str, Any]:
    """`options` and `answer` (counted from 0) of a row.

    Args:
      record: with the right option's number in `answer`.
      options: five.
      first: the number of the first option in the file, 0 or 1: a fact of the format, not guessed from the numbers.

    Raises:
      DataError: there are not five options, or the answer is the number of none.
    """
    if len(options) != OPTIONS:
        raise record.fault(f"must have {OPTIONS} options, has {len(options)}")
    return {"options": options, "answer": record.whole("answer", first, first + OPTIONS - 1) - first}


def known(record: Record, name: str, words: Mapping[str, str]) -> str:
    """The word for a code in a cell.

    Raises:
      DataError: another code.
    """
    code = str(record.value(name)).strip()
    if code not in words:
        raise record.fault(f"{name!r} must be one of {', '.join(words)}, is {printable(code, 40)!r}")
    return words[code]


def text_or_number(record: Record, *names: str) -> str:
    """The first of these cells that is there, as text; ids are written as numbers or as texts.

    Raises:
      DataError: none of them is there, or it is neither.
    """
    name = next((name for name in names if name in record.cells), names[0])
    value = record.value(name)
    return str(value) if type(value) is int else record.text(name)
