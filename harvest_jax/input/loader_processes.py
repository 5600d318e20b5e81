"""The loader processes that Grain starts: their signals, their end, and what they are doing."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harvest_jax.signals import SIGNALS

CLOSE_SECONDS = 5.0  # for Grain's own clean-up after its processes have ended
_NAME = "grain-process-prefetch"


def loader_processes() -> list[BaseProcess]:
    """Those of this process that are running."""
    return [child for child in multiprocessing.active_children() if child.name.startswith(_NAME)]


def block_signals() -> None:
    """In a thread that starts loader processes, or starts threads that do: they inherit that signals are blocked.

    Ctrl-C, the SIGHUP of a closed terminal and Slurm's SIGTERM reach every process of a job. They must not end a loader
    process: the training process needs it until the state is saved, and ends it then.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def end_with_parent(worker_index: int, worker_count: int) -> None:
    """In a loader process: ignore signals; exit when the training process is gone, also when it was killed.

    A signal of the kernel's (PR_SET_PDEATHSIG) would come too early: when the thread ends that started this process.
    """
    del worker_index, worker_count
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def close(reader: Any) -> None:
    """End the loader processes of a Grain iterator within seconds, whatever state they are in.

    Grain waits 25 s for each process that does not answer.
    """
    for child in loader_processes():
        child.kill()
    closing = threading.Thread(target=reader.close, daemon=True)
    closing.start()
    closing.join(CLOSE_SECONDS)


def states() -> str:
    """What Linux says the loader processes do, for messages: "4711 stopped, 4712 sleeping"."""
    words = []
    for child in loader_processes():
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
            state = next(line for line in lines if line.startswith("State:"))
            words.append(f"{child.pid} {state.partition('(')[2].rstrip(')')}")
    return ", ".join(words) or "none"


def start_tracker_quietly() -> None:
    """Start Python's tracker of shared memory so that it does not warn of what it frees.

    At the end of a run the loader processes are killed while batches are ready in shared memory.
    """
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")  # which it inherits
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.pop()


def _exit_after(parent: Any) -> None:
    parent.join()
    os._exit(1)
