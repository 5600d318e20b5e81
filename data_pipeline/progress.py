"""How far a long job has come: a bar on a terminal, a line now and then anywhere else."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

_EVERY = 10.0  # seconds between plain lines


@contextlib.contextmanager
def progress_line(name: str) -> Iterator[Callable[[int, int, int], None]]:
    """A function to call with (done, all, rejected) after each clip; writes to stderr."""
    if sys.stderr.isatty():
        with _bar(name) as update:
            yield update
    else:
        yield _Lines(name)


class _Lines:
    def __init__(self, name: str):
        self.name, self.began, self.last = name, time.monotonic(), time.monotonic()

    def __call__(self, done: int, total: int, rejected: int) -> None:
        now = time.monotonic()
        if now - self.last >= _EVERY:
            self.last = now
            rate = done / (now - self.began)
            left = (total - done) / rate
            line = f"{self.name}: {done}/{total} clips, {rejected} rejected, {rate:.1f} clips/s, {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} clips/s, {task.fields[rejected]} rejected"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=None, rate=0.0, rejected=0)

        def update(done: int, total: int, rejected: int) -> None:
            rate = done / max(1e-9, time.monotonic() - began)
            progress.update(task, completed=done, total=total, rate=rate, rejected=rejected)

        yield update
