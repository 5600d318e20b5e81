"""Measurements of a run: JSON lines always, a line or a display on the terminal, and other sinks (`sinks.py`).

`metrics.jsonl` has one object a line: {"step": 20, "loss": 2.31, ...}; nan and inf are null. Scores of evaluations are
lines of their own: {"step": 20, "eval/retrieval/t2v/R@1": 40.0, ...}.
"""

import json
import logging
import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import SupportsFloat

from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.files import append_line, write_atomically
from harvest_jax.train.loss_watch import LossWatch
from harvest_jax.train.sinks import Makers, Sink, tensorboard

log = logging.getLogger(__name__)


def _bytes(count: float) -> str:
    return f"{count / 1e9:.{1 if count < 10e9 else 0}f} GB"


# What is displayed: name, title, words of a value, rank, in the order of display. Where a terminal is too narrow, high
# ranks are left out. metrics.jsonl has every measurement.
_SHOWN: tuple[tuple[str, str, Callable[[float], str], int], ...] = (
    ("loss", "loss", "{:.4f}".format, 0),
    ("contrastive_loss", "contrastive", "{:.3f}".format, 6),
    ("mlm_loss", "words", "{:.3f}".format, 6),
    ("grad_norm", "grad", "{:.3g}".format, 5),
    ("logit_scale", "logit_scale", "{:.2f}".format, 8),
    ("learning_rate", "lr", "{:.1e}".format, 7),
    ("clips_per_s", "clips/s", lambda rate: f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}", 2),
    ("mfu", "MFU", "{:.1%}".format, 4),
    ("data_wait", "data wait", "{:.0%}".format, 3),
    ("device_bytes", "device", _bytes, 9),
    ("host_bytes", "host", _bytes, 9),
    ("bad_records", "bad records", "{:.0f}".format, 1),
)
_DISPLAY = "the display"  # name of a sink
SCORES = "eval/"  # begins the names of scores
_WIDE = 70  # columns of a terminal from which on a progress bar is drawn
_BAR = 12  # columns of the progress bar, at least


class MetricWriter:
    """Writes each measurement to every sink. A sink that fails is reported once, and training continues without it.

    Only the JSON lines are tried again: a full disk may have room later.
    """

    def __init__(
        self,
        workdir: Path,
        total_steps: int,
        restored_step: int,
        enabled: bool = True,
        sinks: Makers | None = None,
    ):
        """Open the sinks and cut what an interrupted run wrote beyond the step it is restored to.

        Args:
          workdir: gets `metrics.jsonl`.
          total_steps: for the display.
          restored_step: 0 at a fresh start.
          enabled: False on all processes but one; then nothing is written or shown.
          sinks: others, by their names (`sinks.sink_makers`); None: TensorBoard, where it is installed.
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
        others = sinks if sinks is not None else {"TensorBoard": lambda: tensorboard(layout, restored_step)}
        for name, make in others.items():
            self._add(name, make)
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
        append_line(self._file, line)

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
        words = [f"step {step}/{self._total}", *shown(values, self._remaining.after(step))]
        print("  ".join(words), flush=True)

    def close(self) -> None:
        """Nothing is held back."""


class LiveDisplay:
    """The step, a progress bar where there is room, and the main measurements, on one line."""

    def __init__(self, total_steps: int, restored_step: int):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
        from rich.table import Column

        self._console = Console()
        self._remaining = RemainingTime(total_steps)
        self._steps = f"step {total_steps}/{total_steps}"
        whole = Column(no_wrap=True, min_width=len(self._steps))
        columns: list[ProgressColumn] = [TextColumn("step {task.completed}/{task.total}", table_column=whole)]
        if self._console.width >= _WIDE:
            columns.append(BarColumn(bar_width=None, table_column=Column(ratio=1)))
        columns.append(TextColumn("{task.fields[words]}", table_column=Column(no_wrap=True, overflow="ellipsis")))
        self._progress = Progress(*columns, console=self._console, expand=True)
        self._task = self._progress.add_task("", total=total_steps, completed=restored_step, words="compiling")
        self._progress.start()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Redraw."""
        bar = _BAR if self._console.width >= _WIDE else 0
        room = self._console.width - len(self._steps) - bar - 2
        words = "  ".join(shown(values, self._remaining.after(step), room))
        self._progress.update(self._task, completed=step, words=words)

    def close(self) -> None:
        """Leave the last state on the screen and restore the terminal."""
        self._progress.stop()


def shown(values: Mapping[str, float], last: Sequence[str], columns: int | None = None) -> list[str]:
    """The main measurements in words, those that are given, and `last` after them.

    For so many columns, with two between the words, the more important ones are taken; the loss and `last` always are.
    """
    found = [(rank, f"{title} {words(values[name])}") for name, title, words, rank in _SHOWN if name in values]
    used = sum(len(word) + 2 for word in last)
    kept = set()
    for number, (rank, word) in sorted(enumerate(found), key=lambda entry: entry[1][0]):
        if rank and columns is not None and used + len(word) > columns:
            break
        used += len(word) + 2
        kept.add(number)
    return [*(word for number, (_, word) in enumerate(found) if number in kept), *last]
