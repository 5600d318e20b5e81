"""Text for a terminal: untrusted text made printable, and the progress of long jobs."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

LINE_SECONDS = 10.0  # between two progress lines if the output is not a terminal

Progress = Callable[[int, int, str], None]


def printable(text: object, limit: int | None = None) -> str:
    r"""Text without control characters, on one line.

    Args:
      text: an untrusted name, path or cell. What is not printable is written as \x1b or \udce9; letters of any script
        stay.
      limit: characters at most, from 4 up; a longer text ends in "...". None: all of it.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))
    return shown if limit is None or len(shown) <= limit else f"{shown[: limit - 3]}..."


def one_line(text: object, limit: int | None = None) -> str:
    """The text on one line, every run of white space as one space; at most `limit` characters. For error messages."""
    return " ".join(str(text).split())[:limit]


@contextlib.contextmanager
def progress(name: str, unit: str) -> Iterator[Progress]:
    """Show how far a job has come, on stderr: a bar on a terminal, otherwise a line every 10 seconds.

    Args:
      name: of the job ("embedding").
      unit: what is counted ("clips").

    Yields:
      a function (done, total, note) to call as often as wanted. `total` 0: not known. `note` is more text for the line,
      may be empty. The time left is estimated from what is done after the first call, so that start-up, and what was
      done before, do not distort it.
    """
    if not sys.stderr.isatty():
        yield _Lines(name, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None, words="")
        words = _Words(unit)

        def update(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total or None, words=words(done, total, note))

        yield update


def duration(seconds: float) -> str:
    """90 -> "90 s", 600 -> "10 min", 7200 -> "2.0 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


class _Lines:
    def __init__(self, name: str, unit: str) -> None:
        self._name, self._words = name, _Words(unit)
        self._last = time.monotonic()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        words = self._words(done, total, note)
        if time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            print(f"{self._name}: {words}", file=sys.stderr, flush=True)


class _Words:
    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._first: tuple[int, float] | None = None  # what was done at the first call, and when that was

    def __call__(self, done: int, total: int, note: str) -> str:
        now = time.monotonic()
        self._first = self._first or (done, now)
        done_since, seconds = done - self._first[0], now - self._first[1]
        left = f", {duration((total - done) * seconds / done_since)} left" if done_since > 0 and done < total else ""
        return f"{done}{f'/{total}' if total else ''} {self._unit}{left}{', ' if note else ''}{note}"
