"""With several processes: the step after which all of them stop, agreed within about a second of a signal to any.

All must save the same step, and no process can stop by itself: the others would wait for its part of the next step. A
collective that asks all of them would cost time at every step, and asked rarely it answers late where steps are slow.
So threads agree: each looks once a second whether some process was asked to stop. Then each process names the first
step after which it can stop, and all stop after the largest of these.
"""

import itertools
import threading
from collections.abc import Callable

from harvest_jax.checkpoint import notes

POLL_SECONDS = 1.0
_runs = itertools.count()  # the same number on all processes: each makes its runs in the same order


class StopStep:
    """One agreement; its thread begins at once."""

    def __init__(self, asked: Callable[[], bool]):
        """`asked` says whether this process was asked to stop."""
        self._asked = asked
        self._rank, self._count = notes.place()
        self._folder = f"stop/{next(_runs)}"
        self._lock = threading.Lock()
        self._passed = -1  # the last step after which this process went on
        self._named: int | None = None
        self._agreed: int | None = None
        self._known, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._agree, name="stop step", daemon=True).start()

    def reached(self, step: int) -> bool:
        """Whether all stop after this step: the same answer on all processes. To be called after each step.

        It waits only once, when a stop was asked for, and for the threads of the others, not for their steps: these may
        need this process's next step.
        """
        with self._lock:
            if self._named is None:
                self._passed = step
                return False
        while not self._known.wait(POLL_SECONDS):
            pass
        return self._agreed is not None and step >= self._agreed

    def close(self) -> None:
        """End the thread; to be called when all processes have passed their last step."""
        self._ended.set()

    def _agree(self) -> None:
        pause = POLL_SECONDS
        while not self._ended.wait(pause):
            named = self._read()
            if named is None or not (named or self._asked()):
                continue
            if self._named is None:
                with self._lock:
                    self._named = self._passed + 1
                notes.write(f"{self._folder}/{self._rank}", str(self._named))
                pause = POLL_SECONDS / 10
            elif len(named) == self._count:
                self._agreed = max(map(int, named.values()))
                self._known.set()
                return

    def _read(self) -> dict[str, str] | None:
        try:
            return notes.read(self._folder)
        except RuntimeError:  # the service cannot be reached: if that lasts, the run ends in any case
            return None
