"""A group of processes that live and die together."""

import contextlib
import ctypes
import dataclasses
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

FAILURE_GRACE = 5.0  # seconds; without the failed one the others cannot save, only write their last lines
# A rank whose peer is gone dies of that, with status 1 or of SIGABRT, and on a busy machine may be seen first: among
# the failures of this many seconds, one whose status names a cause (harvest_jax/errors.py) is called the first.
SETTLE = 0.5
NAMED_CAUSES = {2, 3, 4, 5}
STOPPED = 42  # harvest_jax.errors.Preempted: the state is saved; the other processes are about to say the same
_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a group ended: each one's status (negative: the signal), who failed first, the signal that was asked for."""

    codes: tuple[int, ...]
    first: int | None
    asked: int = 0

    @property
    def status(self) -> int:
        """One exit status for the group: 0, or that of the first that failed, a signal as 128 + its number."""
        if self.first is None:
            return 0
        code = self.codes[self.first]
        return 128 - code if code < 0 else code


def run_together(
    commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]], grace_seconds: float
) -> Outcome:
    """Run one command per process, each output line prefixed with its number, until all have ended.

    The first that fails makes the others stop: SIGTERM, and SIGKILL soon after. SIGTERM and SIGINT to this process
    are handed on as SIGTERM, with a longer grace to save in; a second one kills. Each process leads a group of its
    own, so that its children (loader processes) go with it.

    Args:
      commands: one a process.
      environments: complete environments, one a process.
      grace_seconds: from a signal to SIGKILL.
    """
    ended: queue.Queue[tuple[int, int]] = queue.Queue()
    signals: list[int] = []
    processes: list[subprocess.Popen[str]] = []
    threads: list[threading.Thread] = []
    with _caught(signals):
        try:
            # All are started before the first thread is: a fork of a process with threads may hang.
            for command, environment in zip(commands, environments, strict=True):
                processes.append(_start(command, environment))
            for number, process in enumerate(processes):
                threads += [
                    _thread(_copy, process.stdout, sys.stdout, f"[{number}] "),
                    _thread(_copy, process.stderr, sys.stderr, f"[{number}] "),
                    _thread(_wait, number, process, ended),
                ]
            return _watch(processes, ended, signals, grace_seconds)
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
    signals: list[int],
    grace_seconds: float,
) -> Outcome:
    codes: dict[int, int] = {}
    first: int | None = None
    handed_on = 0
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
                if code != STOPPED:
                    _stop(processes)
                grace = grace_seconds if code == STOPPED else min(grace_seconds, FAILURE_GRACE)
                deadline = min(deadline, time.monotonic() + grace)
        if len(signals) > handed_on:
            handed_on = len(signals)
            deadline = min(deadline, time.monotonic() + grace_seconds) if handed_on == 1 else 0
            _stop(processes)
        if time.monotonic() > deadline:
            for process in processes:
                _kill(process)
    return Outcome(tuple(codes[number] for number in range(len(processes))), first, signals[0] if signals else 0)


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    libc = ctypes.CDLL(None, use_errno=True)  # looked up here: little is safe between fork and exec

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

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
        preexec_fn=die_with_parent if sys.platform == "linux" else None,
    )


def _copy(source: IO[str], target: IO[str], prefix: str) -> None:
    for line in source:
        target.write(prefix + line.rstrip("\n") + "\n")
        target.flush()


def _wait(number: int, process: subprocess.Popen[str], ended: "queue.Queue[tuple[int, int]]") -> None:
    ended.put((number, process.wait()))


def _thread(function: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def _stop(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Ask the processes, and not their loader processes, which they still need to save their state."""
    for process in processes:
        process.terminate()


def _kill(process: subprocess.Popen[str]) -> None:
    """End the process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _caught(signals: list[int]) -> Iterator[None]:
    """Collect SIGTERM and SIGINT in `signals` while the block runs."""
    wanted = (signal.SIGTERM, signal.SIGINT)
    old = {number: signal.signal(number, lambda caught, _: signals.append(caught)) for number in wanted}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
