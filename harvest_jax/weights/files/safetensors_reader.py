"""Reading a safetensors file: the whole header is checked, tensors are mapped into memory one at a time.

The format (https://github.com/huggingface/safetensors#format): 8 bytes little-endian length of the header, the header
as JSON ({name: {"dtype", "shape", "data_offsets"}, "__metadata__": {str: str}}), the tensors in C order without gaps.
The library is not used: it copies each tensor, and some versions cannot give bfloat16 to numpy.
"""

import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.terminal import printable
from harvest_jax.weights.files.limits import checked_shape
from harvest_jax.weights.files.tensors import BFLOAT16, Tensors, TensorSpec

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}
HEADER_LIMIT = 8 << 20  # bytes; enough for 80,000 tensors. In memory JSON takes up to 26 times as much


def open_safetensors(path: Path) -> Tensors:
    """The tensors of a safetensors file; `details["metadata"]` is the header's text values, missing without any.

    Raises:
      DataError: the file is incomplete, or its header is not one of this format.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise DataError(f"{path} cannot be read as safetensors: its header does not fit into {size} bytes")
            if length > HEADER_LIMIT:
                raise DataError(f"{path} is not used: its header is larger than {HEADER_LIMIT} bytes")
            header = json.loads(file.read(length), object_pairs_hook=_no_doubles)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as safetensors: its header is damaged ({error})") from error
    start = 8 + length
    try:
        metadata = header.pop("__metadata__", None) or {}
        if not all(isinstance(value, str) for value in metadata.values()):
            raise TypeError("metadata that is not text")
        spans = {name: _span(name, value) for name, value in header.items()}
    except (AttributeError, TypeError) as error:
        raise DataError(f"{path} cannot be read as safetensors: its header is not a table of tensors") from error
    except ValueError as error:
        raise DataError(f"{path} cannot be read as safetensors: {error}") from error
    end = 0
    for name, (_, first, last) in sorted(spans.items(), key=lambda item: item[1][1:]):
        if first != end:
            raise DataError(f"{path} cannot be read as safetensors: a gap or an overlap before {printable(name, 120)}")
        end = last
    if start + end != size:
        raise DataError(f"{path} cannot be read as safetensors: it has {size} bytes, expected {start + end}")

    def read(name: str) -> np.ndarray:
        entry, first, _ = spans[name]
        return map_array(path, start + first, entry)

    entries = {name: entry for name, (entry, _, _) in spans.items()}
    return Tensors("safetensors", str(path), entries, read, {"metadata": metadata} if metadata else {})


def map_array(path: Path, offset: int, entry: TensorSpec) -> np.ndarray:
    """Read-only array in C order over a part of a file; bytes are read from the disk when they are used.

    Raises:
      DataError: the file is missing or too short.
    """
    count = math.prod(entry.shape)
    if count == 0:
        return np.zeros(entry.shape, entry.dtype)
    try:
        # Mapped as bytes, then viewed as the dtype: memmap does not take the dtypes of ml_dtypes.
        raw = np.memmap(path, np.uint8, "r", offset, (count * entry.dtype.itemsize,))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read at byte {offset}: {error}") from error
    array = np.frombuffer(raw, entry.dtype).reshape(entry.shape)
    return array if array.flags.aligned else array.copy()


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _span(name: str, value: dict[str, Any]) -> tuple[TensorSpec, int, int]:
    """(shape and dtype, first byte, byte after the last); ValueError if they do not agree."""
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{printable(name, 120)} has the dtype {printable(dtype, 60)}, which is not supported")
    try:
        entry = TensorSpec(checked_shape(shape), DTYPES[dtype])
    except ValueError as error:
        raise ValueError(f"{printable(name, 120)} is {error}") from error
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int and n >= 0 for n in offsets):
        raise ValueError(f"{printable(name, 120)} has no offsets")
    if offsets[1] - offsets[0] != math.prod(entry.shape) * entry.dtype.itemsize:
        raise ValueError(f"{printable(name, 120)} has a size that does not match its offsets")
    return entry, offsets[0], offsets[1]
