"""Writing a tree of arrays as Flax msgpack, one array at a time; `flax.serialization.msgpack_restore` reads it.

Flax's own writer needs the whole tree in memory and makes one string of it. Here the maps are written one entry at a
time, and each array by Flax.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack  # comes with flax
import numpy as np
from flax import serialization, traverse_util

from harvest_jax.errors import DataError
from harvest_jax.files import atomic_file
from harvest_jax.weights.files.safetensors_writer import all_finite
from harvest_jax.weights.files.tensors import Tensors


def write_msgpack(path: Path, tensors: Tensors) -> None:
    """Write tensors whose names are paths ("visual/conv1/kernel") as a nested dict; `path` appears whole or not at all.

    Raises:
      DataError: a number is not finite.
      OSError: the disk is full, or similar. In either case nothing is left behind.
    """
    tree = traverse_util.unflatten_dict({name: name for name in tensors.entries}, sep="/")
    with atomic_file(path) as aside, aside.open("xb") as file:
        for part in _packed(tree, tensors):
            file.write(part)


def _packed(tree: dict[str, Any], tensors: Tensors) -> Iterator[bytes]:
    packer = msgpack.Packer()
    yield packer.pack_map_header(len(tree))
    for key, value in tree.items():
        yield packer.pack(key)
        if isinstance(value, dict):
            yield from _packed(value, tensors)
        else:
            array = np.ascontiguousarray(tensors.read(value)).reshape(tensors.entries[value].shape)
            if not all_finite(array):
                raise DataError(f"{value} cannot be written: it holds numbers that are not finite")
            yield serialization.msgpack_serialize(array.astype(tensors.entries[value].dtype, copy=False))
