"""rejects-SPLIT.tsv of a shard folder: the rows that `harvest shards` could not use, with the reasons."""

import csv
from collections.abc import Iterator
from pathlib import Path

from harvest_jax.errors import DataError

COLUMNS = ["id", "video", "reason"]


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
                row_id, video, reason = line
                yield row_id, video, reason
    except (UnicodeDecodeError, csv.Error) as error:
        raise damaged from error
