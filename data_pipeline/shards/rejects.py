"""rejects-SPLIT.tsv of a shard folder: the rows that `harvest shards` could not use, with the reasons."""

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_pipeline.media_paths import visible
from harvest_jax.errors import DataError
from harvest_jax.files import atomic_file

COLUMNS = ["id", "video", "reason"]
# What a spreadsheet would compute when it opens the file. A minus alone is part of many ids (YouTube's).
_FORMULA = re.compile(r"'*(?:[=+@]|-.*[^\w./-])", re.DOTALL)


def write_rejects(folder: Path, split: str, rejects: Iterable[tuple[str, str, str]]) -> None:
    """Write a line for each reject: id, video, reason.

    Control characters are written as escapes, and what begins like a formula gets a ' in front.

    Raises:
      OSError: the disk is full, or similar.
    """
    with atomic_file(folder / f"rejects-{split}.tsv") as aside, aside.open("w", encoding="utf-8") as file:
        file.write("\t".join(COLUMNS) + "\n")
        file.writelines("\t".join(map(_cell, line)) + "\n" for line in rejects)


def _cell(text: str) -> str:
    shown = visible(text)
    return f"'{shown}" if _FORMULA.match(shown) else shown


def _text(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell


def read_rejects(folder: Path, split: str) -> Iterator[tuple[str, str, str]]:
    """Id, video and reason of every reject of a split; none if there is no such file.

    Raises:
      DataError: the file is damaged.
    """
    path = folder / f"rejects-{split}.tsv"
    if not path.is_file():
        return
    damaged = DataError(f"{path} is damaged: it is not a table of {', '.join(COLUMNS)}")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if next(lines, None) != COLUMNS:
                raise damaged
            for line in lines:
                if len(line) != len(COLUMNS):
                    raise damaged
                row_id, video, reason = map(_text, line)
                yield row_id, video, reason
    except (UnicodeDecodeError, csv.Error) as error:
        raise damaged from error
