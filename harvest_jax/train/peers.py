"""The processes of a run look after each other: when one fails, dies or is stopped, all end, with the cause named.

JAX notices a dead process by its heartbeats, and then ends the others in C++: status 134 and a page of stack frames. An
error in one process it does not notice at all: the others wait in a collective. So each process leaves notes with the
coordination service of process 0: that it lives, where it stands, and, if it ends by an error, which. Only the death of
process 0 itself, and of the service with it, is seen by JAX first.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from harvest_jax import signals
from harvest_jax.checkpoint import notes
from harvest_jax.checkpoint.items import first_few
from harvest_jax.errors import HungError
from harvest_jax.terminal import one_line, printable

POLL_SECONDS = 1.0
GOODBYE_SECONDS = 4.0  # that process 0 waits for the others to read the cause: the notes end with it
# JAX's own heartbeats are the net below: by then the notes have named the cause.
JAX_HEARTBEATS = 3
CAUSE_FILE = "HARVEST_CAUSE_FILE"  # variable: file that gets the first cause as JSON; set by launch/local.py
_LEFT = "left"  # the note of a process that has done its work
_current: "Peers | None" = None


class Peers:
    """The other processes of this run, for as long as the context lasts."""

    def __init__(self, heartbeat: float):
        """`heartbeat`: seconds of silence after which a process counts as dead."""
        self.where: Callable[[], str] = lambda: "starting or ending"
        self._heartbeat = heartbeat
        self._rank, self._count = notes.place()
        self._beats = 0
        self._heard: dict[int, str] = {}  # the newest note of each process
        self._silent = dict.fromkeys(range(self._count), 0.0)  # seconds since it changed
        self._unanswered = 0.0  # seconds since the service last answered
        self._ending = threading.Lock()  # taken once, by what ends this process
        self._left = threading.Event()

    def __enter__(self) -> "Peers":
        global _current
        _current = self
        with contextlib.suppress(RuntimeError):  # the service is gone: JAX ends this process
            self._beat()
        for work in (self._talk, self._listen_for_service):
            threading.Thread(target=work, name="peers", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        global _current
        _current = None
        self._left.set()
        with contextlib.suppress(RuntimeError):
            notes.write(f"alive/{self._rank}", _LEFT, replace=True)

    def fail(self, message: str, status: int) -> None:
        """Tell the others that this process ends, and why. Process 0 then waits until they know."""
        self._ending.acquire(blocking=False)  # another's end does not interrupt this one's message
        cause = json.dumps({"rank": self._rank, "status": status, "message": one_line(message, 600)})
        _tell_launcher(cause)
        if self._unanswered > self._heartbeat:
            return
        with contextlib.suppress(RuntimeError):  # the service is gone, or another process has failed before
            notes.write(f"read/{self._rank}", "", replace=True)
            notes.write("ended/cause", cause)
        self._wait_for_others()

    def await_cause(self) -> None:
        """After an error that may come from the death of another process: time for that to be noticed.

        It does not return if it is: the process ends.
        """
        time.sleep(1.5 * self._heartbeat + 2 * POLL_SECONDS)

    def others(self) -> str:
        """Where each process stands, in few words."""
        standing = [self._heard.get(rank, "") for rank in range(self._count)]
        words = [note.partition(" ")[2] if note != _LEFT else "done" for note in standing]
        usual = max(set(words), key=words.count)
        if all(word == usual for word in words):
            return f"all {self._count} processes: {usual}"
        named = [f"process {rank}: {word}" for rank, word in enumerate(words) if word != usual or self._count <= 4]
        rest = "" if self._count <= 4 else f"; the others: {usual}"
        return first_few(named) + rest

    def _talk(self) -> None:
        interval = max(POLL_SECONDS, self._heartbeat / 4)
        beat = last = time.monotonic() - interval
        while not self._left.wait(POLL_SECONDS):
            now = time.monotonic()
            try:
                if now - beat >= interval:
                    beat = now
                    self._beat()
                    heard = notes.read("alive")
                    # Time in which this process was itself suspended does not count.
                    self._hear(heard, min(now - last, 2 * interval))
                    last = now
                cause = notes.read("ended").get("cause")
            except RuntimeError:  # the service does not answer; see _listen_for_service
                continue
            self._unanswered = 0.0
            if cause is not None:
                self._follow(json.loads(cause))

    def _beat(self) -> None:
        self._beats += 1
        notes.write(f"alive/{self._rank}", f"{self._beats} {self.where()}", replace=True)

    def _hear(self, heard: dict[str, str], passed: float) -> None:
        for rank in range(self._count):
            note = heard.get(str(rank), "0 starting or ending")
            changed = note != self._heard.get(rank)
            self._silent[rank] = 0.0 if changed or note == _LEFT else self._silent[rank] + passed
            self._heard[rank] = note
            if self._silent[rank] > self._heartbeat and rank != self._rank:
                self._lost(rank, self._silent[rank], note.partition(" ")[2])

    def _lost(self, rank: int, seconds: float, last: str) -> None:
        end_all(
            f"process {rank} has been silent for {seconds:.0f} s, last heard of at: {last}. It was killed or stopped, "
            "or its machine cannot be reached; run the same command again to go on from the last checkpoint",
            HungError.exit_code,
        )

    def _listen_for_service(self) -> None:
        """A service that does not answer would keep `_talk` waiting: process 0 is stopped, or cannot be reached."""
        last = time.monotonic()
        while not self._left.wait(POLL_SECONDS):
            now = time.monotonic()
            self._unanswered += min(now - last, 2 * POLL_SECONDS)
            last = now
            if self._unanswered > 1.5 * self._heartbeat + 2 * POLL_SECONDS and self._rank:
                self._lost(0, self._unanswered, self._heard.get(0, "0 starting or ending").partition(" ")[2])

    def _follow(self, cause: dict[str, object]) -> None:
        if not self._ending.acquire(blocking=False):
            return
        with contextlib.suppress(RuntimeError):
            notes.write(f"read/{self._rank}", "", replace=True)
        _say(f"process {cause['rank']} ended the run: {printable(cause['message'])}")
        self._wait_for_others()
        signals.end_process(int(str(cause["status"])))

    def _wait_for_others(self) -> None:
        """On process 0: until the others have read the cause, or cannot."""
        if self._rank:
            return
        deadline = time.monotonic() + GOODBYE_SECONDS
        alive = {rank for rank in range(1, self._count) if self._silent[rank] <= self._heartbeat}
        with contextlib.suppress(RuntimeError):
            while time.monotonic() < deadline and not alive <= set(map(int, notes.read("read"))):
                time.sleep(POLL_SECONDS / 10)


def end_all(message: str, status: int) -> None:
    """From any thread: end this process and all others of its run at once, with this cause."""
    if _current is not None and not _current._ending.acquire(blocking=False):
        return
    _say(message)
    if _current is not None:
        _current.fail(message, status)
    signals.end_process(status)


def end_hung(message: str) -> None:
    """End all: a step takes too long on this process, perhaps because it waits for another."""
    where = f"; {_current.others()}" if _current is not None else ""
    advice = "run the same command again to go on from the last checkpoint"
    end_all(f"process {notes.place()[0]}: {message}{where}; {advice}", HungError.exit_code)


@contextlib.contextmanager
def standing(where: Callable[[], str]) -> Iterator[None]:
    """While the context lasts, `where` says to the other processes what this one does."""
    if _current is None:
        yield
        return
    before, _current.where = _current.where, where
    try:
        yield
    finally:
        if _current is not None:
            _current.where = before


def _tell_launcher(cause: str) -> None:
    """The first cause of a run, for a launcher that asked for it: the others end with the same status."""
    file = os.environ.get(CAUSE_FILE)
    if file:
        with contextlib.suppress(OSError), open(file, "x", encoding="utf-8") as first:
            first.write(cause)


def _say(message: str) -> None:
    print(f"harvest train: {message}", file=sys.stderr, flush=True)
