"""Connecting the processes of one run: JAX's multi-process runtime, started from environment variables.

On TPU pods, Slurm and Open MPI, JAX finds the other processes by itself. Elsewhere (several processes on one machine, a
cluster without a scheduler) these variables are needed; `launch/local.py` sets them:

    HARVEST_COORDINATOR             host:port of process 0, to which the others connect
    HARVEST_NUM_PROCESSES           number of processes
    HARVEST_PROCESS_ID              number of this process, from 0
    HARVEST_LOCAL_DEVICES           GPUs of this process, as 0,1; unset: all that it sees
    HARVEST_HEARTBEAT_SECONDS       a process that is silent for this long counts as dead and ends the run (100)
    HARVEST_INITIALIZATION_SECONDS  how long to wait for the other processes at the start (300)
"""

import atexit
import contextlib
import dataclasses
import ipaddress
import os
import signal
import sys
from collections.abc import Iterator, Mapping

import jax
from jax._src.clusters import ClusterEnv  # no public name: what jax.distributed.initialize() asks

from harvest_jax import signals
from harvest_jax.checkpoint import notes
from harvest_jax.errors import ConfigError, HarvestError, Preempted
from harvest_jax.train.peers import JAX_HEARTBEATS, Peers
from harvest_jax.train.rendezvous import meet

COORDINATOR = "HARVEST_COORDINATOR"
NUM_PROCESSES = "HARVEST_NUM_PROCESSES"
PROCESS_ID = "HARVEST_PROCESS_ID"
LOCAL_DEVICES = "HARVEST_LOCAL_DEVICES"
HEARTBEAT_SECONDS = "HARVEST_HEARTBEAT_SECONDS"
INITIALIZATION_SECONDS = "HARVEST_INITIALIZATION_SECONDS"
# An error of a computation that begins with another word may come from the death of another process.
_OWN_ERRORS = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")


@dataclasses.dataclass(frozen=True)
class ClusterSettings:
    """How the processes connect; None where JAX finds out by itself."""

    coordinator: str | None
    num_processes: int | None
    process_id: int | None
    local_devices: tuple[int, ...] | None
    heartbeat_seconds: int
    initialization_seconds: int

    @property
    def on_loopback(self) -> bool:
        """Whether the coordinator is reached on this machine only."""
        host = (self.coordinator or "").rpartition(":")[0].strip("[]")
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def cluster_settings(environment: Mapping[str, str]) -> ClusterSettings:
    """Read the variables above.

    Raises:
      ConfigError: only some of the first three are set, or a value cannot be used.
    """
    given = {name: environment[name] for name in (COORDINATOR, NUM_PROCESSES, PROCESS_ID) if environment.get(name)}
    missing = [name for name in (COORDINATOR, NUM_PROCESSES, PROCESS_ID) if name not in given]
    if given and missing:
        raise ConfigError(f"{', '.join(given)} set without {', '.join(missing)}: set all three, or none of them")
    coordinator = given.get(COORDINATOR)
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigError(f"{COORDINATOR}={coordinator} must read host:port")
    count = _whole(given, NUM_PROCESSES, None, 1)
    process = _whole(given, PROCESS_ID, None, 0)
    if count is not None and process is not None and process >= count:
        raise ConfigError(f"{PROCESS_ID}={process} must be below {NUM_PROCESSES}={count}")
    devices = environment.get(LOCAL_DEVICES)
    if devices and not all(part.strip().isdecimal() for part in devices.split(",")):
        raise ConfigError(f"{LOCAL_DEVICES}={devices} must be numbers with commas between them")
    return ClusterSettings(
        coordinator,
        count,
        process,
        tuple(int(part) for part in devices.split(",")) if devices else None,
        _whole(environment, HEARTBEAT_SECONDS, 100, 1) or 100,
        _whole(environment, INITIALIZATION_SECONDS, 300, 1) or 300,
    )


