"""Whether a checkpoint belongs to the run that wants to go on from it."""

import logging
from pathlib import Path
from typing import Any

import jax

from harvest_jax.errors import CheckpointError
from harvest_jax.train.state_items import listed

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


def check_topology(saved: dict[str, Any], folder: Path, with_data: bool) -> None:
    """Compare the `topology` of a checkpoint in `folder` with this run's; other devices are fine, with a warning.

    Raises:
      CheckpointError: the number of processes changed and the position in the data is wanted.
    """
    now = topology()
    if with_data and saved["processes"] != now["processes"]:
        raise CheckpointError(
            f"{folder} was saved by {saved['processes']} processes and the run has {now['processes']} now: "
            "the position in the data is kept for each process, so go on with the same number"
        )
    if saved != now:
        log.warning("topology changed: saved on %s, now %s; losses agree closely, not bit for bit", saved, now)


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} to {"a.b": 1}."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    pairs = [_flatten(value, f"{prefix}.{key}" if prefix else key) for key, value in tree.items()]
    return {name: value for flat in pairs for name, value in flat.items()}
