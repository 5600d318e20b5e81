"""Opening a checkpoint of any kind. The kind follows from the first bytes of a file, not from its name."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.terminal import printable
from harvest_jax.weights.files.flax_reader import open_msgpack, open_npz
from harvest_jax.weights.files.safetensors_reader import open_safetensors
from harvest_jax.weights.files.tensors import Tensors
from harvest_jax.weights.files.torch_archive import open_archive
from harvest_jax.weights.files.weights_digest import check_digest
from harvest_jax.weights.files.zip_members import ZipMembers

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
# A folder is read as the first of these whose config and weights are there. A folder of OpenCLIP often holds the same
# weights in Hugging Face's layout too.
FOLDERS = (
    ("OpenCLIP folder", "open_clip_config.json", ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")),
    ("Hugging Face folder", CONFIG, ("model.safetensors", "model.safetensors.index.json")),
    ("Hugging Face folder", CONFIG, ("pytorch_model.bin", "pytorch_model.bin.index.json")),
    ("Hugging Face folder", CONFIG, ("flax_model.msgpack",)),
)
# Folders that hold a model's folder: of sentence-transformers; of huggingface_hub's cache (models--OWNER--NAME).
NESTED = ("0_CLIPModel", "snapshots/*", "models--*/snapshots/*")
DETAILS = ("open_clip_config.json", CONFIG, "preprocessor_config.json", "processor_config.json")
# Anywhere in a name: of torch.compile; of FSDP; of activation checkpointing.
INFIXES = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# Of DistributedDataParallel and deepspeed; of Flax variables; of programs that keep a CLIP in a module of theirs.
PREFIXES = ("module.", "params/", "model.", "clip.", *INFIXES)
FLAT = "_flat_param"  # FSDP's name of many parameters in one, of a state_dict that was not gathered
# Where a Flax training state keeps the parameters: beside an optax state (Scenic's `TrainState`), or in flax.optim's.
STATES = {"opt_state/": "params/", "optimizer/state/": "optimizer/target/"}
# Whole numbers that OpenAI's archives keep among the tensors. They follow from the shapes of the others.
NUMBERS = ("input_resolution", "context_length", "vocab_size")
FILES = (".pt", ".pth", ".bin", ".npz", ".msgpack", ".ckpt", ".safetensors", ".h5")  # what a folder is searched for
JSON_LIMIT = 8 << 20  # bytes; the index of a model of 80,000 tensors is as large
JSON_DEPTH = 32  # of nesting; a config has five
PREFIXES_LIMIT = 8  # removed from one name
POINTER = b"version https://git-lfs"
HDF5 = b"\x89HDF\r\n\x1a\n"


def open_checkpoint(path: Path) -> Tensors:
    """The tensors of one model, whatever file or folder holds it; only headers are read, except for a digest.

    Files: TorchScript archives and state_dict files of torch (see torch_archive.py), safetensors, Flax msgpack, npz,
    and the index of a model in several files (`*.index.json`). Folders: this package's, Hugging Face's, OpenCLIP's.
    Wrappers of trainings ({"model": ...}) and prefixes of wrapping modules ("module.") are removed; `kind` names them.
    The weights of a folder of this package are compared with its digest. A folder that holds the folder of one model
    (NESTED) is that model.

    Returns:
      Names as the checkpoint has them; those of msgpack are the keys joined by "/". `details` holds, where they are
      there, the JSON files of DETAILS under their names without ".json", "metadata" (of the header of safetensors),
      "beside" (plain values next to a wrapped model), "notes" (sentences for the user), and the NUMBERS, which are not
      among the entries then.

    Raises:
      DataError: the file does not exist, is of no known kind, damaged or malicious, or holds no tensors.
    """
    if os.path.isdir(path):
        tensors = _open_folder(path)
    elif os.path.isfile(path):  # unlike Path.is_file, it takes any text for a name
        tensors = _open_file(path)
    else:
        raise DataError(f"{path} does not exist")
    if not tensors.entries:
        raise DataError(f"{path} ({tensors.kind}) holds no tensors")
    return _without_numbers(_without_prefixes(_without_state(tensors)))


def _open_file(path: Path) -> Tensors:
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise DataError(f"{path} is empty")
    if head.startswith(POINTER):
        raise DataError(f"{path} is a pointer of Git LFS, not the file itself: get the file with `git lfs pull`")
    if head.startswith(HDF5):
        raise DataError(
            f"{path} is an HDF5 file, as TensorFlow and Keras write (tf_model.h5): it is not read here; get the same "
            "model as model.safetensors or pytorch_model.bin"
        )
    if path.name.endswith(".index.json"):
        return _open_index(path)
    if head.startswith(b"PK\x03\x04"):
        names = ZipMembers(path).names
        return open_npz(path) if all(name.endswith(".npy") for name in names) else open_archive(path)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return open_safetensors(path)
    if (len(head) > 1 and head[0] == 0x80 and head[1] <= 5) or path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        return open_archive(path)  # an old pickle, or something else of that name: the error says what to do
    if head[0] & 0xF0 == 0x80 or head[0] in (0xDE, 0xDF):  # a map
        return open_msgpack(path)
    raise DataError(f"{path} is of no known format: neither torch, safetensors, msgpack nor npz")


def _open_folder(folder: Path) -> Tensors:
    details = {name.removesuffix(".json"): read_json(folder / name) for name in DETAILS if (folder / name).is_file()}
    for kind, config, choices in FOLDERS:
        for name in choices:
            if (folder / config).is_file() and (folder / name).is_file():
                tensors = _open_file(folder / name)
                ours = config == CONFIG and isinstance(details["config"].get("model"), dict)
                if ours:
                    check_digest(folder / name, details["config"])
                kind = f"{'model folder of this package' if ours else kind} ({tensors.kind})"
                return dataclasses.replace(tensors, kind=kind, where=str(folder), details=tensors.details | details)
    weights = sorted(name for _, _, choices in FOLDERS for name in choices if (folder / name).is_file())
    if weights:
        raise DataError(f"{folder} holds {weights[0]} but no {CONFIG}: add it, or give the file instead of the folder")
    nested = sorted(path for pattern in NESTED for path in folder.glob(pattern) if _holds_model(path))
    if len(nested) == 1:
        return _open_folder(nested[0])
    if nested:
        found = ", ".join(printable(path.relative_to(folder), 120) for path in nested[:3])
        raise DataError(f"{folder} holds the folders of {len(nested)} models: give one of them ({found})")
    files = sorted(name for name in os.listdir(folder) if name.endswith(FILES))
    hint = f"; give one of its files, such as {printable(files[0], 120)}" if files else ""
    raise DataError(f"{folder} is not the folder of a model: it holds no weights beside a {CONFIG}{hint}")


def _holds_model(folder: Path) -> bool:
    return any((folder / name).is_file() for _, config, choices in FOLDERS for name in (config, *choices))


def _open_index(path: Path) -> Tensors:
    """A model in several files; the index says which tensor is in which file."""
    table = read_json(path).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise DataError(f"{path} is not the index of a model in several files: it has no weight_map of file names")
    files = sorted(set(table.values()))
    for name in files:
        if name != Path(name).name or "\\" in name:
            raise DataError(f"{path} is not used: its file {printable(name, 120)} leads out of the folder")
        if name.endswith(".json") or not os.path.isfile(path.parent / name):
            raise DataError(
                f"{path} names {printable(name, 120)}, which is not a file beside it: get all {len(files)} files"
            )
    parts = {name: _open_file(path.parent / name) for name in files}
    for name, file in table.items():
        if name not in parts[file].entries:
            raise DataError(f"{path}: {printable(name, 120)} is not in {printable(file, 120)}, where it should be")
    kinds = sorted({part.kind for part in parts.values()})
    entries = {name: parts[file].entries[name] for name, file in table.items()}
    return Tensors(f"{', '.join(kinds)} in {len(files)} files", str(path), entries, lambda n: parts[table[n]].read(n))


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
      DataError: the file cannot be read, is not JSON, holds something else, or is nested too deeply.
    """
    try:
        if path.stat().st_size > JSON_LIMIT:
            raise DataError(f"{path} is not used: it is larger than {JSON_LIMIT} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no JSON object")
    level: list[Any] = [found]
    for _ in range(JSON_DEPTH):
        level = [child for value in level for child in (value.values() if isinstance(value, dict) else value)]
        level = [value for value in level if isinstance(value, dict | list)]
    if level:  # printing it would fail
        raise DataError(f"{path} is not used: its values are nested more than {JSON_DEPTH} deep")
    return found