def initialize_from_environment() -> None:
    """Join the run's other processes; before the first JAX computation. A second call does nothing.

    Raises:
      ConfigError: the variables contradict each other, or there are none and JAX recognises no cluster either.
      HungError: another process did not come.
    """
    if jax.distributed.is_initialized():
        return
    cluster = cluster_settings(os.environ)
    seconds = cluster.initialization_seconds
    meeting = cluster.coordinator, cluster.num_processes, cluster.process_id
    if cluster.coordinator is None:
        meeting = _recognised(seconds)
    coordinator, count, rank = meeting
    if coordinator is not None and count is not None and rank is not None:
        print(f"waiting up to {seconds} s for the other processes: {count} at {coordinator}", file=sys.stderr)
        host, _, port = coordinator.rpartition(":")
        meet(host, int(port), rank, count, seconds, cluster.on_loopback)
    # JAX's default since 0.5; set here because without it a CPU process sees only its own devices. GPUs and TPUs ignore
    # it.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        if cluster.coordinator is None:
            jax.distributed.initialize(
                heartbeat_timeout_seconds=JAX_HEARTBEATS * cluster.heartbeat_seconds,
                initialization_timeout=cluster.initialization_seconds,
            )
        else:
            jax.distributed.initialize(
                cluster.coordinator,
                cluster.num_processes,
                cluster.process_id,
                cluster.local_devices,
                # The variables above decide, also inside a Slurm allocation.
                cluster_detection_method="deactivate",
                # JAX would listen on every network interface otherwise.
                coordinator_bind_address=cluster.coordinator if cluster.on_loopback else None,
                heartbeat_timeout_seconds=JAX_HEARTBEATS * cluster.heartbeat_seconds,
                initialization_timeout=cluster.initialization_seconds,
            )
        for number in signals.taken():  # JAX installed its own signal handlers; Python does not know
            signal.signal(number, signal.getsignal(number))
    except ValueError as error:
        raise ConfigError(
            f"distributed=True, but no cluster was recognised ({error}): start the processes with one of launch/, "
            f"or set {COORDINATOR}, {NUM_PROCESSES} and {PROCESS_ID}"
        ) from error


def _recognised(seconds: int) -> tuple[str | None, int | None, int | None]:
    """Address of process 0, count and number of this process in a cluster that JAX recognises; else None."""
    given = os.environ.get("JAX_COORDINATOR_ADDRESS")  # JAX reads it, too
    found = ClusterEnv.auto_detect_unset_distributed_params(given, None, None, None, None, seconds)
    return found[:3]


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Around the run: when a process fails, dies or is stopped, all others end too, with the cause named.

    At a normal exit JAX waits for the other processes, up to five minutes. After an error they wait in a collective
    that this process never joins. So it tells them (`peers`), and exits without waiting. `Preempted` is different:
    every process raises it, with the state saved. Runs of one process exit normally.
    """
    if notes.place()[1] == 1:
        yield
        return
    with Peers(cluster_settings(os.environ).heartbeat_seconds) as peers:
        try:
            yield
        except Preempted:
            raise
        except BaseException as error:
            if isinstance(error, jax.errors.JaxRuntimeError) and not str(error).startswith(_OWN_ERRORS):
                peers.await_cause()
            code = getattr(error, "exit_code", 1)
            # For scripts. Exit handlers run in the reverse order: this one before JAX's, and after the traceback.
            atexit.register(signals.end_process, code)
            signals.exit_at_once()
            words = (
                str(error)
                if isinstance(error, HarvestError | KeyboardInterrupt)
                else f"{type(error).__name__}: {error}"
            )
            signals.settle()  # the others end now, and a launcher then stops this process: its message comes first
            peers.fail(words, code)
            raise


def _whole(values: Mapping[str, str], name: str, default: int | None, least: int) -> int | None:
    text = values.get(name)
    if not text:
        return default
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(f"{name}={text} must be a whole number from {least}")
    return int(text)
