"""`harvest inspect`: what is in a shard folder, a model folder, a training folder or any checkpoint."""

import argparse
import contextlib
import json
import math
from pathlib import Path
from typing import Any

from harvest_jax.errors import ConfigError, DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest inspect`."""
    parser.add_argument(
        "path", type=Path, help="folder of harvest shards, train or demo; or a checkpoint of any kind, file or folder"
    )
    parser.add_argument(
        "--contact_sheet",
        type=Path,
        metavar="PNG",
        help="draw frames of some clips (default: FOLDER/contact_sheet.png)",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="of shards, also write a page: the numbers, clips and their captions"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a text")


def run(args: argparse.Namespace) -> int:
    """Recognise the file or folder by what it holds and describe it."""
    path: Path = args.path
    if not path.exists():
        raise DataError(f"no file or folder {path}")
    found: dict[str, Any]
    if (path / "dataset_info.json").is_file():
        from data_pipeline.shards.describe import describe, format_description

        found = describe(path, args.contact_sheet or path / "contact_sheet.png", args.html)
        text = format_description(found)
    elif is_model(path):
        found = describe_model(path)
        text = _lines(found)
    elif (path / "checkpoints").is_dir():
        found = describe_workdir(path)
        text = _lines(found)
    else:
        try:
            found = describe_checkpoint(path)
        except DataError as error:
            if not path.is_dir():
                raise
            what = "is no shard folder (dataset_info.json), no model folder and no workdir (checkpoints)"
            raise DataError(f"{path} {what}; as a checkpoint: {error}") from error
        text = _lines(found)
    print(json.dumps(found) if args.json else text)
    return 0


def is_model(folder: Path) -> bool:
    """Whether it is a model folder of this package, sound or not: Hugging Face's have files of the same names."""
    from harvest_jax.weights.files.open_checkpoint import CONFIG, read_json

    if not (folder / "model.safetensors").is_file():
        return False
    try:
        return isinstance(read_json(folder / CONFIG).get("model"), dict)
    except DataError:
        return True  # not sound: describe_model says why


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """What another program's checkpoint is, from names, shapes and configs: no tensor is read.

    Returns:
      JSON values: `kind` ("checkpoint"), `file`, `family` (None: unknown), `tensors`, `parameters`, `stored_as`,
      `bytes`; of a known family also `model` and `problem` (None, or why it cannot be imported as it is).

    Raises:
      DataError: it cannot be read, or is none.
    """
    from harvest_jax.weights.families.known import family_of
    from harvest_jax.weights.files.open_checkpoint import open_checkpoint
    from harvest_jax.weights.translate import as_ours

    tensors = open_checkpoint(path)
    sizes = [(math.prod(entry.shape), entry.dtype) for entry in tensors.entries.values()]
    found: dict[str, Any] = {
        "kind": "checkpoint",
        "file": tensors.kind,
        "family": None,
        "tensors": len(sizes),
        "parameters": sum(size for size, _ in sizes),
        "stored_as": sorted({str(dtype) for _, dtype in sizes}),
        "bytes": sum(size * dtype.itemsize for size, dtype in sizes),
    }
    try:
        family = family_of(tensors)
    except DataError:
        return found | {"names": [name[:120] for name in sorted(tensors.entries)[:10]]}
    found["family"] = family.name
    unknown: dict[str, Any] = {}
    problem = None
    try:
        try:
            config = family.architecture(tensors, None)
        except ConfigError as error:  # all but the activation can be known
            problem, unknown = str(error), {"activation": None}
            config = family.architecture(tensors, "gelu")
        model = config.to_dict()
        found["model"] = model | {tower: model[tower] | unknown for tower in ("video", "text")}
        as_ours(tensors, family, config)
    except (ConfigError, DataError) as error:
        problem = str(error)
    return found | {"problem": problem}


def describe_model(folder: Path) -> dict[str, Any]:
    """Towers, parameter counts and origin of a model folder, from its headers alone."""
    from safetensors import SafetensorError, safe_open

    from harvest_jax.weights.files.open_checkpoint import CONFIG, read_json
    from harvest_jax.weights.folder import WEIGHTS, load_config

    config = load_config(folder)
    parts: dict[str, int] = {}
    dtypes: set[str] = set()
    try:
        with safe_open(folder / WEIGHTS, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                entry = file.get_slice(name)
                part = name.split("/")[0]
                parts[part] = parts.get(part, 0) + math.prod(entry.get_shape())
                dtypes.add(entry.get_dtype())
    except (SafetensorError, OSError) as error:
        raise DataError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    return {
        "kind": "model",
        "model": config.to_dict(),
        "parameters": parts | {"all": sum(parts.values())},
        "stored_as": sorted(dtypes),
        "bytes": (folder / WEIGHTS).stat().st_size,
        "origin": read_json(folder / CONFIG).get("origin", {}),
    }


def describe_workdir(folder: Path) -> dict[str, Any]:
    """Checkpoints, the last measurements and the config of a training folder.

    The last line of the measurements is half written where the run was killed; then it is the line before.
    """
    from harvest_jax.weights.files.open_checkpoint import CONFIG, read_json

    steps = sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    found: dict[str, Any] = {"kind": "workdir", "checkpoints": steps, "export": (folder / "export").is_dir()}
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8", errors="replace").splitlines() if metrics.is_file() else []
    while lines and "last_metrics" not in found:
        with contextlib.suppress(ValueError, RecursionError):
            found["last_metrics"] = json.loads(lines.pop())
    if (folder / CONFIG).is_file():
        found["config"] = read_json(folder / CONFIG)
    return found


def _lines(found: dict[str, Any], indent: str = "") -> str:
    """Nested values as indented lines; what a stranger's file would do to the terminal is escaped."""
    lines = []
    for name, value in found.items():
        nested = isinstance(value, dict) and value
        line = f"{indent}{name}:" if nested else f"{indent}{name}: {value}"
        lines.append(line if line.isprintable() else ascii(line)[1:-1])
        if nested:
            lines.append(_lines(value, indent + "  "))
    return "\n".join(lines)
