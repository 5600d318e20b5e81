"""Writing a safetensors file one tensor at a time, so that the model need not fit into memory.

The library's own writer needs all tensors at once. Format: safetensors_reader.py.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.files import atomic_file
from harvest_jax.weights.files.safetensors_reader import DTYPES
from harvest_jax.weights.files.tensors import BFLOAT16, TensorSpec

NAMES = {dtype: name for name, dtype in DTYPES.items()}
CHUNK = 1 << 22  # elements checked and written at a time


def write_safetensors(
    path: Path, entries: dict[str, TensorSpec], read: Callable[[str], np.ndarray], metadata: dict[str, str]
) -> str:
    """Write a safetensors file; it replaces `path` when it is whole and on the disk (`files.atomic_file`).

    The bytes depend on the arguments alone: the widest dtype first, then by name, as the library orders them.

    Args:
      path: the folder must exist; an existing file is replaced.
      entries: shape and dtype of each tensor in the file; numbers are converted if `read` gives another dtype.
      read: gives the array of a name, of its entry's shape; called once per name, in the file's order.
      metadata: text values for the header.

    Returns:
      SHA-256 (hex) of the bytes that were given to be written.

    Raises:
      DataError: a tensor has another shape, or holds numbers that are not finite or too large for its dtype.
      OSError: the disk is full, or similar. In either case nothing is left behind.
    """
    names = sorted(entries, key=lambda name: (-entries[name].dtype.itemsize, name))
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name in names:
        entry = entries[name]
        if entry.dtype not in NAMES:
            raise DataError(f"{name} cannot be written: safetensors has no type for {entry.dtype}")
        start, end = end, end + math.prod(entry.shape) * entry.dtype.itemsize
        header[name] = {"dtype": NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8 bytes
    digest = hashlib.sha256()
    with atomic_file(path) as aside, aside.open("xb") as file:

        def write(part: bytes | memoryview) -> None:
            digest.update(part)
            file.write(part)

        write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for part in _parts(name, read(name), entries[name]):
                write(part)
    return digest.hexdigest()


def _parts(name: str, array: np.ndarray, entry: TensorSpec) -> Iterator[memoryview]:
    """The bytes of one tensor in chunks, each converted and checked to be finite."""
    if array.shape != entry.shape:
        raise DataError(f"{name} cannot be written: it has the shape {array.shape}, expected {entry.shape}")
    flat = array.reshape(-1)  # copies where the array's axes are in another order
    for start in range(0, flat.size, CHUNK):
        part = np.ascontiguousarray(flat[start : start + CHUNK])
        if not all_finite(part):
            raise DataError(f"{name} cannot be written: it holds numbers that are not finite")
        if part.dtype != entry.dtype:
            with np.errstate(over="ignore"):  # checked below
                part = part.astype(entry.dtype)
            if not all_finite(part):
                raise DataError(f"{name} cannot be written: it holds numbers too large for {entry.dtype}")
        yield part.view(np.uint8).data


def all_finite(array: np.ndarray) -> bool:
    """Whether no number is infinite or NaN; for every dtype of DTYPES."""
    if array.dtype == BFLOAT16:  # all exponent bits set; many times faster than ml_dtypes
        return not ((array.view(np.uint16) & 0x7F80) == 0x7F80).any()
    if array.dtype.kind in "biu":
        return True
    return bool(np.isfinite(array).all())
