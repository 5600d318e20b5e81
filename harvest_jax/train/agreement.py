"""Before the first step: do all processes train the same run, on the same clips, in the same workdir?

JAX does not notice if they do not: processes with different learning rates or clips compute without an error, and the
result is wrong. Both checks are collectives.
"""

import contextlib
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from harvest_jax.checkpoint import consensus
from harvest_jax.checkpoint.items import first_few
from harvest_jax.checkpoint.run_identity import flatten
from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.version import __version__

_VISIBLE_WITHIN = 10.0  # seconds for a new file to appear on the other machines of a network file system


def check_same_run(run: RunConfig, data_digest: str) -> None:
    """Compare the config, the clips and the version of the program of all processes.

    The paths of shards and initial model may differ (each machine may have a copy), and how batches are loaded.

    Raises:
      ConfigError: on every process; names what differs, and on which ranks.
    """
    of_ranks = consensus.all_gather(_compared(run, data_digest))
    faults = [
        f"{name} is {_by_value([fields.get(name) for fields in of_ranks])}"
        for name, value in of_ranks[0].items()
        if any(fields.get(name) != value for fields in of_ranks)
    ]
    if faults:
        raise ConfigError(
            f"the processes differ: {first_few(faults)}; start all of them with the same command and the same shards"
        )


def check_same_fork_of_all(given: dict[str, str] | None) -> None:
    """Check that all processes begin from the same state of another run, or none does: `Fork.as_given`.

    Raises:
      ConfigError: on every process; names what each rank was given.
    """
    of_ranks = consensus.all_gather(given)
    if any(found != given for found in of_ranks):
        raise ConfigError(f"the processes differ: --fork is {_by_value(of_ranks)}; start all with the same command")


def check_shared_workdir(workdir: Path) -> None:
    """Check that all processes see the same folder.

    Raises:
      ConfigError: on every process; names the ranks that see another folder.
      CheckpointError: process 0 cannot write to it.
    """
    if jax.process_count() == 1:
        return

    def write_probe() -> str:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = f".shared-{uuid.uuid4().hex}"
        (workdir / probe).touch()
        return probe

    probe = workdir / consensus.on_primary(write_probe)
    of_ranks = consensus.all_gather([_appears(probe), str(workdir.absolute())])
    if jax.process_index() == 0:
        with contextlib.suppress(OSError):
            probe.unlink()
    others = [f"rank {rank} ({path})" for rank, (found, path) in enumerate(of_ranks) if not found]
    if others:
        raise ConfigError(
            f"a workdir must be shared by all processes: {', '.join(others)} cannot see what rank 0 wrote to "
            f"{of_ranks[0][1]}; give all the same --workdir, on a file system that all machines share"
        )


def _compared(run: RunConfig, data_digest: str) -> dict[str, Any]:
    """Field -> value, as JSON, of all that must be equal."""
    fields = {"harvest_jax": __version__} | flatten(json.loads(json.dumps(run.to_dict())))
    for name in ("data.shards", "data.workers", "data.prefetch", "model.init_from"):
        del fields[name]
    return fields | {"the digest of the clips in data.shards": data_digest}


def _by_value(values: Sequence[Any]) -> str:
    """[1, 2, 1] -> "1 on rank 0 and 2, 2 on rank 1"."""
    ranks = defaultdict(list)
    for rank, value in enumerate(values):
        ranks[json.dumps(value)].append(str(rank))
    return ", ".join(f"{value} on rank {' and '.join(of)}" for value, of in ranks.items())


def _appears(path: Path) -> bool:
    deadline = time.monotonic() + _VISIBLE_WITHIN
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
