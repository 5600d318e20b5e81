"""The members of a zip archive as mapped memory, checked before use: torch and numpy store their arrays in such files.

Nothing is extracted to a file.
"""

import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.terminal import printable
from harvest_jax.weights.files.safetensors_reader import map_array
from harvest_jax.weights.files.tensors import TensorSpec

DIRECTORY_LIMIT = 64 << 20  # bytes of the archive's table of contents: half a million members
CRC_CHUNK = 1 << 24


class ZipMembers:
    """A checked archive.

    A stored member, as torch and `numpy.savez` write them, is mapped; a compressed one is decompressed up to a limit. A
    member's checksum is compared when it is read for the first time.
    """

    def __init__(self, path: Path) -> None:
        """Read the table of contents.

        Raises:
          DataError: the archive is incomplete, damaged, encrypted or malicious: a name leads out of the folder or is
            there twice, or a member ends after the file.
        """
        self.path = path
        self._infos: dict[str, zipfile.ZipInfo] = {}
        self._checked: set[str] = set()
        try:
            size = path.stat().st_size
            if _directory_bytes(path, size) > DIRECTORY_LIMIT:
                raise DataError(f"{path} is not used: its table of contents is larger than {DIRECTORY_LIMIT} bytes")
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise DataError(f"{path} is incomplete or damaged: {error}; get the file again") from error
        self._size = size
        for info in infos:
            name = info.filename
            if re.match(r"[/\\]|[A-Za-z]:[/\\]", name) or ".." in re.split(r"[/\\]", name):
                raise self._damaged(info, "leads out of the archive")
            if name in self._infos:
                raise self._damaged(info, "is there twice")
            if info.flag_bits & 1:
                raise self._damaged(info, "is encrypted")
            if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
                raise self._damaged(info, "has two sizes")
            if info.header_offset < 0 or info.header_offset + info.compress_size > size:
                raise self._damaged(info, "ends after the end of the file")
            self._infos[name] = info
        if sum(info.compress_size for info in infos) > size:
            raise DataError(f"{path} is damaged or malicious: its members overlap")

    @property
    def names(self) -> list[str]:
        """Names of the members, in the order of the table of contents."""
        return list(self._infos)

    def size(self, name: str) -> int:
        """Bytes of a member after decompression, by the table of contents."""
        return self._info(name).file_size

    def read(self, name: str, limit: int) -> np.ndarray:
        """A member's bytes [n], uint8, read-only: mapped if it is stored, decompressed if it is compressed.

        Args:
          limit: bytes; a larger compressed member is refused.

        Raises:
          DataError: there is no such member, it is too large, or its checksum differs.
        """
        info = self._info(name)
        if info.compress_type == zipfile.ZIP_STORED:
            raw = self._stored(info)
        elif info.compress_type == zipfile.ZIP_DEFLATED:
            if info.file_size > limit:
                raise self._damaged(info, f"is compressed and larger than {limit} bytes")
            raw = self._unpacked(info)
        else:
            raise self._damaged(info, "is compressed by an unknown method")
        if name not in self._checked:
            crc = 0
            for start in range(0, raw.size, CRC_CHUNK):
                crc = zlib.crc32(raw[start : start + CRC_CHUNK].data, crc)
            if crc != info.CRC and info.CRC != 0:  # zero: torch.serialization.set_crc32_options(False)
                raise self._damaged(info, "does not match its checksum")
            self._checked.add(name)
        return raw

    def begin(self, name: str, count: int) -> bytes:
        """The first `count` bytes of a member, or all if it is shorter; the checksum is not compared."""
        info = self._info(name)
        count = min(count, info.file_size)
        raw = self._stored(info)[: count + 1024]  # compressed bytes are hardly ever longer
        if info.compress_type == zipfile.ZIP_STORED:
            return raw[:count].tobytes()
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw.data, max(count, 1))
        except zlib.error as error:
            raise self._damaged(info, f"cannot be decompressed: {error}") from error

    def _info(self, name: str) -> zipfile.ZipInfo:
        if name not in self._infos:
            raise DataError(f"{self.path} is incomplete or damaged: it holds no {printable(name, 120)}")
        return self._infos[name]

    def _stored(self, info: zipfile.ZipInfo) -> np.ndarray:
        return map_array(self.path, self._begin(info), TensorSpec((info.compress_size,), np.dtype(np.uint8)))

    def _unpacked(self, info: zipfile.ZipInfo) -> np.ndarray:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            raw = unpacker.decompress(self._stored(info).data, info.file_size + 1)  # never more than declared
        except zlib.error as error:
            raise self._damaged(info, f"cannot be decompressed: {error}") from error
        if len(raw) != info.file_size:
            raise self._damaged(info, f"does not decompress to {info.file_size} bytes")
        return np.frombuffer(raw, np.uint8)

    def _begin(self, info: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin: after its own header, whose length only that header says."""
        try:
            with self.path.open("rb") as file:
                file.seek(info.header_offset)
                head = file.read(30)
                if len(head) != 30 or head[:4] != b"PK\x03\x04":
                    raise self._damaged(info, "is not where the table of contents says")
                name_length, extra_length = struct.unpack("<HH", head[26:30])
                if file.read(name_length) != info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437"):
                    raise self._damaged(info, "has another name in its own header")
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}") from error
        begin = int(info.header_offset + 30 + name_length + extra_length)
        if begin + info.compress_size > self._size:
            raise self._damaged(info, "ends after the end of the file")
        return begin

    def _damaged(self, info: zipfile.ZipInfo, why: str) -> DataError:
        return DataError(f"{self.path} is damaged or malicious: its member {printable(info.filename, 120)} {why}")


def _directory_bytes(path: Path, size: int) -> int:
    """Length of the table of contents, from the records at the archive's end; ValueError without them."""
    with path.open("rb") as file:
        file.seek(max(0, size - 65_635))  # the records, and the longest comment after them
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise ValueError("the end of the archive is missing")
    lengths = [int.from_bytes(tail[at + 12 : at + 16], "little")]
    if at >= 76 and tail[at - 76 : at - 72] == b"PK\x06\x06":  # zip64: the numbers stand in a record of their own
        lengths.append(int.from_bytes(tail[at - 36 : at - 28], "little"))
    return max(length for length in lengths if length != 0xFFFFFFFF or len(lengths) == 1)
