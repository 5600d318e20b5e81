"""Whether a checkpoint belongs to the run that resumes from it."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from harvest_jax.checkpoint.items import first_few
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.config.run import OLD_VALUES
from harvest_jax.errors import CheckpointError

log = logging.getLogger(__name__)

# Fields on which it depends which arrays a state has: one with others cannot go on from it.
OF_THE_MODEL = (
    *("model.size", "model.num_frames", "model.decoder_layers", "train.contrastive_loss"),
    *("objective.name", "objective.head", "objective.answer_from", "objective.max_classes"),
)


def check_identity(stored: Any, current: Any, workdir: Workdir) -> None:
    """Compare two run identities (nested JSON dicts) in the fields of `current`: older ones may have more.

    Raises:
      CheckpointError: naming the fields that differ, with both values, and what to do.
    """
    changed = differences(stored, current)
    if not changed:
        return
    if changed.keys().isdisjoint(OF_THE_MODEL):
        other = f"begin another run from its state: --fork {workdir.root} --workdir NEW"
    elif workdir.export.is_dir():
        other = f"train on from its weights in another --workdir with --config.model.init_from={workdir.export}"
    else:
        start = f"--config.model.init_from=D, D from `harvest weights import {workdir.root} --out D`"
        other = f"train on from its weights in another --workdir with {start}"
    raise CheckpointError(
        f"{workdir.root} holds a run with another config: {in_words(changed)}; give the old values to resume it, or "
        f"{other}"
    )


def in_words(changed: Mapping[str, Sequence[Any]]) -> str:
    """Differences, (old value, new value) by field, on one line."""
    return first_few(f"{name} was {old!r} and is {new!r} now" for name, (old, new) in changed.items())


def differences(stored: Any, current: Any) -> dict[str, tuple[Any, Any]]:
    """Field -> (old value, new value), sorted, of the fields of `current` that are not as in `stored`.

    A field that `stored` does not have yet has its old value from `OLD_VALUES`, and is "absent" without one.
    """
    new = flatten(current)
    old = OLD_VALUES | flatten(stored)
    return {
        name: (old.get(name, "absent"), new[name]) for name in sorted(new) if name not in old or old[name] != new[name]
    }


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
