"""`harvest inspect`: what a shard folder, a model folder, a training folder or a checkpoint holds."""

import argparse
import contextlib
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from harvest_jax.checkpoint.workdir import Workdir, workdir_of_step
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.terminal import printable

NO_DIGEST = "none in config.json (versions up to 0.1.0 wrote none): damage to the weights would not be noticed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest inspect`."""
    parser.epilog = """What PATH may be:
  a shard folder                 numbers, sizes, captions, rejects; draws frames of some clips
  a model folder                 towers, number of parameters, origin; compares the weights with their digest
  a training folder              its checkpoints, the last measurements, the config
  one checkpoint of it           runs/x/checkpoints/400: step, size, what saved it
  a checkpoint of other programs architecture, number of parameters, whether `harvest weights import` can read it"""
    parser.add_argument("path", type=Path, metavar="PATH", help="a file or folder")
    parser.add_argument(
        "--contact_sheet",
        type=Path,
        metavar="PNG",
        help="of shards: where frames are drawn (default: in the folder)",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="of shards: write a page with numbers and clips")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a text")


def run(args: argparse.Namespace) -> int:
    """Recognise the file or folder by what it holds and describe it."""
    path: Path = args.path
    if not path.exists():
        raise DataError(f"no file or folder {printable(path)}")
    if (path / "dataset_info.json").is_file():
        found, text = _shards(path, args.contact_sheet or path / "contact_sheet.png", args.html)
    else:
        for name in ("contact_sheet", "html"):
            if getattr(args, name) is not None:
                raise ConfigError(f"--{name} is for shard folders, and {printable(path)} is not one")
        found = _describe(path)
        text = _lines(found)
    print(json.dumps(found) if args.json else text)
    return 0


def _shards(path: Path, contact_sheet: Path, page: Path | None) -> tuple[dict[str, Any], str]:
    """What is in a shard folder, as JSON and as text, with the files that were written."""
    from data_pipeline.shards.statistics import describe, format_description

    found = describe(path, contact_sheet, page)
    written = {"contact_sheet": str(contact_sheet)} | ({"html": str(page)} if page else {})
    lines = [f"written: {printable(name)}" for name in written.values()]
    return found | {"written": written}, "\n".join([format_description(found), *lines])


def _describe(path: Path) -> dict[str, Any]:
    """What a model folder, training folder or checkpoint is."""
    if is_model(path):
        return describe_model(path)
    workdir = Workdir(path)
    if workdir.exists:
        return describe_workdir(workdir)
    step = workdir_of_step(path.absolute())
    if step is not None:
        return describe_step(*step)
    try:
        return describe_checkpoint(path)
    except DataError as error:
        if not path.is_dir():
            raise
        what = "is not a shard folder (dataset_info.json), a model folder or a training folder (checkpoints)"
        raise DataError(f"{printable(path)} {what}; as a checkpoint: {error}") from error