def _without_state(tensors: Tensors) -> Tensors:
    """The parameters alone, if an optimizer's state of Flax is beside them."""
    for state, place in STATES.items():
        names = {name: name.removeprefix(place) for name in tensors.entries if name.startswith(place)}
        if names and any(name.startswith(state) for name in tensors.entries):
            return dataclasses.replace(
                tensors.renamed(names), kind=f"{tensors.kind}, the parameters of a training state"
            )
    return tensors


def _without_prefixes(tensors: Tensors) -> Tensors:
    """The names without what wrapping modules put into them.

    Raises:
      DataError: parameters are flattened, or two names become one.
    """
    if any(FLAT in name for name in tensors.entries):
        raise DataError(
            f"{tensors.where} holds parameters that FSDP put together ({FLAT}): save the gathered ones, "
            "StateDictType.FULL_STATE_DICT"
        )
    names = {name: name for name in tensors.entries}
    taken: list[str] = []
    while len(taken) < PREFIXES_LIMIT and (
        prefix := next((p for p in PREFIXES if all(new.startswith(p) for new in names.values())), None)
    ):
        names = {old: new.removeprefix(prefix) for old, new in names.items()}
        taken.append(prefix)
    for infix in INFIXES:
        if any(infix in new for new in names.values()):
            names = {old: new.replace(infix, "") for old, new in names.items()}
            taken.append(infix)
    if not taken:
        return tensors
    if len(set(names.values())) < len(names):
        raise DataError(f"{tensors.where} holds a tensor twice, with and without {''.join(taken)} in its name")
    return dataclasses.replace(tensors.renamed(names), kind=f"{tensors.kind}, without the prefix {''.join(taken)}")


def _without_numbers(tensors: Tensors) -> Tensors:
    found = {
        name: int(tensors.read(name).item())
        for name in NUMBERS
        if name in tensors.entries and tensors.entries[name].shape == () and tensors.entries[name].dtype.kind in "iu"
    }
    if not found:
        return tensors
    kept = tensors.renamed({name: name for name in tensors.entries if name not in found})
    return dataclasses.replace(kept, details=tensors.details | found)
