"""Reading the pickles of torch files as data: nothing is imported or called.

A pickle is a program for a small stack machine, and two of its instructions (GLOBAL and REDUCE) can run any function of
any installed package. `pickle.Unpickler` with its own `find_class` still builds objects and sets attributes as the file
says. Here the standard library only splits the pickle into instructions (`pickletools.genops`). Those that torch writes
are interpreted below: a global stays a name, and a call of a known name (pickle_names.py) gives a plain description.
Trainings keep values of other classes beside the model (settings, numpy arrays, states of random generators): a call of
an unknown name gives an `Opaque` with that name, which takes whatever the pickle puts into it and keeps nothing.
"""

import pickletools
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.terminal import printable
from harvest_jax.weights.files.limits import NAME_LIMIT, checked_shape
from harvest_jax.weights.files.pickle_names import (
    DICTIONARIES,
    KNOWN,
    PASSED_ON,
    STORAGES,
    SUBCLASSED,
    TENSORS,
    TORCH_DTYPES,
    TORCHSCRIPT,
    UNUSED,
    Global,
    Opaque,
    ScriptModule,
    Storage,
    StoredTensor,
)

BYTES_LIMIT = 64 << 20  # the pickle of a model of 1,000 tensors has 0.2 MB, that of a training a few MB
INSTRUCTIONS_LIMIT = 4_000_000  # take some seconds; a model of 1,000 tensors has 40,000
# Items, and characters of names, that instructions copy: an instruction of two bytes can copy a list of any length.
COPIES_LIMIT = 1_000_000


CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(raw: bytes, where: str) -> tuple[Any, list[str]]:
    """What a torch pickle describes, and the names it uses that are not torch's own, sorted.

    The former: dicts, lists, tuples, plain values, `StoredTensor`, `ScriptModule`, `Opaque`.

    Args:
      raw: the pickle.
      where: for messages.

    Raises:
      DataError: it is damaged, too large, or holds an instruction that torch does not write.
    """
    if len(raw) > BYTES_LIMIT:
        raise DataError(f"{where} is not used: its pickle is larger than {BYTES_LIMIT} bytes")
    machine = _Machine(where)
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(raw)):
            if count > INSTRUCTIONS_LIMIT:
                raise DataError(f"{where} is not used: its pickle has more than {INSTRUCTIONS_LIMIT} instructions")
            machine.interpret(instruction.name, argument)
        return machine.stack.pop(), sorted(machine.unknown)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DataError(f"{where} is damaged: its pickle cannot be read ({error!r:.200})") from error


class _Machine:
    """The stack, the stacks that were put aside at marks, and the memo."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0
        self.unknown: set[str] = set()

    def interpret(self, name: str, argument: Any) -> None:
        """Interpret one instruction."""
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
            items = self._to_mark()
            self.stack.append(tuple(items))
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
        elif name == "GLOBAL":
            stack.append(self._global(argument.replace(" ", ".", 1)))
        elif name == "INST":
            self._to_mark()
            self.stack.append(self._unknown(self._global(argument.replace(" ", ".", 1)), name))
        elif name == "OBJ":
            items = self._to_mark()  # the class and its arguments
            self.stack.append(self._unknown(items[0], name))
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
        elif name == "NEWOBJ_EX":
            del stack[-2:]
            stack.append(self._unknown(stack.pop(), name))
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
        if type(self.stack[-1]) is not kind and not isinstance(self.stack[-1], Opaque):
            raise ValueError(f"items for something that is not a {kind.__name__}")
        return self.stack[-1] if type(self.stack[-1]) is kind else kind()

    def _pairs(self, target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, Opaque):  # such as an enumeration's member
                self._copies(len(key.name))
                key = f"<{key.name}>"
            # Plain keys only: hashing nested tuples can be made to take very long.
            if not isinstance(key, str | int | float | bytes | None) or (isinstance(key, int) and abs(key) >= 1 << 63):
                raise ValueError("a dict with a key that is neither a text nor a number of 64 bits")
            target[key] = value
        return target

    def _copies(self, count: int) -> None:
        self.copied += count
        if self.copied > COPIES_LIMIT:
            raise DataError(f"{self.where} is not used: its pickle copies the same values too often")

    def _global(self, name: str) -> Global | Opaque:
        if name in KNOWN or name.startswith(TORCHSCRIPT):
            return Global(name)
        self.unknown.add(name)
        return Opaque(name)

    def _unknown(self, function: Any, instruction: str) -> Opaque:
        """The value of an instruction that torch does not write, which an unknown class may use."""
        if isinstance(function, Opaque):
            return function
        raise self._refused(instruction)

    def _refused(self, what: str) -> DataError:
        return DataError(
            f"{self.where} is not used: its pickle holds {what}, which a file of tensors does not have; nothing was run"
        )

    def _storage(self, label: Any) -> Storage:
        kind, storage_type, key, _device, count = label[:5]  # what may follow is None
        if kind != "storage" or type(key) is not str or len(key) > NAME_LIMIT or type(count) is not int or count < 0:
            raise ValueError("a reference to something that is not a storage")
        return Storage(STORAGES[storage_type.name], key, count)

    def _made(self, function: Any, arguments: Any, new: bool) -> Any:
        """The value that stands for a call of a known name."""
        if isinstance(function, Opaque) and type(arguments) is tuple:
            return function
        if not isinstance(function, Global) or type(arguments) is not tuple:
            raise self._refused("a call of something that is not a function")
        name = function.name
        if name.startswith(TORCHSCRIPT) and new:
            return ScriptModule(name)
        if name in UNUSED:
            return Opaque(name)
        if name in DICTIONARIES and not new:
            pairs = arguments[0] if arguments and not name.endswith("defaultdict") else ()
            self._copies(len(pairs))
            if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
                raise ValueError("a dict that is not made of pairs")
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
        if isinstance(target, ScriptModule):
            if type(state) is dict:  # else the state of a packed or quantised part, which has no tensors
                self._copies(len(state))
                target.attributes.update((key, value) for key, value in state.items() if type(key) is str)
        elif not isinstance(target, Opaque | dict):  # the state of a dict: the versions of torch's modules
            raise ValueError("a state for an object without one")


def _tensor(name: str, arguments: tuple[Any, ...]) -> StoredTensor:
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    dtype = storage.dtype
    if name.endswith("_v3"):
        dtype = TORCH_DTYPES[arguments[6].name]
        if len(arguments) > 7 and arguments[7]:
            raise ValueError("a tensor that is the conjugate or the negative of its storage")
    elif len(arguments) > 6 and arguments[6]:
        raise ValueError("a tensor that is the conjugate or the negative of its storage")
    shape = checked_shape(shape)
    if dtype is None or len(shape) != len(strides):
        raise ValueError("a tensor without shape and strides")
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in (offset, *strides)):
        raise ValueError("a tensor with an impossible offset or stride")
    return StoredTensor(storage, dtype, offset, shape, tuple(strides))