def is_model(folder: Path) -> bool:
    """Whether it is a model folder of this package, usable or not; Hugging Face's folders have the same file names."""
    from harvest_jax.weights.files.open_checkpoint import CONFIG, read_json

    if not (folder / "model.safetensors").is_file():
        return False
    try:
        return isinstance(read_json(folder / CONFIG).get("model"), dict)
    except DataError:
        return True  # it cannot be used: describe_model says why


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of another program, described by names, shapes and configs; no tensor is read.

    Returns:
      JSON values: `kind` ("checkpoint"), `file`, `family` (None: unknown), `tensors`, `parameters`, `stored_as`,
      `bytes`; of a known family also `model` and `problem` (None, or why it cannot be imported as it is).

    Raises:
      DataError: it is not a checkpoint or cannot be read.
    """
    from harvest_jax.model.config import Preprocessing
    from harvest_jax.weights.families.family import Overrides
    from harvest_jax.weights.families.recognise import recognised
    from harvest_jax.weights.files.open_checkpoint import open_checkpoint
    from harvest_jax.weights.translate import to_native

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
        family, tensors = recognised(tensors)
    except DataError as error:
        return found | {"names": [name[:120] for name in sorted(tensors.entries)[:10]], "problem": str(error)}
    found["family"] = family.name
    if notes := tensors.details.get("notes"):
        found["notes"] = notes
    problem = None
    try:
        clip = Preprocessing()
        prepared = Overrides(resize=clip.resize, mean=clip.mean, std=clip.std)
        # what the user must say in an import: how pictures are prepared, or the activation as well
        for overrides in (Overrides(), prepared, dataclasses.replace(prepared, activation="gelu")):
            try:
                config = family.architecture(tensors, overrides)
            except ConfigError as error:
                problem = problem or str(error)
            else:
                break
        unknown = {"activation": None} if overrides.activation else {}
        model = config.to_dict() | ({"preprocessing": None} if overrides.mean else {})
        found["model"] = model | {tower: model[tower] | unknown for tower in ("video", "text")}
        to_native(tensors, family, config)
    except (ConfigError, DataError) as error:
        problem = str(error)
    return found | {"problem": problem}


def describe_model(folder: Path) -> dict[str, Any]:
    """Towers, parameter counts and origin of a model folder; its weights are compared with their digest.

    Raises:
      DataError: it cannot be read, or its weights were altered.
    """
    from safetensors import SafetensorError, safe_open

    from harvest_jax.weights.files.open_checkpoint import CONFIG, read_json
    from harvest_jax.weights.files.weights_digest import DIGEST, digest_holds
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
    content = read_json(folder / CONFIG)
    verified = digest_holds(folder / WEIGHTS, content)
    return {
        "kind": "model",
        "model": config.to_dict(),
        "parameters": parts | {"all": sum(parts.values())},
        "stored_as": sorted(dtypes),
        "bytes": (folder / WEIGHTS).stat().st_size,
        "sha256": f"{content[DIGEST]} (compared with {WEIGHTS}: equal)" if verified else NO_DIGEST,
        "origin": content.get("origin", {}),
    }


def describe_workdir(workdir: Workdir) -> dict[str, Any]:
    """Checkpoints, the last measurements and the config of a training folder.

    Returns:
      JSON values: `kind` ("workdir"), `checkpoints` (complete steps), `export` (whether the model folder is there);
      where there are any, `incomplete` (steps whose save was not finished), `last_metrics`, `last_scores` (of an
      evaluation while it trained), `best` (the checkpoint with the best score), `forked_from` (the state of another run
      that this one began from), `time` (where the wall time of all attempts went) and `config`.
    """
    from harvest_jax.checkpoint.scores import best_step
    from harvest_jax.train.goodput import read_history
    from harvest_jax.train.metrics import SCORES
    from harvest_jax.weights.files.open_checkpoint import read_json

    complete = workdir.complete_steps()
    found: dict[str, Any] = {"kind": "workdir", "checkpoints": complete, "export": workdir.export.is_dir()}
    incomplete = [step for step in workdir.steps() if step not in complete]
    if incomplete:
        found["incomplete"] = incomplete
    metrics = workdir.metrics
    lines = metrics.read_text(encoding="utf-8", errors="replace").splitlines() if metrics.is_file() else []
    for name, wanted in (("last_metrics", False), ("last_scores", True)):
        for line in reversed(lines):
            if (f'"{SCORES}' in line) == wanted:
                with contextlib.suppress(ValueError, RecursionError):  # a killed run leaves half a line at the end
                    found[name] = json.loads(line)
                    break
    best = best_step(workdir)
    if best is not None:
        found["best"] = dict(zip(("step", "score", "metric"), best, strict=True))
    newest = workdir.manifest(complete[-1]) if complete else None
    if newest and newest.get("forked_from"):
        found["forked_from"] = newest["forked_from"]
    history = read_history(workdir.events)
    if history is not None:
        found["time"] = history.to_dict()
    if workdir.config.is_file():
        found["config"] = read_json(workdir.config)
    return found


def describe_step(workdir: Workdir, step: int) -> dict[str, Any]:
    """One checkpoint of a training folder, from its manifest; the files that it lists are not read.

    Raises:
      DataError: its save was not finished, or the manifest was altered.
    """
    manifest = workdir.manifest(step)
    if manifest is None:
        raise DataError(
            f"{printable(workdir.step(step))} is not a complete checkpoint: its MANIFEST.json is missing or altered; "
            f"complete steps: {', '.join(map(str, workdir.complete_steps())) or 'none'}"
        )
    files = manifest["files"]
    return {
        "kind": "training checkpoint",
        "step": manifest["step"],
        "files": len(files),
        "bytes": sum(entry["size"] for entry in files.values()),
        "saved_by": manifest["topology"],
        **({"forked_from": manifest["forked_from"]} if manifest.get("forked_from") else {}),
        "run": manifest["run_identity"],
    }


def _lines(found: dict[str, Any], indent: str = "") -> str:
    """Nested values as indented lines, printable whatever the file holds."""
    lines = []
    for name, value in found.items():
        nested = isinstance(value, dict) and value
        lines.append(printable(f"{indent}{name}:" if nested else f"{indent}{name}: {value}"))
        if nested:
            lines.append(_lines(value, indent + "  "))
    return "\n".join(lines)
