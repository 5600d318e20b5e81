"""Tensors of Flax msgpack files (such as Scenic's checkpoints) and of npz files. Nothing is unpickled.

msgpack (https://github.com/msgpack/msgpack/blob/master/spec.md) as `flax.serialization` writes it: maps within maps,
arrays as extension 1 and numpy scalars as extension 3, whose bytes are again msgpack: (shape, name of the dtype, bytes
in C order). Arrays over 1 GiB are maps of flat pieces. Only headers are read here: the library would hold the whole
file in memory twice.
"""

import dataclasses
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.terminal import printable
from harvest_jax.weights.files.limits import NAME_LIMIT, NAMES_LIMIT, checked_shape
from harvest_jax.weights.files.safetensors_reader import DTYPES, map_array
from harvest_jax.weights.files.tensors import BFLOAT16, Tensors, TensorSpec
from harvest_jax.weights.files.zip_members import ZipMembers

DTYPE_OF_NAME = {dtype.name: dtype for dtype in DTYPES.values()}
DEPTH_LIMIT, VALUES_LIMIT, TEXT_LIMIT = 64, 2_000_000, 1000
UNPACKED_LIMIT = 2 << 30  # bytes of one compressed array of an npz
CHUNKED = "__msgpack_chunked_array__"
# https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, as numpy writes it; numpy's own reader
# evaluates the text as Python.
NPY_HEADER = re.compile(
    rb"\x93NUMPY(?:\x01\x00(?P<length1>..)|[\x02\x03]\x00(?P<length2>....))"
    rb"(?P<text>\{'descr': '(?P<dtype>[^'\\\n]*)', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,15}, ?)*(?:\d{1,15})?)\),? ?\} *\n)",
    re.DOTALL,
)
NPY_HEADER_LIMIT = 4096  # bytes; numpy pads to a multiple of 64
NPY_DTYPES = {dtype.str: dtype for dtype in DTYPES.values() if dtype.isbuiltin == 1} | dict.fromkeys(
    ("|V2", "<V2"), BFLOAT16
)


@dataclasses.dataclass(frozen=True)
class _Raw:
    """A range of bytes in the file."""

    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class _Array:
    """An array of the file, in one piece or in several, in C order."""

    entry: TensorSpec
    pieces: tuple[tuple[int, TensorSpec], ...]  # (first byte, its shape and dtype)


def open_msgpack(path: Path) -> Tensors:
    """The arrays of a Flax msgpack file; their names are the keys joined by "/".

    `details["beside"]` are the plain values of the outermost map.

    Raises:
      DataError: the file is incomplete, damaged, or was not written by Flax.
    """
    try:
        size = path.stat().st_size
        data = np.memmap(path, np.uint8, "r").data if size else memoryview(b"")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        parser = _Parser(data)
        tree = parser.value(0)
        if parser.at != size:
            raise ValueError(f"{size - parser.at} bytes follow the end")
        found = _named_arrays(tree)
    except (ValueError, struct.error) as error:
        raise DataError(f"{path} is damaged or was not written by Flax: {error}") from error

    def read(name: str) -> np.ndarray:
        array = found[name]
        pieces = [map_array(path, offset, entry) for offset, entry in array.pieces]
        return (pieces[0] if len(pieces) == 1 else np.concatenate(pieces)).reshape(array.entry.shape)

    beside = {key: value for key, value in tree.items() if isinstance(value, bool | int | float | str)}
    entries = {name: array.entry for name, array in found.items()}
    return Tensors("Flax msgpack", str(path), entries, read, {"beside": beside} if beside else {})


