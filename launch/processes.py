"""Starting processes, alone or as a group that ends together."""

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TextIO

from harvest_jax import signals
from harvest_jax.errors import CheckpointError, ConfigError, DataError, NonFiniteError, Preempted
from harvest_jax.machine import parent_death_signal

FAILURE_GRACE = 5.0  # seconds that the others get after a failure; they cannot save without the failed process
# When one process fails, the others fail too (status 1 or SIGABRT), and on a busy machine that may be seen first. So
# of the failures within these seconds, one whose status names a cause is reported as the first.
SETTLE = 0.5
# What JAX prints when process 0 has died; a page of its own stack frames follows, until the process is gone.
_JAX_ENDS = "Terminating process because the JAX distributed service detected fatal errors"
CAUSE_FILE = "HARVEST_CAUSE_FILE"  # see harvest_jax/train/peers.py
NAMED_CAUSES = {error.exit_code for error in (ConfigError, DataError, NonFiniteError, CheckpointError)}


@dataclasses.dataclass(frozen=True)
class GroupResult:
    """How a group of processes ended.

    Attributes:
      exit_codes: of each process; negative: the signal that ended it.
      first_failed: the number of the process that failed first, None if none failed.
      stop_signal: the signal that this process received and passed on, 0 if none.
      killed_after: seconds that the processes had to end after a signal, if some did not; 0 if all did.
    """

    exit_codes: tuple[int, ...]
    first_failed: int | None
    stop_signal: int = 0
    killed_after: float = 0.0

    @property
    def status(self) -> int:
        """One exit status for the group: 0, or that of the first that failed."""
        return 0 if self.first_failed is None else shell_status(self.exit_codes[self.first_failed])


def shell_status(exit_code: int) -> int:
    """A process's exit code as shells report it: 128 + the number of the signal that ended it."""
    return 128 - exit_code if exit_code < 0 else exit_code


def run_one(command: Sequence[str]) -> int:
    """Run one command on this terminal until it ends.

    SIGTERM, SIGHUP and SIGINT to this process are passed on as SIGTERM, and the command gets SIGTERM when this process
    is killed.

    Returns:
      its exit code as shells report it; that of the signal if one came and the command still ended with 0.
    """
    received: list[int] = []
    with _caught(received):
        process = subprocess.Popen(command, preexec_fn=parent_death_signal(signal.SIGTERM))
        passed_on = 0
        code = None
        while code is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=0.05)
            if len(received) > passed_on:
                passed_on = len(received)
                process.terminate()
    return shell_status(code) or (128 + received[0] if received else 0)


def run_together(
    commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]], grace: Callable[[], float]
) -> GroupResult:
    """Run one command per process, each output line prefixed with its number, until all have ended.

    The first that fails stops the others: SIGTERM, and SIGKILL soon after. SIGTERM, SIGHUP and SIGINT to this process
    are passed on as SIGTERM, with a longer grace to save in; a second SIGINT kills. (Schedulers send SIGTERM more than
    once.) Each process leads a process group, so that its children (loader processes) end with it.

    Args:
      commands: one for each process.
      environments: complete environments, one for each process.
      grace: gives the seconds from a signal to SIGKILL; asked when a signal comes.
    """
    ended: queue.Queue[tuple[int, int]] = queue.Queue()
    received: list[int] = []
    processes: list[subprocess.Popen[str]] = []
    threads: list[threading.Thread] = []
    with _caught(received), tempfile.TemporaryDirectory(prefix="harvest-launch-") as folder:
        cause = Path(folder, "cause.json")
        try:
            # All are started before the first thread is: a fork of a process with threads may hang.
            for command, environment in zip(commands, environments, strict=True):
                processes.append(_start(command, {**environment, CAUSE_FILE: str(cause)}))
            for number, process in enumerate(processes):
                threads += [
                    _thread(_copy, process.stdout, signals.outliving(sys.stdout), f"[{number}] "),
                    _thread(_copy, process.stderr, signals.outliving(sys.stderr), f"[{number}] "),
                    _thread(_wait, number, process, ended),
                ]
            result = _watch(processes, ended, received, grace)
            return dataclasses.replace(result, first_failed=_first(result, cause))
        finally:
            for process in processes:
                _kill(process)  # also what a process that has ended left behind in its group
            for process in processes:
                process.wait()
            for thread in threads:
                thread.join(timeout=5)


def _watch(
    processes: Sequence[subprocess.Popen[str]],
    ended: queue.Queue[tuple[int, int]],
    received: list[int],
    grace: Callable[[], float],
) -> GroupResult:
    codes: dict[int, int] = {}
    first: int | None = None
    passed_on = 0
    given = killed_after = 0.0
    deadline = settled = float("inf")
    while len(codes) < len(processes):
        with contextlib.suppress(queue.Empty):
            number, code = ended.get(timeout=0.05)
            codes[number] = code
            if first is not None and code in NAMED_CAUSES and time.monotonic() < settled:
                first, settled = number, 0.0
            if code and first is None:
                first = number
                settled = 0.0 if code in NAMED_CAUSES else time.monotonic() + SETTLE
                # Then the others are about to end the same way.
                saved = code == Preempted.exit_code or bool(received)
                if not saved:
                    _stop(processes)
                given = grace() if saved else min(grace(), FAILURE_GRACE)
                deadline = min(deadline, time.monotonic() + given)
        if len(received) > passed_on:
            passed_on = len(received)
            if not given:
                given = grace()
                deadline = time.monotonic() + given
            if received.count(signal.SIGINT) > 1:
                deadline = 0.0
            _stop(processes)
        if time.monotonic() > deadline:
            killed_after = given
            for process in processes:
                _kill(process)
    stop_signal = received[0] if received else 0
    return GroupResult(tuple(codes[number] for number in range(len(processes))), first, stop_signal, killed_after)


def _first(result: GroupResult, cause: Path) -> int | None:
    """The process that failed first, by what it wrote itself if it could: the others end with the same status."""
    if result.first_failed is not None and cause.is_file():
        with contextlib.suppress(ValueError, KeyError, IndexError):
            rank = int(json.loads(cause.read_bytes())["rank"])
            if result.exit_codes[rank] == result.exit_codes[result.first_failed]:
                return rank
    return result.first_failed


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        preexec_fn=parent_death_signal(signal.SIGTERM),
    )


def _copy(source: IO[str], target: TextIO, prefix: str) -> None:
    ending = False
    for line in source:
        if ending:
            continue
        ending = _JAX_ENDS in line
        words = "JAX ended this process because another one, or the connection to it, was gone" if ending else line
        target.write(prefix + words.rstrip("\n") + "\n")
        target.flush()


def _wait(number: int, process: subprocess.Popen[str], ended: "queue.Queue[tuple[int, int]]") -> None:
    ended.put((number, process.wait()))


def _thread(function: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def _stop(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Ask the processes, and not their loader processes: these are needed until the state is saved."""
    for process in processes:
        process.terminate()


def _kill(process: subprocess.Popen[str]) -> None:
    """End the process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _caught(received: list[int]) -> Iterator[None]:
    """Collect the signals that end a program in `received` while the block runs."""
    old = {number: signal.signal(number, lambda caught, _: received.append(caught)) for number in signals.taken()}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
