"""A stop on request: SIGTERM, SIGHUP or Ctrl-C sets a flag; the loop sees it between two steps, saves, ends with 42.

Orbax and JAX notice a preemption only after `jax.distributed.initialize()`; a run of one process would die at SIGTERM
with nothing saved. This works with and without. A process that is killed without warning loses at most
`train.save_every` steps.
"""

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import jax

from harvest_jax import signals
from harvest_jax.errors import Preempted
from harvest_jax.train.stop_step import StopStep
from harvest_jax.train.stop_time import StopTime


class StopSignal:
    """Context manager that turns signals into a flag from `listen` on; at its end the old handlers return.

    Before `listen` there is nothing to save, and a signal ends the process at once (`harvest_jax.signals`). A second
    SIGINT (Ctrl-C again) raises KeyboardInterrupt; more of the others change nothing, also while the last state is
    being saved: so this must be the outermost of the contexts that hold what is saved. Outside the main thread, where
    Python allows no handlers, the flag is never set.

    Attributes:
      time: how long a stop takes, if that is measured.
    """

    def __init__(self) -> None:
        self.time: StopTime | None = None
        self._received: signal.Signals | None = None
        self._interrupts = 0
        self._previous: dict[signal.Signals, Any] = {}
        self._together: StopStep | None = None

    @property
    def received(self) -> bool:
        """Whether a signal came to this process; cheap, for places where the processes are not in step."""
        return self._received is not None

    @property
    def name(self) -> str:
        """What asked for the stop, for messages: "SIGTERM", "SIGINT", "a signal to another process"."""
        return self._received.name if self._received else "a signal to another process"

    def requested(self, step: int) -> bool:
        """Whether to save and stop after this step; the same answer on every process.

        Call it after each step, on all of them. It takes no time, and waits for no device.
        """
        return self.received if self._together is None else self._together.reached(step)

    def listen(self) -> None:
        """Take the signals; to be called when there is a state to save, again and again, so that the time is noted."""
        if self.time is not None:
            self.time.note()
        if threading.current_thread() is threading.main_thread() and not self._previous:
            self._previous = {number: signal.signal(number, self._handle) for number in signals.taken()}

    def __enter__(self) -> "StopSignal":
        if jax.process_count() > 1:
            self._together = StopStep(lambda: self.received)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._together is not None:
            self._together.close()
        if kind is not None and issubclass(kind, Preempted):
            signals.settle()  # the state is saved: another SIGTERM must not turn this into a failure
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
        if self._received is None:
            self._received = signal.Signals(number)
            seconds = self.time.seconds() if self.time is not None else 0.0
            takes = f" (about {seconds:.0f} s)" if seconds else ""
            words = f"{self._received.name}: saving and stopping after this step{takes}; Ctrl-C twice ends at once\n"
            with contextlib.suppress(OSError):  # nobody reads it any more, but the state is to be saved
                os.write(2, words.encode())  # print() is not reentrant, and a handler may run in the middle of it
