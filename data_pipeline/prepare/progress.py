"""How far a long job has come: a bar on a terminal, a line now and then anywhere else."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from data_pipeline.prepare.tally import Tally

_EVERY = 10.0  # seconds between plain lines


@contextlib.contextmanager
def progress_line(name: str) -> Iterator[Callable[[Tally], None]]:
    """A function to call with the tally after each clip; writes to stderr."""
    if sys.stderr.isatty():
        with _bar(name) as update:
            yield update
    else:
        yield _Lines(name)


class _Lines:
    def __init__(self, name: str):
        self.name, self.last = name, time.monotonic()

    def __call__(self, tally: Tally) -> None:
        now = time.monotonic()
        if now - self.last >= _EVERY:
            self.last = now
            print(f"{self.name}: {_words(tally)}", file=sys.stderr, flush=True)


def _words(tally: Tally) -> str:
    rate = tally.rate
    left = f"{_duration((tally.total - tally.done) / rate)} left" if rate > 0 else "no clip of this run done yet"
    return (
        f"{tally.done}/{tally.total} clips, {tally.rejected} rejected, {tally.bytes / 1e6:.1f} MB, "
        f"{rate:.1f} clips/s, {left}"
    )


def _duration(seconds: float) -> str:
    """90 -> "90 s", 7200 -> "2.0 h"."""
    return f"{seconds:.0f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h"


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Callable[[Tally], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=None, words="")

        def update(tally: Tally) -> None:
            progress.update(task, completed=tally.done, total=tally.total, words=_words(tally))

        yield update
