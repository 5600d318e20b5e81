"""What reading a record of an ArrayRecord file takes in memory, known from the file before its reader unpacks anything.

The reader of array_record believes what a file says of itself: 192 kB of compressed zeros become a record of 1.6 GB.
`harvest shards` writes each record by itself and uncompressed, so a record is as large as its place in the file. That
is checked here, by the headers alone.

The format is Riegeli's: chunks of 40 bytes of header and their data, one after the other, where each block of 64 kB
begins with 24 bytes of its own. The last block holds a chunk of three equal records, which say where the chunk is that
lists the beginnings of all others.
"""

import array
import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path

_BLOCK, _BLOCK_HEADER, _CHUNK_HEADER = 1 << 16, 24, 40
_RECORDS, _UNCOMPRESSED = ord("r"), 0  # kind of a chunk, kind of compression
_PLACE = 1  # the field of a message that says where a chunk begins
_OTHER = "a record in it is compressed or packed with others, which `harvest shards` never does"


class RecordSizes:
    """The records of a file, none of which is read before it is known to be no larger in memory than in the file.

    Attributes:
      count: their number.
    """

    def __init__(self, path: Path):
        """Find the list of the records.

        Raises:
          ValueError: the file is cut off or damaged, or the list is not stored as `harvest shards` stores it.
          OSError: it cannot be read.
        """
        self._path = path
        with _opened(path) as descriptor:
            end = os.fstat(descriptor).st_size - _BLOCK
            if end < 0:
                raise ValueError("it is too short")
            self._list = _place(_records(descriptor, end)[-1])
            self.count = _chunk(descriptor, self._list)[1] - 1  # its first entry is of the whole file

    @functools.cached_property
    def _begins(self) -> "array.array[int]":
        with _opened(self._path) as descriptor:
            return array.array("Q", map(_place, _records(descriptor, self._list)[1:]))

    def check(self, index: int) -> None:
        """Refuse a record that could be larger in memory than in the file.

        Raises:
          ValueError: it is compressed or packed with others, or it is not there.
          OSError: the file cannot be read.
        """
        begin = self._begins[index]
        with _opened(self._path) as descriptor:
            if _chunk(descriptor, begin)[1] != 1:
                raise ValueError(_OTHER)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _chunk(descriptor: int, begin: int) -> tuple[int, int]:
    """The size of a chunk's data and its number of records."""
    head = _read(descriptor, begin, _CHUNK_HEADER + 1)
    size, count, decoded = (int.from_bytes(head[a:b], "little") for a, b in ((8, 16), (25, 32), (32, 40)))
    if size > os.fstat(descriptor).st_size:
        raise ValueError("it is cut off")
    if head[24] != _RECORDS or head[_CHUNK_HEADER] != _UNCOMPRESSED or max(decoded, count) > size:
        raise ValueError(_OTHER)
    return size, count


def _records(descriptor: int, begin: int) -> list[bytes]:
    """The records of an uncompressed chunk: their sizes come first, then all their bytes."""
    size, count = _chunk(descriptor, begin)
    data = _read(descriptor, begin, _CHUNK_HEADER + size)[_CHUNK_HEADER:]
    _, place = _varint(data, 1)  # how many bytes the sizes take
    sizes = []
    for _ in range(count):
        number, place = _varint(data, place)
        sizes.append(number)
    found = []
    for number in sizes:
        found.append(data[place : place + number])
        place += number
    if not found or place > len(data):
        raise ValueError("its list of records is damaged")
    return found


def _read(descriptor: int, begin: int, count: int) -> bytes:
    """So many bytes from a place on, without the headers of blocks between them."""
    parts = []
    while count:
        begin += _BLOCK_HEADER * (begin % _BLOCK == 0)
        part = os.pread(descriptor, min(count, _BLOCK - begin % _BLOCK), begin)
        if not part:
            raise ValueError("it is cut off")
        parts.append(part)
        begin, count = begin + len(part), count - len(part)
    return b"".join(parts)


def _place(message: bytes) -> int:
    """The place of a chunk, from a protocol buffer message whose fields are all numbers."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key == _PLACE << 3 and value < 1 << 62:
            return value
    raise ValueError("its list of records is damaged")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of a protocol buffer and the place behind it."""
    value = shift = 0
    while at < len(data) and shift < 64:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError("its list of records is damaged")
