"""Whether a checkpoint belongs to the run that resumes from it."""

import json
import logging
from pathlib import Path
from typing import Any

import jax

from harvest_jax.checkpoint.items import first_few
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.errors import CheckpointError

log = logging.getLogger(__name__)

BEFORE = {"train.decay": "cosine"}  # what runs did that began before these fields existed


def check_identity(stored: Any, current: Any, workdir: Workdir) -> None:
    """Compare two run identities (nested JSON dicts) in the fields of `current`: older ones may have more.

    Raises:
      CheckpointError: naming the fields that differ, with both values, and what to do.
    """
    new = flatten(current)
    old = {name: value for name, value in BEFORE.items() if name in new} | flatten(stored)
    faults = [
        f"{name} was {old.get(name, 'absent')!r} and is {new[name]!r} now"
        for name in sorted(new)
        if name not in old or old[name] != new[name]
    ]
    if not faults:
        return
    if workdir.export.is_dir():
        start = f"--config.model.init_from={workdir.export}"
    else:
        start = f"--config.model.init_from=D, D from `harvest weights import {workdir.root} --out D`"
    raise CheckpointError(
        f"{workdir.root} holds a run with another config: {first_few(faults)}; give the old values to resume it, or "
        f"train on from its weights in another --workdir with {start}"
    )


def current_processes() -> dict[str, Any]:
    """The processes and devices of this run, as JSON."""
    return {"processes": jax.process_count(), "devices": jax.device_count(), "platform": jax.default_backend()}


def same_processes(saved: dict[str, Any]) -> bool:
    """Whether as many processes run now as when a checkpoint was saved. Warn if these or the devices changed.

    Args:
      saved: `current_processes` of the run that saved it.
    """
    now = current_processes()
    if saved != now:
        log.warning(
            "processes or devices changed: saved on %s, now %s; losses agree closely, but not bit for bit", saved, now
        )
    return bool(saved["processes"] == now["processes"])


def shared_position(folder: Path) -> dict[str, Any]:
    """The position in the data that all processes of a checkpoint had; those of `Batches` are always equal.

    Args:
      folder: of a step; an iterator's state lies there as `data/process_0-of-2.json` and so on.

    Raises:
      CheckpointError: they differ, so the order of the data depends on the number of processes.
    """
    states = [json.loads(path.read_bytes()) for path in sorted((folder / "data").glob("process_*-of-*.json"))]
    if not states or any(state != states[0] for state in states):
        raise CheckpointError(
            f"{folder} has another position in the data for each process: resume with the same number of processes"
        )
    return states[0]


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A nested dict as one level: {"a": {"b": 1}} -> {"a.b": 1}."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    pairs = [flatten(value, f"{prefix}.{key}" if prefix else key) for key, value in tree.items()]
    return {name: value for flat in pairs for name, value in flat.items()}
