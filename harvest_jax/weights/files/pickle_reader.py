"""Reading the pickles of torch files as data: this reader has no way to import or to call anything.

A pickle is a program for a small stack machine, and two of its instructions (GLOBAL and REDUCE) can run any function of
any installed package. `pickle.Unpickler` with its own `find_class` still builds objects and sets attributes as the file
says. Here the standard library only cuts the pickle into instructions (`pickletools.genops`), and what torch writes is
worked through below: a global stays a name, a "call" of one of the few known names gives a plain description, and any
other name ends the reading with a message that tells it.
"""

import dataclasses
import pickletools
from typing import Any

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.terminal import printable
from harvest_jax.weights.files.limits import NAME_LIMIT, checked_shape
from harvest_jax.weights.files.tensors import BFLOAT16

BYTES_LIMIT = 64 << 20  # the pickle of a model of 1,000 tensors has 0.2 MB; those of whole trainings a few
INSTRUCTIONS_LIMIT = 4_000_000  # some seconds; a model of 1,000 tensors has 40,000
# Items (and characters of names) that instructions copy, since one of two bytes can copy a list of any length again.
COPIES_LIMIT = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
    """A function or class of some package: only its name."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """A member of the archive that holds numbers, `count` of them (bytes where the dtype is None)."""

    dtype: np.dtype[Any] | None
    key: str
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a view of a storage: place of its first number and strides are counted in numbers."""

    storage: Storage
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(eq=False, slots=True)
class Module:
    """An object of a TorchScript archive: its class's name and its attributes."""

    type_name: str
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)


OPAQUE = object()  # stands for values that are of no use here: devices, numpy scalars, settings of a training

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
DICTIONARIES = {"collections.OrderedDict"}
# What stands for its first argument: parameters are tensors, TorchScript marks the type of its lists and dicts.
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
# Data that trainings keep beside the weights: read over, never built.
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
    "_codecs.encode",  # how protocol 2 writes bytes
    "builtins.set",
    "__builtin__.set",
}
SUBCLASSED = {"torch._tensor._rebuild_from_type_v2"}  # (function, class, its arguments, attributes of the tensor)
KNOWN = DICTIONARIES | PASSED_ON | TENSORS | UNUSED | SUBCLASSED | set(STORAGES) | set(TORCH_DTYPES)
TORCHSCRIPT = "__torch__."  # all classes of a TorchScript archive; they are described in it and exist nowhere else

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(raw: bytes, where: str) -> Any:
    """What a torch pickle describes: dicts, lists, tuples and plain values, `StoredTensor` and `Module`.

    Args:
      raw: the pickle.
      where: for messages.

    Raises:
      DataError: it names something else than tensors (the name is told), is damaged, or is absurdly large.
    """
    if len(raw) > BYTES_LIMIT:
        raise DataError(f"{where} is not used: its pickle is larger than {BYTES_LIMIT} bytes")
    machine = _Machine(where)
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(raw)):
            if count > INSTRUCTIONS_LIMIT:
                raise DataError(f"{where} is not used: its pickle has more than {INSTRUCTIONS_LIMIT} instructions")
            machine.follow(instruction.name, argument)
        return machine.stack.pop()
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DataError(f"{where} is damaged: its pickle cannot be read ({error!r:.200})") from error


