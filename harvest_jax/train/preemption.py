"""A stop on request: SIGTERM or Ctrl-C sets a flag; the loop sees it between two steps, saves and ends with 42.

Orbax and JAX notice a preemption only after `jax.distributed.initialize()`; a run of one process would die at SIGTERM
with nothing saved. This works with and without. A process that is killed without warning loses at most
`train.save_every` steps.
"""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import jax

from harvest_jax.checkpoint import consensus
from harvest_jax.signals import SIGNALS

AGREE_EVERY = 10  # steps; with several processes, each sees the others' signals at these


class StopSignal:
    """Context manager that turns SIGTERM and SIGINT into a flag from `listen` on; at its end the old handlers return.

    Before `listen` there is nothing to save, and a signal ends the process at once (`harvest_jax.signals`). A second
    SIGINT (Ctrl-C again) raises KeyboardInterrupt; more SIGTERMs change nothing. Outside the main thread, where Python
    allows no handlers, the flag is never set.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._interrupts = 0
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def received(self) -> bool:
        """Whether a signal came to this process; cheap, for places where the processes are not in step."""
        return self._received is not None

    @property
    def name(self) -> str:
        """What asked for the stop, for messages: "SIGTERM", "SIGINT", "a signal to another process"."""
        return self._received.name if self._received else "a signal to another process"

    def requested(self, step: int) -> bool:
        """Whether to save and stop now; the same answer on every process.

        With several processes this is a collective at every `AGREE_EVERY`-th step (one number gathered; it waits for
        the steps in flight) and False in between, so call it once for each step, on all of them.
        """
        if jax.process_count() == 1:
            return self.received
        return step % AGREE_EVERY == 0 and consensus.any_process(self.received)

    def listen(self) -> None:
        """Take the signals; to be called when there is a state to save, after `jax.distributed.initialize()`."""
        if threading.current_thread() is threading.main_thread() and not self._previous:
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def __enter__(self) -> "StopSignal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
        if self._received is None:
            self._received = signal.Signals(number)
            # A handler may run in the middle of print(), which is not reentrant.
            words = f"{self._received.name}: saving and stopping after this step; Ctrl-C twice ends at once\n"
            os.write(2, words.encode())
