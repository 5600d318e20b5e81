"""The rows of one split on disk, readable in the order of a hash of their ids, in little memory.

    rows.jsonl    a line for each row, in the manifest's order
    order.npy     int64 [rows, 2]: offset of each row's line in bytes, and its number in the manifest; by sha256(id)
    early.jsonl   a line for each row that the manifest's reader rejected

Memory: 24 bytes per row while the manifest is read, about 70 while the rows are sorted; the lines are only on disk.
"""

import array
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from data_pipeline.manifest.rows import ClipRow, Reject
from data_pipeline.media_paths import WHOLE_FILE
from harvest_jax.errors import DataError

_ROWS, _ORDER, _EARLY = "rows.jsonl", "order.npy", "early.jsonl"
_KEY = 16  # bytes of the hash that decide the order: for 2**40 ids a collision is improbable


def key_of(name: str) -> bytes:
    """What the rows are ordered by: the beginning of the hash of their ids."""
    return hashlib.sha256(name.encode()).digest()[:_KEY]


class Spool:
    """Takes the rows and rejects of a split in the manifest's order and writes them below `folder`.

    Attributes:
      rows, early: number of rows, and of rejects.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows = self.early = 0
        self._content = hashlib.sha256()
        self._keys = bytearray()
        self._offsets = array.array("q")
        self._end = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._rows_file = (folder / _ROWS).open("wb")
        self._early_file = (folder / _EARLY).open("wb")

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._rows_file.close()
        finally:
            self._early_file.close()

    def add(self, entry: ClipRow | Reject) -> None:
        """Write one row or reject.

        Raises:
          OSError: the disk is full, or similar.
        """
        if isinstance(entry, Reject):
            line = _line([entry.id, entry.video, entry.reason])
            self._early_file.write(line)
            self._content.update(b"-" + line)
            self.early += 1
            return
        part = None if entry.part == WHOLE_FILE else dataclasses.asdict(entry.part)
        line = _line([entry.id, entry.video, entry.captions, entry.start, entry.end, entry.extra, part])
        self._rows_file.write(line)
        self._content.update(b"+" + line)
        self._keys += key_of(entry.id)
        self._offsets.append(self._end)
        self._end += len(line)
        self.rows += 1

    def finish(self) -> str:
        """Sort the rows, close the files, and return the sha256 of everything that was added.

        Raises:
          DataError: two rows share an id.
          OSError: the disk is full, or similar.
        """
        self._rows_file.close()
        self._early_file.close()
        keys, offsets = np.frombuffer(self._keys, ">u8").reshape(-1, 2), np.frombuffer(self._offsets, np.int64)
        self._keys, self._offsets = bytearray(), array.array("q")  # frees their memory at the end of this call
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        keys = keys[order]
        table = np.stack([offsets[order], order], axis=1)
        np.save(self.folder / _ORDER, table)
        twice = np.flatnonzero((keys[1:] == keys[:-1]).all(axis=1))
        if len(twice):
            (row,) = read_rows(self.folder, int(twice[0]), int(twice[0]) + 1)
            raise DataError(f"two rows share the id {row.id!r}")
        return self._content.hexdigest()


def _line(cells: list[Any]) -> bytes:
    return json.dumps(cells).encode() + b"\n"


@dataclasses.dataclass(frozen=True)
class SpooledRow:
    """A row as it was written; `number` counts from 0 in the manifest's order, `part` is None for a whole file."""

    number: int
    id: str
    video: str
    captions: list[str]
    start: float | None
    end: float | None
    extra: dict[str, Any]
    part: dict[str, Any] | None


def read_rows(folder: Path, begin: int, end: int) -> Iterator[SpooledRow]:
    """The rows at the positions `begin` to `end` (exclusive) in the order of the hash."""
    table = np.load(folder / _ORDER, mmap_mode="r")
    with (folder / _ROWS).open("rb") as lines:
        for offset, number in table[begin:end].tolist():
            lines.seek(offset)
            yield SpooledRow(number, *json.loads(lines.readline()))


def read_early(folder: Path, split: str) -> Iterator[Reject]:
    """The rejects of the manifest's reader, in the manifest's order."""
    with (folder / _EARLY).open("rb") as lines:
        for line in lines:
            name, video, reason = json.loads(line)
            yield Reject(name, video, reason, split)
