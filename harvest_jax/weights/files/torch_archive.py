"""Tensors of torch files; torch is not needed, and nothing in the files is run.

Two kinds share one layout, a zip archive with `NAME/data.pkl` and the numbers of each storage in `NAME/data/KEY`:
TorchScript archives (`torch.jit.save`; OpenAI's published CLIP `.pt` files), whose pickle holds a tree of modules, and
files of `torch.save` since 1.6 (`.pt`, `.pth`, `.bin`, `.ckpt`), whose pickle holds dicts.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.terminal import printable
from harvest_jax.weights.files.limits import NAME_LIMIT, NAMES_LIMIT
from harvest_jax.weights.files.pickle_names import ScriptModule, StoredTensor
from harvest_jax.weights.files.pickle_reader import BYTES_LIMIT, read_pickle
from harvest_jax.weights.files.tensors import Tensors, TensorSpec
from harvest_jax.weights.files.zip_members import ZipMembers

PACKED_LIMIT = 64 << 20  # bytes of a compressed storage once unpacked: torch compresses none
CODE_LIMIT = 8 << 20  # bytes of all code in a TorchScript archive; a model of 1,000 modules has 1 MB
DEPTH_LIMIT, VALUES_LIMIT = 64, 2_000_000  # CLIP H/14 has a depth of 6 and some thousands of values
# Keys under which trainings keep the model, or the moving average of its weights (EMA); the first that is there counts.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
AVERAGES = ("state_dict_ema", "ema_state_dict", "model_ema", "module_ema", "ema_model", "ema")
OLD_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def open_archive(path: Path) -> Tensors:
    """The tensors of a TorchScript archive or a `torch.save` file, under the names of the model's `state_dict`.

    Of a file of `torch.save` only the model is read (`WRAPPERS`, else `AVERAGES`). `details["beside"]` are the plain
    values beside it, `details["notes"]` sentences: which of several models was taken, and what was left out.

    Raises:
      DataError: it is not such an archive, is incomplete, damaged or malicious, or holds no tensors.
    """
    _refuse_old(path)
    members = ZipMembers(path)
    pickles = [name for name in members.names if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(pickles) != 1:
        raise DataError(f"{path} is a zip archive but not a torch file: it holds {len(pickles) or 'no'} data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    order = f"{root}byteorder"  # written since torch 2.1
    if order in members.names and members.read(order, 64).tobytes() != b"little":
        raise DataError(f"{path} was written on a big-endian machine, which this package does not read")
    if members.size(pickles[0]) > BYTES_LIMIT:
        raise DataError(f"{path} is not used: its data.pkl is larger than {BYTES_LIMIT} bytes")
    tree, unknown = read_pickle(members.read(pickles[0], BYTES_LIMIT).tobytes(), str(path))
    details: dict[str, Any] = {}
    if isinstance(tree, ScriptModule):
        kind = "TorchScript archive"
        found = _named_tensors(tree, _Registered(members, root), path)
    else:
        tree, inside, details = _unwrapped(tree)
        kind = f"torch state_dict (under {inside})" if inside else "torch state_dict"
        found = _named_tensors(tree, None, path)
    others = _listed(unknown)
    if not found:
        why = (
            f": its pickle uses {others}, which is not a tensor; nothing of it was run. If you trust the file, load it "
            "where it was made and save its state_dict alone"
        )
        raise DataError(f"{path} holds no tensors{why if unknown else ''}")
    if unknown:
        note = f"beside its tensors the file holds values of {others}: they were left out, and nothing of them was run"
        details = details | {"notes": [*details.get("notes", []), note]}
    for name, tensor in found.items():
        _check_extent(name, tensor, members, root)

    def read(name: str) -> np.ndarray:
        return _read(found[name], members, root)

    entries = {name: TensorSpec(tensor.shape, tensor.dtype) for name, tensor in found.items()}
    return Tensors(kind, str(path), entries, read, details)


def _refuse_old(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if head.startswith(OLD_MAGIC) or head[257:262] == b"ustar":
        raise DataError(
            f"{path} has the format of torch before 1.6: save it again with a newer one, by "
            "torch.save(torch.load(OLD, map_location='cpu', weights_only=True), NEW)"
        )
    if head[:1] == b"\x80" and 2 <= int.from_bytes(head[1:2], "big") <= 5:
        raise DataError(f"{path} is a bare pickle, which could run code: save its state_dict with torch.save instead")
    if not head.startswith(b"PK\x03\x04"):
        raise DataError(f"{path} is not a torch file: it does not begin as a zip archive")


class _Registered:
    """Which tensors of a TorchScript class are parameters or buffers, by the lists in the archive's code.

    Others are constants of the code (such as a mask) that `state_dict` does not have. The code is only searched for the
    two lists.
    """

    def __init__(self, members: ZipMembers, root: str) -> None:
        self._members, self._root = members, root
        self._files = set(members.names)
        self._found: dict[str, dict[str, set[str]]] = {}  # file: class: names
        self._read = 0

    def names(self, type_name: str) -> set[str] | None:
        """None if the archive does not say: it has no code, or an old torch wrote it without the list of buffers."""
        module, _, name = type_name.rpartition(".")
        member = f"{self._root}code/{module.replace('.', '/')}.py"
        if member not in self._files:
            return None
        if member not in self._found:
            self._found[member] = self._search(member)
        return self._found[member].get(name)

    def _search(self, member: str) -> dict[str, set[str]]:
        self._read += self._members.size(member)
        if self._read > CODE_LIMIT:
            raise DataError(f"{self._members.path} is not used: its code is larger than {CODE_LIMIT} bytes")
        code = self._members.read(member, CODE_LIMIT).tobytes().decode("utf-8", "replace")
        heads = re.finditer(r"^class (\w+)\(Module\):\n((?:  __\w+__ = \[.*\]\n)+)", code, re.MULTILINE)
        return {
            head[1]: set(re.findall(r'"([^"]*)"', head[2]))
            for head in heads
            if "__parameters__" in head[2] and "__buffers__" in head[2]
        }


def _named_tensors(tree: Any, registered: _Registered | None, path: Path) -> dict[str, StoredTensor]:
    """The tensors in nested modules, dicts and lists, named by the keys that lead to them; other values are skipped.

    A pickle can hold a dict in itself, or a small one that stands for 2^50 dicts: depth, number and names are limited.
    """
    found: dict[str, StoredTensor] = {}
    children: list[tuple[Any, Any]]
    pending: list[tuple[str, int, Any]] = [("", 0, tree)]
    seen = letters = 0
    too_deep = DataError(f"{path} is not used: its values are nested too deeply or too many")
    while pending:
        prefix, depth, value = pending.pop()
        if isinstance(value, ScriptModule):
            children = list(value.attributes.items())
        else:
            children = list(value.items() if isinstance(value, dict) else enumerate(value))
        seen += 1 + len(children)
        if depth > DEPTH_LIMIT or seen > VALUES_LIMIT:
            raise too_deep
        wanted = None
        holds_tensors = any(isinstance(child, StoredTensor) for _, child in children)
        if isinstance(value, ScriptModule) and registered and holds_tensors:
            wanted = registered.names(value.type_name)
        for key, child in children:
            inside = child.attributes if isinstance(child, ScriptModule) else child
            nested = isinstance(inside, dict | list | tuple) and len(inside) > 0
            if not nested and not (isinstance(child, StoredTensor) and (wanted is None or key in wanted)):
                continue
            cut = key[: NAME_LIMIT + 1] if isinstance(key, str | bytes) else key
            name = prefix + (cut if isinstance(cut, str) else repr(cut))
            letters += len(name)
            if letters > NAMES_LIMIT:
                raise too_deep
            if nested:
                pending.append((f"{name}."[: NAME_LIMIT + 1], depth + 1, child))
            elif name in found or len(name) > NAME_LIMIT:
                raise DataError(f"{path} is not used: a name is there twice or too long: {printable(name, 120)}")
            else:
                found[name] = child
    return found


def _unwrapped(tree: Any) -> tuple[dict[Any, Any], str, dict[str, Any]]:
    """The dict of the model's tensors, the keys that lead to it, and what `open_archive` says beside it."""
    inside: list[str] = []
    beside: dict[str, Any] = {}
    notes: list[str] = []
    while isinstance(tree, dict) and len(inside) < 4:  # tensors beside the model are the training's, such as seeds
        models = [key for key in (*WRAPPERS, *AVERAGES) if isinstance(tree.get(key), dict) and tree[key]]
        if not models:
            break
        key, others = models[0], ", ".join(map(repr, models[1:]))
        if others:
            notes.append(f"the file holds more than one model: {key!r} was taken, not {others}")
        elif key in AVERAGES:
            notes.append(f"the file holds only {key!r}, a moving average of the weights (EMA): that was taken")
        beside |= {name: value for name, value in tree.items() if isinstance(name, str) and _plain(value)}
        tree = tree[key]
        inside.append(f"[{key!r}]")
    details = ({"beside": beside} if beside else {}) | ({"notes": notes} if notes else {})
    return (tree if isinstance(tree, dict) else {}), "".join(inside), details


