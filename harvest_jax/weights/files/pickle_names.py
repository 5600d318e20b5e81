"""The names that a torch pickle may use, and the plain descriptions that its values are read as."""

import dataclasses
from typing import Any

import numpy as np

from harvest_jax.weights.files.tensors import BFLOAT16


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
    """The name of a function or class of some package; nothing is imported."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """A member of the archive that holds `count` numbers (bytes if the dtype is None)."""

    dtype: np.dtype[Any] | None
    key: str
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a view of a storage; offset and strides are counted in numbers."""

    storage: Storage
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(eq=False, slots=True)
class ScriptModule:
    """An object of a TorchScript archive: its class's name and its attributes."""

    type_name: str
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Opaque:
    """A value of another class, or what another function would give. Nothing of it was made or run."""

    name: str  # of the class or function, such as "easydict.EasyDict"


STORAGES: dict[str, np.dtype[Any] | None] = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": BFLOAT16,
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.ByteStorage": np.dtype(np.uint8),
    "torch.BoolStorage": np.dtype(np.bool_),
    "torch.storage.UntypedStorage": None,
}
TORCH_DTYPES: dict[str, np.dtype[Any]] = {
    "torch.float64": np.dtype("<f8"),
    "torch.float32": np.dtype("<f4"),
    "torch.float16": np.dtype("<f2"),
    "torch.bfloat16": BFLOAT16,
    "torch.int64": np.dtype("<i8"),
    "torch.int32": np.dtype("<i4"),
    "torch.int16": np.dtype("<i2"),
    "torch.int8": np.dtype(np.int8),
    "torch.uint8": np.dtype(np.uint8),
    "torch.uint16": np.dtype("<u2"),
    "torch.uint32": np.dtype("<u4"),
    "torch.uint64": np.dtype("<u8"),
    "torch.bool": np.dtype(np.bool_),
}
DICTIONARIES = {"collections.OrderedDict", "collections.defaultdict"}
# Calls that are replaced by their first argument: parameters are tensors; TorchScript marks the type of lists.
PASSED_ON = {
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.Size",
    "torch.jit._pickle.build_intlist",
    "torch.jit._pickle.build_tensorlist",
    "torch.jit._pickle.build_doublelist",
    "torch.jit._pickle.build_boollist",
    "torch.jit._pickle.restore_type_tag",
}
TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"}
# Values that trainings keep beside the weights, or among them: skipped.
UNUSED = {
    "torch.device",
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    "argparse.Namespace",
    "pathlib.Path",
    "pathlib.PosixPath",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "_codecs.encode",  # protocol 2's bytes
    "builtins.set",
    "__builtin__.set",
}
SUBCLASSED = {"torch._tensor._rebuild_from_type_v2"}  # (function, class, its arguments, attributes of the tensor)
KNOWN = DICTIONARIES | PASSED_ON | TENSORS | UNUSED | SUBCLASSED | set(STORAGES) | set(TORCH_DTYPES)
TORCHSCRIPT = "__torch__."  # prefix of the classes of a TorchScript archive
