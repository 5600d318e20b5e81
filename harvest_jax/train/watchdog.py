"""A step that hangs ends the run, with the process and the step named, instead of costing the rest of the allocation.

A device, a network or a disk that does not answer raises no error. What is usual is learned from the run itself: the
median of its steps. Not counted and not limited: steps that compile (the first, and those of another shape), saves and
evaluations.
"""

import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable

from harvest_jax.errors import ConfigError

FACTOR = 10.0  # times the median
LEAST_STEPS = 5  # ordinary steps before there is a median
TICK = 1.0  # seconds
# Longer than input.batches.HUNG_SECONDS, so that loader processes that hang are named by their own error.
LEAST_SECONDS = 360.0
VARIABLE = "HARVEST_STEP_SECONDS"  # in place of LEAST_SECONDS


class Watchdog:
    """Is told what the loop does; a thread of it calls `hung` once a step takes too long. A context manager."""

    def __init__(self, hung: Callable[[str], None], least: float):
        """`hung` gets the message; `least`: seconds that a step may take in any case, 0: no step is limited."""
        self._hung = hung
        self._least = least
        self._lock = threading.Lock()
        self._doing = "before the first step"
        self._step = 0
        self._began: float | None = None  # of the step; None: nothing is limited now
        self._taken = 0.0  # seconds of the step so far, without those in which this process was suspended
        self._usual: deque[float] = deque(maxlen=101)
        self._shapes: set[Hashable] = set()
        self._ended = threading.Event()
        if least:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def reading(self, step: int) -> None:
        """A step begins: the process reads its batch."""
        with self._lock:
            self._step, self._doing = step, "reading its batch"
            self._began, self._taken = time.monotonic(), 0.0

    def running(self, shape: Hashable) -> None:
        """The batch is there: the step is computed. With a shape that was not there before it is compiled first."""
        with self._lock:
            self._doing = "computing"
            if shape not in self._shapes:
                self._shapes.add(shape)
                self._doing, self._began = "compiling", None

    def done(self) -> None:
        """The step has ended. What follows until the next one, such as a save, is not limited."""
        with self._lock:
            if self._began is not None:
                self._usual.append(time.monotonic() - self._began)
            self._doing, self._began = "after the step", None

    @property
    def usual(self) -> float:
        """Seconds of a step: the median; 0 while it is not known."""
        with self._lock:
            return statistics.median(self._usual) if len(self._usual) >= LEAST_STEPS else 0.0

    def where(self) -> str:
        """What this process does now: "step 17, reading its batch"."""
        with self._lock:
            return f"step {self._step}, {self._doing}"

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *of_error: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(TICK):
            now = time.monotonic()
            # A process that was stopped (Slurm suspends jobs) or a machine that slept has not hung.
            passed, last = min(now - last, 2 * TICK), now
            usual = self.usual
            with self._lock:
                if self._began is None or not usual:
                    continue
                self._taken += passed
                if self._taken <= max(self._least, FACTOR * usual):
                    continue
                message = (
                    f"step {self._step} ({self._doing}) has taken {self._taken:.0f} s instead of about {usual:.2g} s"
                )
            self._hung(message)
            return


def least_seconds() -> float:
    """The value of HARVEST_STEP_SECONDS, or LEAST_SECONDS.

    Raises:
      ConfigError: the value is not a number of seconds.
    """
    text = os.environ.get(VARIABLE) or str(LEAST_SECONDS)
    if not text.replace(".", "", 1).isdecimal():
        raise ConfigError(f"{VARIABLE}={text} must be a number of seconds, 0 for no limit")
    return float(text)