class _Parser:
    """Reads msgpack values one after the other."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0
        self.count = 0

    def value(self, depth: int) -> Any:
        """The next value: dict, list, plain value, `_Array`, or `_Raw` for bytes; ValueError if it is damaged."""
        self.count += 1
        if depth > DEPTH_LIMIT or self.count > VALUES_LIMIT:
            raise ValueError("its values are nested too deeply or too many")
        head = self._number("B")
        if head <= 0x7F or head >= 0xE0:
            return head if head <= 0x7F else head - 0x100
        if head <= 0x8F:
            return self._map(head & 0x0F, depth)
        if head <= 0x9F:
            return [self.value(depth + 1) for _ in range(head & 0x0F)]
        if head <= 0xBF:
            return self._text(head & 0x1F)
        if head in _PLAIN:
            return _PLAIN[head]
        if head in _NUMBERS:
            return self._number(_NUMBERS[head])
        if head in _SIZED:
            kind, code = _SIZED[head]
            size = self._number(code)
            if kind == "map":
                return self._map(size, depth)
            if kind == "list":
                return [self.value(depth + 1) for _ in range(size)]
            if kind == "text":
                return self._text(size)
            return self._raw(size) if kind == "bytes" else self._extension(size, depth)
        if head in _FIXED_EXTENSIONS:
            return self._extension(_FIXED_EXTENSIONS[head], depth)
        raise ValueError(f"no value begins at byte {self.at - 1}")

    def _number(self, code: str) -> Any:
        form = struct.Struct(f">{code}")
        start, self.at = self.at, self.at + form.size
        if self.at > len(self.data):
            raise ValueError("it is incomplete")
        return form.unpack_from(self.data, start)[0]

    def _raw(self, size: int) -> _Raw:
        start, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise ValueError("it is incomplete")
        return _Raw(start, size)

    def _text(self, size: int) -> str:
        raw = self._raw(size)
        return bytes(self.data[raw.offset : raw.offset + min(raw.size, TEXT_LIMIT)]).decode("utf-8", "replace")

    def _map(self, size: int, depth: int) -> Any:
        found: dict[str, Any] = {}
        for _ in range(size):
            key = self.value(depth + 1)
            if not isinstance(key, str | int) or str(key) in found:
                raise ValueError("a key is there twice or is not a text")
            found[str(key)] = self.value(depth + 1)
        return _joined(found) if CHUNKED in found else found

    def _extension(self, size: int, depth: int) -> _Array | None:
        code = self._number("b")
        end = self.at + size
        if end > len(self.data):
            raise ValueError("it is incomplete")
        if code not in (1, 3):  # a complex number, or another program's extension
            self.at = end
            return None
        parts = self.value(depth + 1)
        if self.at != end or not isinstance(parts, list) or len(parts) != 3:
            raise ValueError("an array without shape, dtype and bytes")
        shape, name, raw = parts
        if isinstance(name, _Raw):  # written with use_bin_type off
            name = bytes(self.data[name.offset : name.offset + min(name.size, TEXT_LIMIT)]).decode("utf-8", "replace")
        if not isinstance(name, str) or name not in DTYPE_OF_NAME:
            raise ValueError(f"an array of the dtype {printable(name, 60)}")
        dtype = DTYPE_OF_NAME[name]
        entry = TensorSpec(checked_shape(shape), dtype)
        if not isinstance(raw, _Raw) or raw.size != math.prod(entry.shape) * dtype.itemsize:
            raise ValueError("an array of another size than its shape says")
        return _Array(entry, ((raw.offset, entry),))


_PLAIN = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = dict(zip((0xCA, 0xCB, *range(0xCC, 0xD4)), "fdBHIQbhiq", strict=True))
_SIZED = {
    0xC4: ("bytes", "B"),
    0xC5: ("bytes", "H"),
    0xC6: ("bytes", "I"),
    0xC7: ("extension", "B"),
    0xC8: ("extension", "H"),
    0xC9: ("extension", "I"),
    0xD9: ("text", "B"),
    0xDA: ("text", "H"),
    0xDB: ("text", "I"),
    0xDC: ("list", "H"),
    0xDD: ("list", "I"),
    0xDE: ("map", "H"),
    0xDF: ("map", "I"),
}
_FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


def _joined(found: dict[str, Any]) -> _Array:
    """An array over 1 GiB, which Flax writes in pieces."""
    shape, chunks = found.get("shape"), found.get("chunks")
    if not isinstance(shape, dict) or not isinstance(chunks, dict) or not chunks:
        raise ValueError("an array in pieces without a shape or without pieces")
    sizes = checked_shape([shape.get(str(axis)) for axis in range(len(shape))])
    arrays = [part for index in range(len(chunks)) if isinstance(part := chunks.get(str(index)), _Array)]
    if len(arrays) != len(chunks):
        raise ValueError("an array in pieces without a shape or without pieces")
    dtype = arrays[0].entry.dtype
    total = sum(math.prod(part.entry.shape) for part in arrays)
    if any(part.entry.dtype != dtype or len(part.entry.shape) != 1 for part in arrays) or total != math.prod(sizes):
        raise ValueError("an array whose pieces do not fit together")
    return _Array(TensorSpec(sizes, dtype), tuple(piece for part in arrays for piece in part.pieces))


def _named_arrays(tree: Any) -> dict[str, _Array]:
    if not isinstance(tree, dict):
        raise ValueError("it is not a map")
    found: dict[str, _Array] = {}
    pending: list[tuple[str, Any]] = [("", tree)]
    letters = 0
    while pending:
        prefix, value = pending.pop()
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            if not (isinstance(child, _Array) or (isinstance(child, dict | list) and child)):
                continue
            name = f"{prefix}{key}"
            letters += len(name)
            if letters > NAMES_LIMIT:
                raise ValueError("its values are nested too deeply or too many")
            if not isinstance(child, _Array):
                pending.append((f"{name}/"[: NAME_LIMIT + 1], child))
            elif name in found or len(name) > NAME_LIMIT:
                raise ValueError(f"a name is there twice or too long: {printable(name, 120)}")
            else:
                found[name] = child
    return found


def open_npz(path: Path) -> Tensors:
    """The arrays of an npz file under their names. A dtype of 2-byte void is read as bfloat16: numpy saves it so.

    Raises:
      DataError: the file is incomplete or damaged, or an array is pickled or has another dtype than numbers.
    """
    members = ZipMembers(path)
    found: dict[str, tuple[str, int, bool, TensorSpec]] = {}  # member, length of its header, Fortran order, spec
    for member in members.names:
        name = member.removesuffix(".npy")
        header = NPY_HEADER.match(members.begin(member, NPY_HEADER_LIMIT))
        if header is None:
            raise DataError(f"{path} is damaged: its array {printable(name, 120)} has no header of numpy")
        code = header["dtype"].decode("ascii", "replace")
        if "O" in code:
            raise DataError(f"{path} is not used: its array {printable(name, 120)} is pickled; save it as numbers")
        if code not in NPY_DTYPES:
            raise DataError(f"{path} is not used: its array {printable(name, 120)} has the dtype {printable(code, 60)}")
        try:
            shape = checked_shape([int(size) for size in header["shape"].split(b",") if size.strip()])
        except ValueError as error:
            raise DataError(f"{path} is damaged: its array {printable(name, 120)} is {error}") from error
        entry = TensorSpec(shape, NPY_DTYPES[code])
        length = int.from_bytes(header["length1"] or header["length2"], "little")
        start = header.start("text") + length
        if start + math.prod(shape) * entry.dtype.itemsize != members.size(member) or header.end() > start:
            raise DataError(f"{path} is damaged: its array {printable(name, 120)} has another size than its shape says")
        found[name] = (member, start, header["fortran"] == b"True", entry)

    def read(name: str) -> np.ndarray:
        member, start, fortran, entry = found[name]
        numbers = members.read(member, UNPACKED_LIMIT)[start:].view(entry.dtype)
        array = numbers.reshape(entry.shape, order="F" if fortran else "C")
        return array if array.flags.aligned else array.copy()

    return Tensors("npz", str(path), {name: entry for name, (*_, entry) in found.items()}, read)
