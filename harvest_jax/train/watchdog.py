"""A step that hangs ends the run, with the process and the step named, instead of costing the rest of the allocation.

A device, a network or a disk that does not answer raises no error. What is usual is learned from the run itself: for a
step the median of the steps; for what lies between two steps, saves and evaluations, the longest pause in which none
of its kind came further. Steps that compile (the first, and those of another shape) are not counted and not limited.
"""

import contextlib
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from harvest_jax.errors import ConfigError

FACTOR = 10.0  # times what is usual
LEAST_STEPS = 5  # ordinary steps before there is a median
TICK = 1.0  # seconds
# Longer than input.batches.HUNG_SECONDS, so that loader processes that hang are named by their own error.
LEAST_SECONDS = 360.0
VARIABLE = "HARVEST_STEP_SECONDS"  # in place of LEAST_SECONDS
BETWEEN = 5.0  # times the least of a step: the least of what lies between two steps; half an hour


class Watchdog:
    """Is told what the loop does; a thread of it calls `hung` once a step takes too long. A context manager."""

    def __init__(self, hung: Callable[[str], None], least: float):
        """`hung` gets the message; `least`: seconds that a step may take in any case, 0: nothing is limited."""
        self._hung = hung
        self._least = least
        self._lock = threading.Lock()
        self._doing = "before the first step"
        self._step = 0
        self._began: float | None = None  # of the step, or of what lies between two; None: nothing is limited now
        self._taken = 0.0  # seconds since then, without those in which this process was suspended
        self._usual: deque[float] = deque(maxlen=101)  # of steps
        self._longest: dict[str, float] = {}  # pause of each kind between two steps
        self._between = False
        self._ended = threading.Event()
        if least:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def reading(self, step: int) -> None:
        """A step begins: the process reads its batch."""
        with self._lock:
            self._step, self._doing = step, "reading its batch"
            self._began, self._taken = time.monotonic(), 0.0

    def running(self, compiles: bool) -> None:
        """The batch is there: the step is computed, or compiled first."""
        with self._lock:
            self._doing = "computing"
            if compiles:
                self._doing, self._began = "compiling", None

    def done(self) -> None:
        """The step has ended. What follows until the next one is limited where it is `between`."""
        with self._lock:
            if self._began is not None:
                self._usual.append(time.monotonic() - self._began)
            self._rest()

    @contextlib.contextmanager
    def between(self, doing: str, step: int) -> Iterator[None]:
        """A save or an evaluation after a step; `doing` is its kind, "saving" or "evaluating"."""
        with self._lock:
            self._step, self._doing, self._between = step, doing, True
            self._began, self._taken = time.monotonic(), 0.0
        try:
            yield
        finally:
            self.progress()
            with self._lock:
                self._rest()

    def progress(self) -> None:
        """From any thread: what is going on `between` two steps has come further, so its time begins anew."""
        with self._lock:
            if self._between and self._began is not None:
                now = time.monotonic()
                self._longest[self._doing] = max(self._longest.get(self._doing, 0.0), now - self._began)
                self._began, self._taken = now, 0.0

    @property
    def usual(self) -> float:
        """Seconds of a step: the median; 0 while it is not known."""
        with self._lock:
            return self._median()

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
            with self._lock:
                if self._began is None:
                    continue
                self._taken += passed
                message = self._fault()
            if message:
                self._hung(message)
                return

    def _fault(self) -> str:
        """What is said when the time is over, "" while it is not; with the lock held."""
        if self._between:
            longest = self._longest.get(self._doing, 0.0)
            if self._taken <= max(BETWEEN * self._least, FACTOR * longest):
                return ""
            before = f", and never for more than {longest:.2g} s before" if longest else ""
            return f"step {self._step} ({self._doing}) has come no further for {self._taken:.0f} s{before}"
        usual = self._median()
        if not usual or self._taken <= max(self._least, FACTOR * usual):
            return ""
        return f"step {self._step} ({self._doing}) has taken {self._taken:.0f} s instead of about {usual:.2g} s"

    def _median(self) -> float:
        return statistics.median(self._usual) if len(self._usual) >= LEAST_STEPS else 0.0

    def _rest(self) -> None:
        self._doing, self._began, self._between = "after the step", None, False


def least_seconds() -> float:
    """The value of HARVEST_STEP_SECONDS, or LEAST_SECONDS.

    Raises:
      ConfigError: the value is not a number of seconds.
    """
    text = os.environ.get(VARIABLE) or str(LEAST_SECONDS)
    if not text.replace(".", "", 1).isdecimal():
        raise ConfigError(f"{VARIABLE}={text} must be a number of seconds, 0 for no limit")
    return float(text)
