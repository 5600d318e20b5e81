"""What happened to a run and when: `events.jsonl`, one JSON object a line, of all attempts; nothing is ever removed.

An attempt is one start of the command. Its lines have its number, the wall clock (`time`, seconds since 1970) and the
monotonic clock of its process (`clock`, seconds), which is not changed by corrections of the time:

    start                    a process begins: host, process id, version, devices
    ready                    state and data are there, at `step` (0: a fresh start)
    steps                    with each line of measurements: the steps after `first` up to `step` are done; the first
                             of these lines of an attempt comes after its first step
    save_begin, save_end     a checkpoint is begun; it is complete on the disk
    evaluate_begin, _end     an evaluation of the state after `step` steps
    profile                  a trace was written
    preempted, failed,       how the attempt ended; an attempt without such a line was killed, or still runs
    finished

`ready`, `steps` and the last line of an attempt have `spent`: the seconds since the line before of these kinds, by what
they were spent on (`KINDS`). `goodput.py` adds them up.
"""

import contextlib
import hashlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from harvest_jax.errors import Preempted
from harvest_jax.files import append_line
from harvest_jax.terminal import one_line
from harvest_jax.version import __version__

log = logging.getLogger(__name__)

Kind = Literal["start", "train", "data_wait", "compile", "save", "evaluate"]
_LONGEST = 300  # characters of an error's message


class Events:
    """The lines of one attempt, and the time since the last one by what it is spent on.

    A context manager around the attempt: it writes how that ends. A line that cannot be written is reported once, and
    the training goes on.
    """

    def __init__(self, path: Path | None, began: float | None = None, **facts: Any) -> None:
        """Write that an attempt begins.

        Args:
          path: the file; None writes nothing, and measures all the same.
          began: `time.monotonic()` when the command began; None: now.
          facts: for the first line.
        """
        self._file = None
        self._lock = threading.Lock()  # lines come from the thread that saves, too
        self._reported = False
        self._spent: dict[str, float] = {}
        self._since = self._last = time.monotonic() if began is None else began
        self._phase: Kind = "start"
        self._number = 1
        self.step: int | None = None  # the last one that is done; to be kept up to date
        self.run_id = ""  # the same for all attempts of a workdir, another one for each workdir; "" without a file
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as the run
            old = path.read_bytes()
            self._number += sum(line.startswith(b'{"event": "start"') for line in old.splitlines())
            if old and not old.endswith(b"\n"):  # a kill left half a line
                append_line(self._file, b"\n")
        except OSError as error:
            self._failed(error)
        age = time.monotonic() - self._since
        facts = {"host": socket.gethostname(), "pid": os.getpid(), "version": __version__} | facts
        self.write("start", command_began=time.time() - age, **facts)
        with contextlib.suppress(OSError), path.open("rb") as file:
            self.run_id = hashlib.sha256(file.readline()).hexdigest()[:12]

    def write(self, event: str, **facts: Any) -> None:
        """Append a line; `facts` are JSON values."""
        if self._file is None:
            return
        times = {"time": time.time(), "clock": time.monotonic()}
        line = json.dumps({"event": event, "attempt": self._number} | times | facts)
        try:
            with self._lock:
                append_line(self._file, f"{line}\n".encode())
        except (OSError, ValueError) as error:  # ValueError: the file was closed
            self._failed(error)

    @contextlib.contextmanager
    def spend(self, kind: Kind) -> Iterator[None]:
        """Count the time of the block as this kind."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._spent[kind] = self._spent.get(kind, 0.0) + time.monotonic() - began

    @contextlib.contextmanager
    def evaluation(self, step: int) -> Iterator[None]:
        """The same for an evaluation, with lines for its begin and end."""
        self.write("evaluate_begin", step=step)
        with self.spend("evaluate"):
            yield
        self.write("evaluate_end", step=step)

    def mark(self, event: str, **facts: Any) -> dict[str, float]:
        """Append a line with the time since the last one of this kind, and begin to count anew.

        Returns:
          the seconds by kind. What no `spend` counted belongs to the phase that the attempt is in.
        """
        self._last = self._count_rest()
        spent, self._spent = self._spent, {}
        self.write(event, **facts, spent={kind: round(seconds, 4) for kind, seconds in spent.items()})
        return spent

    def ready(self, step: int) -> None:
        """State and data are there: from here on, what is not counted otherwise is training."""
        self.step = step
        self.mark("ready", step=step)
        self._phase = "train"

    def steps_done(self) -> None:
        """The last step of the attempt is done: from here on, what is not counted otherwise is saving."""
        self._count_rest()
        self._phase = "save"

    def __enter__(self) -> "Events":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        at = {} if self.step is None else {"step": self.step}
        if error is None:
            self.mark("finished", **at)
        elif isinstance(error, Preempted):
            self.mark("preempted", **at, why=one_line(error, _LONGEST))
        else:
            status = getattr(error, "exit_code", 1)
            self.mark("failed", **at, error=type(error).__name__, why=one_line(error, _LONGEST), exit_code=status)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _count_rest(self) -> float:
        """Give the time that no `spend` counted to the phase; returns the time now."""
        now = time.monotonic()
        rest = now - self._last - sum(self._spent.values())
        self._spent[self._phase] = self._spent.get(self._phase, 0.0) + max(0.0, rest)
        return now

    def _failed(self, error: Exception) -> None:
        if not self._reported:
            self._reported = True
            log.warning("events of the run are not written: %s: %s", type(error).__name__, error)
