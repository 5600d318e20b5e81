"""Traces of some steps of a running training, by jax.profiler: at a step that is named, or when SIGUSR1 comes."""

import logging
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import jax

from harvest_jax.errors import ConfigError
from harvest_jax.train.events import Events

log = logging.getLogger(__name__)

STEPS = 3  # of a trace that does not say how many


class Wanted(NamedTuple):
    """Steps to trace: so many, the first one of which is step number `first` (from 1 up)."""

    first: int
    steps: int


def parse(text: str) -> Wanted:
    """What `--profile` names: "500:10" is ten steps from step 500 on, "500" is `STEPS`.

    Raises:
      ConfigError: it is neither.
    """
    first, colon, count = text.partition(":")
    numbers = [first, count] if colon else [first, str(STEPS)]
    if not all(number.isdecimal() and 0 < int(number) < 10**9 for number in numbers):
        raise ConfigError(f"--profile {text}: give STEP or STEP:N, two whole numbers from 1 up, such as 500:10")
    return Wanted(*map(int, numbers))


class Profiler:
    """Context manager; from its begin to its end SIGUSR1 asks for a trace of the next `STEPS` steps.

    A trace costs time, and changes no number. One that fails is reported, and the training goes on. Where Python allows
    no handlers (outside the main thread) the signal does what it did before.
    """

    def __init__(self, folder: Path, events: Events, wanted: Wanted | None = None) -> None:
        """`folder` gets a folder for each trace: "step_000500", of other processes than the first "step_000500_1"."""
        self._folder = folder
        self._events = events
        self._wanted = wanted
        self._asked = False
        self._left = 0  # steps of the trace that is being made
        self._target = folder
        self._previous: Any = None

    def before(self, step: int) -> None:
        """To be called after `step` steps, before the next one."""
        named = self._wanted is not None and step + 1 == self._wanted.first
        if self._left or not (named or self._asked):
            return
        count = self._wanted.steps if named and self._wanted is not None else STEPS
        self._asked = False
        rank = f"_{jax.process_index()}" if jax.process_index() else ""
        self._target = self._folder / f"step_{step + 1:06d}{rank}"
        try:
            jax.profiler.start_trace(str(self._target))
        except Exception as error:
            log.warning("no trace of step %d: %s", step + 1, error)
            return
        self._left = count

    def after(self, step: int, result: Any) -> None:
        """To be called when step number `step` was started; `result` is an array of it."""
        if not self._left:
            return
        self._left -= 1
        if not self._left:
            jax.block_until_ready(result)
            self._stop(step)

    def __enter__(self) -> "Profiler":
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGUSR1, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._left:
            self._left = 0
            self._stop(None)
        if self._previous is not None:
            signal.signal(signal.SIGUSR1, self._previous)
            self._previous = None

    def _stop(self, step: int | None) -> None:
        try:
            jax.profiler.stop_trace()
        except Exception as error:
            log.warning("the trace in %s was not written: %s", self._target, error)
            return
        self._events.write("profile", **({} if step is None else {"step": step}), folder=self._target.name)
        print(f"trace: {self._target}", flush=True)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