def _listed(names: list[str]) -> str:
    """The first names, for a message."""
    return ", ".join(printable(name, 120) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _plain(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and len(value) < 200)


def _check_extent(name: str, tensor: StoredTensor, members: ZipMembers, root: str) -> None:
    """Check that all numbers of the tensor are in its storage, and the storage in the archive."""
    storage = tensor.storage
    where = f"{members.path} is damaged or malicious: its tensor {printable(name, 120)}"
    width = tensor.dtype.itemsize
    capacity = members.size(f"{root}data/{storage.key}") // width
    declared = storage.count if storage.dtype is not None else storage.count // width
    count = math.prod(tensor.shape)
    if count == 0:
        return
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if last >= min(capacity, declared) or count > capacity:  # the latter: with a stride of 0 one number gives any size
        raise DataError(f"{where} of shape {list(tensor.shape)} does not fit into its {capacity} stored numbers")


def _read(tensor: StoredTensor, members: ZipMembers, root: str) -> np.ndarray:
    if math.prod(tensor.shape) == 0:
        return np.zeros(tensor.shape, tensor.dtype)
    raw = members.read(f"{root}data/{tensor.storage.key}", PACKED_LIMIT)
    width = tensor.dtype.itemsize
    numbers = raw[tensor.offset * width : raw.size - raw.size % width].view(tensor.dtype)
    if not numbers.flags.aligned:
        numbers = numbers.copy()
    strides = tuple(stride * width for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides, writeable=False)
