"""The rows of an index on the disk: each embedding as float16, and as 8-bit integers for a first look at all of them.

Three files that only grow, and that are mapped into memory: the float16 rows, the integers, and for each row the factor
of its integers and the length of what they leave out. How many rows are good is written elsewhere (`index.py`): what a
killed process has appended beyond that is overwritten.
"""

import dataclasses
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float16, Float32, Int8

BLOCK = 65536  # rows that are converted at a time


@dataclasses.dataclass(frozen=True)
class Rows:
    """Embeddings, in memory or mapped.

    Attributes:
      exact: unit vectors; scores are computed from these.
      codes: round(exact / factor), within -127..127.
      scales: for each row the factor, and the length of exact - factor * codes, which bounds the error of a score.
    """

    exact: Float16[np.ndarray, "n d"]
    codes: Int8[np.ndarray, "n d"]
    scales: Float32[np.ndarray, "n 2"]

    def __len__(self) -> int:
        return len(self.exact)

    def crc(self, first: int, count: int) -> int:
        """CRC-32 of some rows, of all three parts."""
        value = 0
        if count == 0:
            return value
        for part in (self.exact, self.codes, self.scales):
            value = zlib.crc32(np.ascontiguousarray(part[first : first + count]).data.cast("B"), value)
        return value

    def taken(self, numbers: np.ndarray) -> "Rows":
        """Some of the rows, copied."""
        return Rows(self.exact[numbers], self.codes[numbers], self.scales[numbers])


def coded(embeddings: Float[np.ndarray, "n d"]) -> Rows:
    """Rows of unit vectors."""
    exact = np.asarray(embeddings, np.float16)
    values = exact.astype(np.float32)
    factors = np.maximum(np.abs(values).max(axis=1, initial=0.0) / 127, 1e-9).astype(np.float32)
    codes = np.rint(values / factors[:, None]).astype(np.int8)
    left = np.linalg.norm(values - codes * factors[:, None], axis=1)
    return Rows(exact, codes, np.stack([factors, left], axis=1).astype(np.float32))


def joined(parts: list[Rows]) -> Rows:
    """Rows one after the other; a single part is not copied."""
    if len(parts) == 1:
        return parts[0]
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("exact", "codes", "scales")))


class RowFiles:
    """The three files of one generation; compaction writes a new generation.

    Args:
      folder: the index.
      generation: number in the names.
      width: of a row.
    """

    def __init__(self, folder: Path, generation: int, width: int) -> None:
        self.width = width
        self._parts = [
            (folder / f"rows-{generation}.{name}", np.dtype(kind), columns)
            for name, kind, columns in (("f16", "<f2", width), ("i8", "i1", width), ("scales", "<f4", 2))
        ]

    def mapped(self, count: int) -> Rows:
        """The first rows, mapped into memory.

        Raises:
          OSError: a file is missing.
          ValueError: there are fewer rows.
        """
        if count == 0:
            return coded(np.zeros((0, self.width), np.float16))
        return Rows(*(np.memmap(path, kind, "r", shape=(count, width)) for path, kind, width in self._parts))

    def write(self, first: int, rows: Rows) -> None:
        """Write rows from a number on, and cut off what is behind them.

        Raises:
          OSError: the disk is full, or similar; the rows before are as they were.
        """
        for (path, kind, width), values in zip(self._parts, (rows.exact, rows.codes, rows.scales), strict=True):
            with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
                file.truncate(first * width * kind.itemsize)
                file.seek(0, os.SEEK_END)
                for begin in range(0, len(values), BLOCK):
                    data = np.ascontiguousarray(values[begin : begin + BLOCK], kind).data.cast("B")
                    while data:
                        data = data[file.write(data) or 0 :]

    def sync(self) -> None:
        """Wait until the files are on the disk.

        Raises:
          OSError: it is full or fails.
        """
        for path, _, _ in self._parts:
            if path.exists():
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def remove(self) -> None:
        """Remove the files; who has mapped them keeps them."""
        for path, _, _ in self._parts:
            path.unlink(missing_ok=True)


def blocks(count: int, size: int = BLOCK) -> Iterator[slice]:
    """0..count in pieces."""
    return (slice(begin, min(begin + size, count)) for begin in range(0, count, size))
