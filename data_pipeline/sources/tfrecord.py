"""The positions of the records in a TFRecord file, from its framing: length, checksum of the length, data, checksum.

The checksums of the lengths (CRC-32C, masked) are verified, so that a damaged file does not give random positions. The
checksums of the data are not: that would require reading all of it.
"""

import os
import struct
from collections.abc import Iterator
from io import BufferedIOBase
from typing import NamedTuple

_HEAD, _TAIL = 12, 4  # bytes before and after a record's data


class RecordFault(Exception):
    """The rest of a file's records cannot be read; the text is the reason."""


class Extent(NamedTuple):
    """The data of a record, in bytes of the file."""

    offset: int
    size: int


def extents(file: BufferedIOBase) -> Iterator[Extent]:
    """The records in their order.

    Raises:
      RecordFault: the rest cannot be read: cut off or damaged. The records before it can be used.
    """
    descriptor = file.fileno()
    length = os.fstat(descriptor).st_size
    at = 0
    while at < length:
        head = os.pread(descriptor, _HEAD, at)
        if len(head) < _HEAD:
            raise RecordFault("cut off: within a record's header")
        size, checksum = struct.unpack("<QI", head)
        if masked_crc32c(head[:8]) != checksum:
            raise RecordFault(f"damaged: there is no TFRecord at byte {at:,} (compressed files are not supported)")
        if at + _HEAD + size + _TAIL > length:
            raise RecordFault("cut off: within a record")
        yield Extent(at + _HEAD, size)
        at += _HEAD + size + _TAIL


def masked_crc32c(data: bytes) -> int:
    """TFRecord's checksum of a few bytes: CRC-32C, rotated and with a constant added."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
