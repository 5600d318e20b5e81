"""Whether a checkpoint belongs to the run that wants to go on from it."""

import json
import logging
from pathlib import Path
from typing import Any

import jax

from harvest_jax.checkpoint.items import listed
from harvest_jax.errors import CheckpointError

log = logging.getLogger(__name__)


def check_identity(stored: Any, current: Any, workdir: Path) -> None:
    """Compare two run identities (nested JSON dicts) in what `current` has: older ones may name more.

    Raises:
      CheckpointError: naming the fields that differ, with both values.
    """
    old, new = _flatten(stored), _flatten(current)
    faults = [
        f"{name} was {old.get(name, 'absent')!r} and is {new[name]!r} now"
        for name in sorted(new)
        if name not in old or old[name] != new[name]
    ]
    if faults:
        raise CheckpointError(
            f"{workdir} holds another run: {listed(faults)}; give the old values back, or choose another --workdir"
        )


def topology() -> dict[str, Any]:
    """The processes and devices of this run, as JSON."""
    return {"processes": jax.process_count(), "devices": jax.device_count(), "platform": jax.default_backend()}


def same_processes(saved: dict[str, Any]) -> bool:
    """Whether as many processes run now as saved; where `saved`, a checkpoint's `topology`, is another, warn."""
    now = topology()
    if saved != now:
        log.warning("topology changed: saved on %s, now %s; losses agree closely, not bit for bit", saved, now)
    return bool(saved["processes"] == now["processes"])


def shared_position(folder: Path) -> dict[str, Any]:
    """The position in the data that every process of a checkpoint had: of `Batches` all have one.

    Args:
      folder: of a step; an iterator's state lies there as `data/process_0-of-2.json` and so on.

    Raises:
      CheckpointError: they differ: the order of that data depends on the number of processes.
    """
    states = [json.loads(path.read_bytes()) for path in sorted((folder / "data").glob("process_*-of-*.json"))]
    if not states or any(state != states[0] for state in states):
        raise CheckpointError(
            f"{folder} keeps a position in the data for each of its processes: go on with the same number of them"
        )
    return states[0]


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} to {"a.b": 1}."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    pairs = [_flatten(value, f"{prefix}.{key}" if prefix else key) for key, value in tree.items()]
    return {name: value for flat in pairs for name, value in flat.items()}
