"""Measurements of a run: JSON lines always, TensorBoard if it is installed, and a line or a display on the terminal.

`metrics.jsonl` has one object a line: {"step": 20, "loss": 2.31, ...}; nan and inf are null. Scores of evaluations are
lines of their own: {"step": 20, "eval/retrieval/t2v/R@1": 40.0, ...}.
"""

import json
import logging
import math
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, SupportsFloat, runtime_checkable

from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.files import write_atomically
from harvest_jax.train.loss_watch import LossWatch

log = logging.getLogger(__name__)

# What is displayed, in this order; metrics.jsonl has every measurement.
_SHOWN: dict[str, tuple[str, Callable[[float], str]]] = {
    "loss": ("loss", "{:.4f}".format),
    "clips_per_s": ("clips/s", lambda rate: f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"),
    "data_wait": ("data wait", "{:.0%}".format),
    "bad_records": ("bad records", "{:.0f}".format),
}
_DISPLAY = "the display"  # name of a sink
SCORES = "eval/"  # begins the names of scores
_BAR_COLUMNS = 70  # width of a terminal from which on a progress bar is drawn


@runtime_checkable
class Sink(Protocol):
    """Where measurements go."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the measurements of one step."""

    def close(self) -> None:
        """Write what is buffered."""


class MetricWriter:
    """Writes each measurement to every sink. A sink that fails is reported once, and training continues without it.

    Only the JSON lines are tried again: a full disk may have room later.
    """

    def __init__(self, workdir: Path, total_steps: int, restored_step: int, enabled: bool = True):
        """Open the sinks and cut what an interrupted run wrote beyond the step it is restored to.

        Args:
          workdir: gets `metrics.jsonl` and the folder `tensorboard`.
          total_steps: for the display.
          restored_step: 0 at a fresh start.
          enabled: False on all processes but one; then nothing is written or shown.
        """
        self._sinks: dict[str, Sink] = {}
        self._reported: set[str] = set()
        if not enabled:
            return
        workdir.mkdir(parents=True, exist_ok=True)
        live = sys.stdout.isatty()
        layout = Workdir(workdir)
        self._lines = layout.metrics.name
        self._add(self._lines, lambda: JsonLines(layout.metrics, restored_step))
        self._add("the loss check", lambda: LossWatch(layout.metrics))
        self._add("TensorBoard", lambda: tensorboard(layout.tensorboard, restored_step))
        self._add(_DISPLAY, lambda: LiveDisplay(total_steps, restored_step) if live else PlainLines(total_steps))

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Record the measurements (Python, numpy or jax scalars) after a number of finished steps."""
        numbers = {name: float(value) for name, value in values.items()}
        for name, sink in list(self._sinks.items()):
            try:
                sink.write(step, numbers)
            except Exception as error:
                self._failed(name, error)

    def write_scores(self, step: int, values: Mapping[str, float]) -> None:
        """Record the scores of an evaluation in the files; the display shows measurements of steps alone."""
        display = self._sinks.pop(_DISPLAY, None)
        self.write(step, values)
        if display is not None:
            self._sinks[_DISPLAY] = display

    def close(self) -> None:
        """Close the sinks; a second call does nothing."""
        for name, sink in list(self._sinks.items()):
            try:
                sink.close()
            except Exception as error:
                self._failed(name, error)
        self._sinks.clear()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, name: str, make: Callable[[], Sink | None]) -> None:
        try:
            sink = make()
        except Exception as error:
            self._failed(name, error)
            return
        if sink is not None:
            self._sinks[name] = sink

    def _failed(self, name: str, error: Exception) -> None:
        if name != self._lines:
            self._sinks.pop(name, None)
        if name not in self._reported:
            self._reported.add(name)
            log.warning("measurements do not go to %s: %s: %s", name, type(error).__name__, error)


class JsonLines:
    """One line for each write, handed to the operating system before `write` returns."""

    def __init__(self, path: Path, restored_step: int):
        cut(path, restored_step)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as the run

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line, whole or not at all."""
        numbers = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = (json.dumps({"step": step} | numbers, allow_nan=False) + "\n").encode()
        before = os.fstat(self._file.fileno()).st_size
        written = 0
        try:
            written = self._file.write(line) or 0
        finally:
            if written < len(line):  # a full disk may take half a line
                self._file.truncate(before)
        if written < len(line):
            raise OSError(f"{self._file.name}: only {written} of {len(line)} bytes were written")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def cut(path: Path, restored_step: int) -> None:
    """Keep the lines of a metrics file up to a step, without half-written ones, and without the scores of that step.

    These are written again by the run that goes on from there.
    """
    if not path.exists():
        return
    old = path.read_bytes()
    kept = b"".join(line for line in old.splitlines(keepends=True) if _belongs(line, restored_step))
    if kept != old:
        write_atomically(path, kept)


def _belongs(line: bytes, restored_step: int) -> bool:
    try:
        values = json.loads(line)
        scores = any(str(name).startswith(SCORES) for name in values)
        return line.endswith(b"\n") and values["step"] + scores <= restored_step
    except (ValueError, TypeError, KeyError):
        return False


def tensorboard(folder: Path, restored_step: int) -> Sink | None:
    """Event files for TensorBoard, or None without the package tensorboardX (the extra `tensorboard`)."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None

    class EventFiles:
        def __init__(self) -> None:
            # Events of the steps from purge_step on, left by an interrupted run, are hidden.
            self._writer = SummaryWriter(str(folder), purge_step=restored_step + 1 if folder.exists() else None)

        def write(self, step: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

        def close(self) -> None:
            self._writer.close()

    return EventFiles()


class RemainingTime:
    """The time to the end, from the steps between the last few writes.

    The step before the first write is not counted: it contains the compilation. The median forgets a later compilation.
    """

    def __init__(self, total_steps: int):
        self._total = total_steps
        self._last: tuple[int, float] | None = None  # step and time of the last write
        self._seconds_per_step: deque[float] = deque(maxlen=10)

    def after(self, step: int) -> list[str]:
        """["eta 1:02:03"] (hours, minutes, seconds) after `step` finished steps; [] while there is no estimate yet."""
        now = time.monotonic()
        if self._last is not None and step > self._last[0]:
            self._seconds_per_step.append((now - self._last[1]) / (step - self._last[0]))
        self._last = step, now
        if not self._seconds_per_step:
            return []
        seconds = round((self._total - step) * statistics.median(self._seconds_per_step))
        return [f"eta {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"]


class PlainLines:
    """One line a write on standard output, for logs."""

    def __init__(self, total_steps: int):
        self._total = total_steps
        self._remaining = RemainingTime(total_steps)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Print the main measurements."""
        words = [f"step {step}/{self._total}", *shown(values), *self._remaining.after(step)]
        print("  ".join(words), flush=True)

    def close(self) -> None:
        """Nothing is held back."""


class LiveDisplay:
    """The step, a progress bar where there is room, and the main measurements, on one line."""

    def __init__(self, total_steps: int, restored_step: int):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
        from rich.table import Column

        console = Console()
        self._remaining = RemainingTime(total_steps)
        whole = Column(no_wrap=True, min_width=len(f"step {total_steps}/{total_steps}"))
        columns: list[ProgressColumn] = [TextColumn("step {task.completed}/{task.total}", table_column=whole)]
        if console.width >= _BAR_COLUMNS:
            columns.append(BarColumn(bar_width=None, table_column=Column(ratio=1)))
        columns.append(TextColumn("{task.fields[words]}", table_column=Column(no_wrap=True, overflow="ellipsis")))
        self._progress = Progress(*columns, console=console, expand=True)
        self._task = self._progress.add_task("", total=total_steps, completed=restored_step, words="compiling")
        self._progress.start()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Redraw."""
        words = "  ".join([*shown(values), *self._remaining.after(step)])
        self._progress.update(self._task, completed=step, words=words)

    def close(self) -> None:
        """Leave the last state on the screen and restore the terminal."""
        self._progress.stop()


def shown(values: Mapping[str, float]) -> list[str]:
    """The main measurements in words, those that are given."""
    return [f"{title} {words(values[name])}" for name, (title, words) in _SHOWN.items() if name in values]
