"""Work that all processes of a run do together, such as a save: if it fails on one, the others stop waiting for it.

Orbax meets the other processes at barriers, and waits there for many minutes for a process that failed, for example
because its disk is full. So the work runs in a thread. A process whose work fails reports it to JAX's coordination
service, and the others look there while they wait.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import jax

from harvest_jax.checkpoint import notes

POLL_SECONDS = 0.5
OWN_ERROR_SECONDS = 5.0  # after another's failure, for this process's own error, which says more


class OtherProcessError(Exception):
    """The work failed on another process, which says why; on this one it may wait for that process without end."""

    def __init__(self, why: str) -> None:
        super().__init__(f"another process could not read or write its part: {why}")


class SharedWork:
    """Work in a daemon thread, begun at once."""

    def __init__(self, name: str, work: Callable[[], Any]):
        """`name` is the same on all processes, and no other work of this run has it."""
        self._name = name
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wait(self) -> BaseException | None:
        """Wait for the end, here and on the processes that failed; return the error if there was one."""
        while self._thread.is_alive():
            self._thread.join(POLL_SECONDS)
            if self._thread.is_alive() and (why := _reported(self._name)):
                self._thread.join(OWN_ERROR_SECONDS)
                return OtherProcessError(why) if self._thread.is_alive() else self._error
        return self._error

    def result(self) -> Any:
        """What the work returned, after its end.

        Raises:
          OtherProcessError: it failed on another process.
          Exception: its own.
        """
        error = self.wait()
        if error is not None:
            raise error
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # returned by wait(): an exception of a thread reaches no caller
            self._error = error
            _report(self._name, error)


def brief(error: BaseException) -> str:
    """One line for an error of Orbax, of Grain or of the system."""
    text = str(error)
    if isinstance(error, OtherProcessError):
        return text
    if "No space left on device" in text:
        return "no space left on the disk"
    return f"{type(error).__name__}: {text.splitlines()[0][:300] if text else 'no message'}"


def run_shared(name: str, work: Callable[[], Any]) -> Any:
    """Do the work now, and return its result; arguments and errors as for `SharedWork`."""
    return work() if jax.process_count() == 1 else SharedWork(name, work).result()


def _report(name: str, error: BaseException) -> None:
    with contextlib.suppress(Exception):  # the service is gone: then the run ends in any case
        notes.write(f"{_folder(name)}/{notes.place()[0]}", brief(error))


def _reported(name: str) -> str:
    """What the first process that failed has reported; "" if none has."""
    try:
        return next((f"process {rank}: {why}" for rank, why in notes.read(_folder(name)).items()), "")
    except Exception:  # as above
        return ""


def _folder(name: str) -> str:
    return f"failed/{name}"
