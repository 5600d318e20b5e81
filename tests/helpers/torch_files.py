"""Torch files without torch: a writer of its pickles and archives, sound ones and damaged or malicious ones."""

import dataclasses
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from harvest_jax.errors import DataError
from harvest_jax.weights.files.torch_archive import open_archive

STORAGE_NAMES = {
    np.dtype(np.float64): "Double",
    np.dtype(np.float32): "Float",
    np.dtype(np.float16): "Half",
    np.dtype(ml_dtypes.bfloat16): "BFloat16",
    np.dtype(np.int64): "Long",
    np.dtype(np.int32): "Int",
    np.dtype(np.int16): "Short",
    np.dtype(np.int8): "Char",
    np.dtype(np.uint8): "Byte",
    np.dtype(np.bool_): "Bool",
}


@dataclasses.dataclass
class Name:
    """A global."""

    name: str


@dataclasses.dataclass
class Call:
    """A global that is called."""

    name: str
    arguments: tuple[Any, ...] = ()


@dataclasses.dataclass
class Reference:
    """A persistent id."""

    label: tuple[Any, ...]


@dataclasses.dataclass
class Script:
    """A TorchScript object."""

    type_name: str
    attributes: dict[str, Any]


def pickled(value: Any) -> bytes:
    """Protocol 2, without memo."""
    return b"\x80\x02" + _body(value) + b"."


def _body(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value  # instructions as they are
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return b"\x8a" + bytes([9]) + value.to_bytes(9, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        raw = value.encode()
        return b"X" + struct.pack("<I", len(raw)) + raw
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_body, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_body, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_body(key) + _body(item) for key, item in value.items()) + b"u"
    if isinstance(value, Name):
        module, _, attribute = value.name.rpartition(".")
        return f"c{module}\n{attribute}\n".encode()
    if isinstance(value, Call):
        return _body(Name(value.name)) + _body(value.arguments) + b"R"
    if isinstance(value, Reference):
        return _body(value.label) + b"Q"
    if isinstance(value, Script):
        return _body(Name(value.type_name)) + b")\x81" + _body(value.attributes) + b"b"
    raise TypeError(type(value))


class Storages:
    """The storages of one archive, filled while its tensors are described."""

    def __init__(self) -> None:
        self.raw: dict[str, bytes] = {}

    def add(self, numbers: np.ndarray) -> Reference:
        """A storage of these numbers."""
        key = str(len(self.raw))
        self.raw[key] = numbers.tobytes()
        return Reference(("storage", Name(f"torch.{STORAGE_NAMES[numbers.dtype]}Storage"), key, "cuda:0", numbers.size))

    def tensor(self, numbers: np.ndarray) -> Call:
        """A tensor in C order with a storage of its own."""
        strides = tuple(int(np.prod(numbers.shape[axis + 1 :])) for axis in range(numbers.ndim))
        return view(self.add(numbers), 0, numbers.shape, strides)


def view(storage: Reference, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Call:
    """A tensor over a storage."""
    hooks = Call("collections.OrderedDict")
    return Call("torch._utils._rebuild_tensor_v2", (storage, offset, shape, strides, False, hooks))


def write_archive(
    path: Path, value: Any, raw: dict[str, bytes], others: dict[str, bytes] | None = None, packed: int = 0
) -> Path:
    """`value` (or a finished pickle, as bytes) and storages, as torch lays them out; `packed` is zipfile's method."""
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr("archive/data.pkl", value if isinstance(value, bytes) else pickled(value))
        for key, numbers in raw.items():
            archive.writestr(f"archive/data/{key}", numbers)
        archive.writestr("archive/version", b"3\n")
        for name, content in (others or {}).items():
            archive.writestr(f"archive/{name}", content)
    return path


def write_state_dict(path: Path, arrays: dict[str, np.ndarray], inside: str = "") -> Path:
    """A file of `torch.save(arrays)`, or of `torch.save({inside: arrays})`."""
    storages = Storages()
    tensors: dict[str, Any] = {name: storages.tensor(array) for name, array in arrays.items()}
    return write_archive(path, {inside: tensors} if inside else tensors, storages.raw)


def read_all(tensors: Any) -> dict[str, np.ndarray]:
    """Every tensor of a `Tensors`, each as its entry says."""
    found = {name: tensors.read(name) for name in tensors.entries}
    for name, entry in tensors.entries.items():
        assert (found[name].shape, found[name].dtype) == (entry.shape, entry.dtype), name
    return found


def refused(path: Path, message: str) -> str:
    """The text of the DataError with which an archive is refused: one line that matches `message`."""
    with pytest.raises(DataError, match=message) as raised:
        read_all(open_archive(path))
    text = str(raised.value)
    assert "\n" not in text
    assert len(text) < 700
    assert str(path) in text
    return text


def instructions(value: Any) -> bytes:
    """The instructions of `pickled`, to be put together."""
    return pickled(value)[2:-1]


def add_member(path: Path, name: str, content: bytes = b"x") -> None:
    """Add a member to an archive, also under a name that is there already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zipfile, at doubles
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(name), content)
