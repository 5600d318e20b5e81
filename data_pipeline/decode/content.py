"""What a clip was made of: the ranges of its file that decoding it has read, and a digest of their bytes and its span.

A clip depends on nothing else of its file, so it need not be decoded again while these are the same, and comparing them
reads no more than decoding does, however long the video is. Runs inside a worker process.
"""

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from data_pipeline.media_paths import FilePart, FileRange, VideoRejected, noting, open_regular

_JOINED = 1 << 16  # bytes between two ranges that are read with them
_MOST = 32  # ranges; of more the nearest are joined


class Content:
    """The content of one clip, known once the clip is decoded."""

    def __init__(self, path: str, part: FilePart, start: float | None, end: float | None):
        self._clip = (path, part, start, end)
        self._opened: list[FileRange] = []

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Note what is read of the files that are opened in this block."""
        with noting(self._opened):
            yield

    def described(self) -> dict[str, Any]:
        """`reads` (offset and size of each range, in the file or its part) and `content`, see `digest_of`.

        Empty where that is not known: the clip is not from bytes of one file (but, say, a record that its own library
        reads), or the file has been written to meanwhile.
        """
        if len(self._opened) != 1 or not self._opened[0].reads or self._clip[1].record is not None:
            return {}
        (file,) = self._opened
        reads = joined(file.reads)
        try:
            if _state(os.stat(self._clip[0])) != _state(file.status):
                return {}
            return {"reads": reads, "content": digest_of(*self._clip, reads)}
        except (OSError, VideoRejected):
            return {}


def digest_of(path: str, part: FilePart, start: float | None, end: float | None, reads: Sequence[int]) -> str:
    """The SHA-256, in hexadecimal digits, of a clip's span and of the bytes in some ranges of its file, or its part.

    Where in a larger file the part lies does not matter: a tar may be packed anew.

    Raises:
      VideoRejected: it cannot be opened.
      OSError: it cannot be read.
    """
    extent = None if part.offset is None or part.size is None else (part.offset, part.size)
    with open_regular(path, 1 << 62, extent) as file:
        what = [start, end, part.field, file.seek(0, os.SEEK_END), list(reads)]
        digest = hashlib.sha256(json.dumps(what).encode())
        for offset, size in zip(reads[::2], reads[1::2], strict=True):
            file.seek(offset)
            while size > 0 and (data := file.read(min(size, 1 << 20))):
                digest.update(data)
                size -= len(data)
    return digest.hexdigest()


def joined(reads: Iterable[tuple[int, int]]) -> list[int]:
    """Ranges (offset, size) in order, as one flat list; near ones are joined, with the bytes between them."""
    ranges: list[list[int]] = []
    for offset, size in sorted(reads):
        if ranges and offset <= ranges[-1][1]:
            ranges[-1][1] = max(ranges[-1][1], offset + size)
        else:
            ranges.append([offset, offset + size])
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(ranges)]
    least = max([_JOINED, *sorted(gaps, reverse=True)[_MOST - 1 : _MOST]])
    merged = ranges[:1]
    for gap, after in zip(gaps, ranges[1:], strict=True):
        if gap > least:
            merged.append(after)
        else:
            merged[-1][1] = after[1]
    return [number for begin, end in merged for number in (begin, end - begin)]


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
