"""Ctrl-C (SIGINT), SIGTERM and SIGHUP end a command quickly, with its cleanup done and a fixed exit status.

Python alone cannot promise that. It runs a signal handler only when the main thread returns to Python code, which takes
minutes while XLA compiles; an exception raised inside a callback is lost (JAX has one in the garbage collector); and at
a normal exit the native threads of a library that still works may crash. So a thread watches the signals from the first
import on, and an interrupted process ends with `os._exit` after its cleanup.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATUSES = tuple(128 + number for number in SIGNALS)  # exit statuses, as shells report them: 130, 143 and 129
# Seconds from a signal to a forced end while the main thread does not react: it is in native code.
REACTION = {signal.SIGINT: 1.0, signal.SIGTERM: 5.0, signal.SIGHUP: 5.0}
CLEANUP = 10.0  # seconds that `finally` blocks may take
_POLL = 0.05  # seconds
_REPEAT = 0.2  # seconds until a signal is sent to the main thread again
_exit_at_once = threading.Event()
_settled = threading.Event()


class Interrupted(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP came; raised in the main thread."""

    def __init__(self, number: int):
        super().__init__(message(number))
        self.exit_code = 128 + number


def message(number: int) -> str:
    """What a command prints when a signal ended it."""
    return "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


def run_program(name: str, main: Callable[[], int]) -> int:
    """Run the program of this process; call it before anything large is imported.

    The signals raise `Interrupted` in the main thread; a handler that is installed later takes precedence. A second
    SIGINT ends the process at once. A signal that is ignored stays ignored: `nohup` asks for that.

    Args:
      name: printed before a message.
      main: returns the exit status.

    Returns:
      the exit status. An interrupted program does not return: the process ends here.
    """
    sys.stderr = outliving(sys.stderr)
    watch = _Watch(name)
    try:
        status = main()
    except BaseException:
        if watch.interrupt is None:
            raise
        print(f"{name}: {message(watch.interrupt)}", file=sys.stderr)
        status = 128 + watch.interrupt
    if status in STATUSES or _exit_at_once.is_set():
        end_process(status)
    if _settled.is_set():
        for number in set(taken()) - {signal.SIGINT}:  # when Python ends it gives other handlers up, and dies of these
            signal.signal(number, signal.SIG_IGN)
    return status


def exit_at_once() -> None:
    """Let the program end without waiting for threads and exit handlers: they would wait for other processes."""
    _exit_at_once.set()


def settle() -> None:
    """The exit status of this program is decided, its work is safe: from now on only Ctrl-C twice breaks it off."""
    _settled.set()


def taken() -> tuple[signal.Signals, ...]:
    """Those of SIGNALS that this process was not told to ignore."""
    return tuple(number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN)


def outliving(stream: Any) -> Any:
    """The text stream, but what is written is discarded once its reader has gone away, instead of an error."""
    return stream if isinstance(stream, _Outliving) else _Outliving(stream)


def end_process(status: int) -> None:
    """End this process and its multiprocessing children now: no exit handlers, no waiting for threads."""
    multiprocessing = sys.modules.get("multiprocessing")
    with contextlib.suppress(Exception):
        for child in multiprocessing.active_children() if multiprocessing else ():
            child.kill()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            if "rich.live" in sys.modules and stream.isatty():
                stream.write("\x1b[?25h")  # a progress bar has hidden the cursor
            stream.flush()
    os._exit(status)


class _Outliving:
    """See `outliving`."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._discard()

    def _discard(self) -> None:
        """Let the file descriptor lead to nowhere: Python flushes at its end what is left, and would complain."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class _Watch:
    """The handlers, and the thread that ends the process when they have no effect."""

    def __init__(self, name: str):
        self.interrupt: int | None = None  # the signal for which Interrupted was raised
        self._name = name
        self._claim = threading.Lock()  # who ends the process: the main thread, or this one at the deadline
        self._lost = False  # whether the exception could not be raised, or was raised where Python discards it
        self._main = threading.main_thread().ident or 0
        self._report_unraisable = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        self._signals, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in taken():  # nohup ignores SIGHUP, shells' background jobs ignore SIGINT
            signal.signal(number, self._raise)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if self.interrupt is not None or _settled.is_set():  # a later signal must not break off the cleanup
            return
        if _importing(frame):
            self._lost = True
            return
        if not self._claim.acquire(blocking=False):  # the process is ending
            return
        self.interrupt = number
        raise Interrupted(number)

    def _unraisable(self, event: Any) -> None:
        if issubclass(event.exc_type, Interrupted):
            self._lost = True
        else:
            self._report_unraisable(event)

    def _watch(self) -> None:
        came: int | None = None  # the signal that the process is to end with
        interrupts = ignored = 0
        deadline = repeat = float("inf")
        reacted = False
        while True:
            if time.monotonic() >= deadline and (reacted or self._claim.acquire(blocking=False)):
                break
            if select.select([self._signals], [], [], None if came is None else _POLL)[0]:
                for number in os.read(self._signals, 64):
                    if ignored:
                        ignored -= 1
                        continue
                    if number not in SIGNALS:
                        continue
                    interrupts += number == signal.SIGINT
                    # Another handler decides what the first signal does: training saves its state.
                    ends = signal.getsignal(number) == self._raise and not _settled.is_set()
                    if came is None and (ends or interrupts > 1):
                        came, repeat = number, time.monotonic() + _REPEAT
                        deadline = time.monotonic() + REACTION[signal.Signals(number)]
                    elif interrupts > 1 and reacted:
                        deadline = 0.0
            if came is None:
                continue
            if self._lost:
                self._lost, self.interrupt = False, None
                if self._claim.locked():
                    self._claim.release()
                deadline = time.monotonic() + REACTION[signal.Signals(came)]  # the main thread does react
                reacted, repeat = False, 0.0
            elif self.interrupt is not None and not reacted:
                reacted, deadline = True, time.monotonic() + CLEANUP
            # A signal just before the main thread begins to wait in the kernel does not end that wait: it comes again.
            if self.interrupt is None and not ignored and time.monotonic() >= repeat:
                if signal.getsignal(came) == self._raise:
                    ignored += 1
                    signal.pthread_kill(self._main, came)
                repeat = time.monotonic() + _REPEAT
        assert came is not None
        with contextlib.suppress(OSError):
            os.write(2, f"{self._name}: {message(came)}\n".encode())
        end_process(128 + came)


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: an exception in the middle of a native module's setup may crash it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