class _Machine:
    """The stack, the stacks put away at marks, and the memo."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def follow(self, name: str, argument: Any) -> None:
        """One instruction."""
        stack = self.stack
        if name in ("BINGET", "GET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("BINPUT", "PUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in LITERALS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name == "MARK":
            self.marks.append(stack)
            self.stack = []
        elif name in TUPLES:
            size = TUPLES[name]
            stack[len(stack) - size :] = [tuple(stack[len(stack) - size :])]
        elif name == "TUPLE":
            group = tuple(self._to_mark())
            self.stack.append(group)
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name in ("DICT", "LIST", "FROZENSET"):
            items = self._to_mark()
            self.stack.append(self._pairs({}, items) if name == "DICT" else items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._to_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            self._pairs(self._top(dict), items)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else self._to_mark()
            self._top(list).extend(items)
        elif name in ("GLOBAL", "INST"):
            stack.append(self._global(argument.replace(" ", ".", 1)))
            if name == "INST":
                raise self._refused(name)
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            if not isinstance(module, str) or not isinstance(attribute, str):
                raise self._refused("a global without a name")
            self._copies(len(module) + len(attribute))
            stack.append(self._global(f"{module}.{attribute}"))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._made(function, arguments, name == "NEWOBJ"))
        elif name == "BUILD":
            state = stack.pop()
            self._build(stack[-1], state)
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._to_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise self._refused(name)

    def _to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind and self.stack[-1] is not OPAQUE:
            raise ValueError(f"items for something that is no {kind.__name__}")
        return self.stack[-1] if type(self.stack[-1]) is kind else kind()

    def _pairs(self, target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Plain keys only: the hash of tuples within tuples can be made to take for ever.
            if not isinstance(key, str | int | float | bytes | None) or (isinstance(key, int) and abs(key) >= 1 << 63):
                raise ValueError("a dict with keys that are neither texts nor numbers of 64 bits")
            target[key] = value
        return target

    def _copies(self, count: int) -> None:
        self.copied += count
        if self.copied > COPIES_LIMIT:
            raise DataError(f"{self.where} is not used: its pickle copies the same values without end")

    def _global(self, name: str) -> Global:
        if name not in KNOWN and not name.startswith(TORCHSCRIPT):
            raise DataError(
                f"{self.where} is not used: its pickle asks for {printable(name, 120)}, which is not a tensor; nothing "
                "of it was run. If you trust the file, load it where it was made and save its state_dict alone"
            )
        return Global(name)

    def _refused(self, what: str) -> DataError:
        return DataError(
            f"{self.where} is not used: its pickle holds {what}, which no file of tensors has; nothing was run"
        )

    def _storage(self, label: Any) -> Storage:
        kind, storage_type, key, _device, count = label[:5]  # what may follow is None
        if kind != "storage" or type(key) is not str or len(key) > NAME_LIMIT or type(count) is not int or count < 0:
            raise ValueError("a reference to something that is no storage")
        return Storage(STORAGES[storage_type.name], key, count)

    def _made(self, function: Any, arguments: Any, new: bool) -> Any:
        """What the call of a known name stands for."""
        if not isinstance(function, Global) or type(arguments) is not tuple:
            raise self._refused("a call of something that is no function")
        name = function.name
        if name.startswith(TORCHSCRIPT) and new:
            return Module(name)
        if name in UNUSED:
            return OPAQUE
        if name in DICTIONARIES and not new:
            pairs = arguments[0] if arguments else ()
            self._copies(len(pairs))
            if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
                raise ValueError("a dict of something else than pairs")
            return self._pairs({}, [item for pair in pairs for item in pair])
        if name in PASSED_ON and not new:
            return arguments[0]
        if name in TENSORS and not new:
            self._copies(len(arguments[2]) + len(arguments[3]))
            return _tensor(name, arguments)
        if name in SUBCLASSED and not new:
            if arguments[0] == function:
                raise self._refused(f"a {name} within another")
            return self._made(arguments[0], arguments[2], new=False)
        raise self._refused(f"a call of {printable(name, 120)}")

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(target, Module):
            if type(state) is dict:  # anything else is the state of a packed or quantised part, which has no tensors
                self._copies(len(state))
                target.attributes.update((key, value) for key, value in state.items() if type(key) is str)
        elif target is not OPAQUE and type(target) is not dict:  # of a dict: the versions of torch's modules
            raise ValueError("a state for something that has none")


def _tensor(name: str, arguments: tuple[Any, ...]) -> StoredTensor:
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    dtype = storage.dtype
    if name.endswith("_v3"):
        dtype = TORCH_DTYPES[arguments[6].name]
        if len(arguments) > 7 and arguments[7]:
            raise ValueError("a tensor that is the conjugate or the negative of what is stored")
    elif len(arguments) > 6 and arguments[6]:
        raise ValueError("a tensor that is the conjugate or the negative of what is stored")
    shape = checked_shape(shape)
    if dtype is None or len(shape) != len(strides):
        raise ValueError("a tensor without shape and strides")
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in (offset, *strides)):
        raise ValueError("a tensor without a place")
    return StoredTensor(storage, dtype, offset, shape, tuple(strides))
