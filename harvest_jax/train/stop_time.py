"""How long a stop takes: measured, written into the workdir for launchers, and compared with the time they give.

A launcher that is asked to stop waits for the processes to save before it kills them. How long that may take depends on
the run: with steps of 23 s, half a minute is too short.
"""

import contextlib
import json
import logging
import os
from collections.abc import Callable

import jax

from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.files import write_atomically
from harvest_jax.terminal import duration

log = logging.getLogger(__name__)

GRACE_SECONDS = "HARVEST_GRACE_SECONDS"  # variable: what the launcher gives, if that is fixed
_CHANGE = 1.25  # times what is written, from which on it is written again


class StopTime:
    """The seconds from a signal to a saved state, as far as they were measured."""

    def __init__(self, workdir: Workdir, steps: int, step: Callable[[], float], save: Callable[[], float]):
        """Set what is measured.

        Args:
          workdir: gets the file.
          steps: that are computed at most between the signal and the save.
          step, save: give seconds of one, 0 while that is not known.
        """
        self._file, self._steps, self._step, self._save = workdir.stop_time, steps, step, save
        self._written = 0.0
        self._warned = False

    def seconds(self) -> float:
        """Measured so far; 0 while nothing is known."""
        # The save before the last one may still be under way.
        return self._steps * self._step() + 2 * self._save()

    def note(self) -> None:
        """Write the file if the time has changed, and warn once if it is longer than what the launcher gives."""
        seconds = self.seconds()
        if jax.process_index() or self._written / _CHANGE <= seconds <= self._written * _CHANGE:
            return
        self._written = seconds
        with contextlib.suppress(OSError):  # a full disk may have room later
            write_atomically(self._file, json.dumps({"seconds": round(seconds, 2)}).encode() + b"\n")
        given = os.environ.get(GRACE_SECONDS, "")
        if given.replace(".", "", 1).isdecimal() and seconds > float(given) and not self._warned:
            self._warned = True
            log.warning(
                "a stop takes about %s (%d steps of %.2g s, two saves of %.2g s), and the launcher waits %s: what was "
                "trained since the last checkpoint would be lost; give it a longer --grace, or lower train.save_every",
                *(duration(seconds), self._steps, self._step(), self._save(), duration(float(given))),
            )
