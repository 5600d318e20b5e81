"""`harvest inspect`: what is in a shard folder, a model folder or a training folder."""

import argparse
import json
from pathlib import Path
from typing import Any

from harvest_jax.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest inspect`."""
    parser.add_argument("folder", type=Path, help="written by harvest shards, harvest train or harvest demo")
    parser.add_argument(
        "--contact_sheet",
        type=Path,
        metavar="PNG",
        help="draw frames of some clips (default: FOLDER/contact_sheet.png)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a text")


def run(args: argparse.Namespace) -> int:
    """Recognise the folder by what it holds and describe it."""
    folder: Path = args.folder
    if not folder.is_dir():
        raise DataError(f"no folder {folder}")
    found: dict[str, Any]
    if (folder / "dataset_info.json").is_file():
        from data_pipeline.inspect_shards import describe, format_description

        found = describe(folder, args.contact_sheet or folder / "contact_sheet.png")
        text = format_description(found)
    elif (folder / "model.safetensors").is_file():
        found = describe_model(folder)
        text = _lines(found)
    elif (folder / "checkpoints").is_dir():
        found = describe_workdir(folder)
        text = _lines(found)
    else:
        raise DataError(f"{folder} is no shard folder (dataset_info.json), model folder (model.safetensors) or workdir")
    print(json.dumps(found) if args.json else text)
    return 0


def describe_model(folder: Path) -> dict[str, Any]:
    """Towers, parameter counts and origin of a model folder, from its headers alone."""
    import math

    from safetensors import SafetensorError, safe_open

    from harvest_jax.weights.folder import CONFIG, WEIGHTS, load_config

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
    origin = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("origin", {})
    return {
        "kind": "model",
        "model": config.to_dict(),
        "parameters": parts | {"all": sum(parts.values())},
        "stored_as": sorted(dtypes),
        "bytes": (folder / WEIGHTS).stat().st_size,
        "origin": origin,
    }


def describe_workdir(folder: Path) -> dict[str, Any]:
    """Checkpoints, the last measurements and the config of a training folder."""
    steps = sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    found: dict[str, Any] = {"kind": "workdir", "checkpoints": steps, "export": (folder / "export").is_dir()}
    metrics = folder / "metrics.jsonl"
    if metrics.is_file() and (lines := metrics.read_text(encoding="utf-8").splitlines()):
        found["last_metrics"] = json.loads(lines[-1])
    if (folder / "config.json").is_file():
        found["config"] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


def _lines(found: dict[str, Any], indent: str = "") -> str:
    """Nested values as indented lines."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", _lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {value}")
    return "\n".join(lines)
