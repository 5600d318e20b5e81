"""Runs as their training folders tell of them, while they train and afterwards; and the runs of a sweep."""

import csv
import dataclasses
import itertools
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harvest_jax.checkpoint.scores import best_step
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.config import run as run_config
from harvest_jax.errors import DataError, HarvestError
from harvest_jax.files import json_lines
from harvest_jax.terminal import printable
from harvest_jax.train.goodput import History, history, read_events
from harvest_jax.train.metrics import SCORES

QUIET = 600.0  # seconds without a line after which a run without an end counts as dead, at least
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Stage:
    """Steps that run the same program.

    Attributes:
      name: "patches dropped" or "all patches".
      first, last: numbers of its steps, from 1 up.
      done: whether it has lines of measurements.
      clips_per_s, step_ms, mfu: medians of its lines; None where there are none.
    """

    name: str
    first: int
    last: int
    done: bool
    clips_per_s: float | None
    step_ms: float | None
    mfu: float | None


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training folder tells.

    Attributes:
      name: short, another one for each run of a page.
      workdir: the folder.
      config: of the run, nested; {} if it cannot be read.
      state: "finished", "running", "preempted", "failed", "killed", or "not begun".
      words: the state in a sentence.
      rows: measurements in the order of the steps.
      scores: lines with scores, likewise.
      history: attempts and time; None if the run wrote no events.
      best: step, score and name of the score that decides; None without.
      values: what a sweep set in it.
    """

    name: str
    workdir: Workdir
    config: dict[str, Any]
    state: str
    words: str
    rows: tuple[Row, ...]
    scores: tuple[Row, ...]
    history: History | None
    best: tuple[int, float, str] | None
    values: dict[str, str]

    @property
    def step(self) -> int:
        """The last one that was measured."""
        return max((row["step"] for row in self.rows), default=0)

    @property
    def steps(self) -> int:
        """That the run is to take; 0 if it is not known."""
        return int(self.field("train.steps") or 0)

    def field(self, name: str) -> Any:
        """A value of the config, such as "train.steps"; None if it is not there."""
        value: Any = self.config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def last(self, name: str) -> float | None:
        """The newest value of a measurement."""
        return next((float(row[name]) for row in reversed(self.rows) if row.get(name) is not None), None)

    def median(self, name: str, first: int = 0, last: int | None = None) -> float | None:
        """Of a measurement, over the lines of some steps; the first line of an attempt compiles and does not count."""
        starts = {attempt.first_step for attempt in self.history.attempts} if self.history else set()
        last = self.step if last is None else last
        found = [row for row in self.rows if first <= row["step"] <= last and row.get(name) is not None]
        steady = [row for row in found if row["step"] - 1 not in starts] or found
        return float(statistics.median(row[name] for row in steady)) if steady else None

    @property
    def seconds_left(self) -> float | None:
        """To the last step, at the median speed of the last lines; None if it is not known."""
        recent = [row["step_ms"] for row in self.rows[-20:] if row.get("step_ms")]
        if self.state != "running" or not recent or not self.steps:
            return None
        return (self.steps - self.step) * statistics.median(recent) / 1e3

    @property
    def stages(self) -> list[Stage]:
        """The steps that drop patches, and those that see all; [] if the config does not say."""
        whole = int(self.field("train.unmasked_steps") or 0)
        if not self.steps:
            return []
        dropping = float(self.field("model.keep_ratio") or 1.0) < 1
        borders = [("patches dropped" if dropping else "all patches", 1, self.steps - whole)]
        borders += [("all patches", self.steps - whole + 1, self.steps)]
        return [self._stage(*border) for border in borders if border[2] >= border[1]]

    def _stage(self, name: str, first: int, last: int) -> Stage:
        measured = [self.median(key, first, last) for key in ("clips_per_s", "step_ms", "mfu")]
        return Stage(name, first, last, self.step >= first, *measured)


@dataclasses.dataclass(frozen=True)
class Found:
    """The runs of a page.

    Attributes:
      runs: in the order of the paths; those of a sweep in its order.
      sweep: the folder of the sweep's plan, if it is the page of one.
      table: rows of the sweep's results.csv, the head first; [] without.
    """

    runs: list[Run]
    sweep: Path | None = None
    table: list[list[str]] = dataclasses.field(default_factory=list)


def find_runs(paths: Sequence[Path]) -> Found:
    """Read the training folders, and those of the sweeps, that are named.

    Args:
      paths: training folders, folders with a sweep.json, or such files.

    Raises:
      DataError: one of them is neither.
    """
    folders: list[tuple[Path, dict[str, str]]] = []
    sweep, table = None, []
    for path in paths:
        plan = path if path.name == "sweep.json" else path / "sweep.json"
        if plan.is_file():
            folders += _of_sweep(plan)
            if len(paths) == 1:
                sweep, table = plan.parent, _table(plan.parent / "results.csv")
        elif is_training(path):
            folders.append((path, {}))
        else:
            raise DataError(
                f"{printable(path)} is no training folder (of `harvest train`) and no sweep (a folder with the "
                "sweep.json of `python -m launch.sweep`)"
            )
    if not folders:
        raise DataError(f"{printable(paths[0])} lists no run")
    names = _names([folder for folder, _ in folders])
    return Found([_read(*entry, name) for entry, name in zip(folders, names, strict=True)], sweep, table)


def is_training(path: Path) -> bool:
    """Whether a folder was made by a training, however far that came."""
    layout = Workdir(path)
    return layout.exists or layout.metrics.is_file() or layout.events.is_file()


def _of_sweep(plan: Path) -> list[tuple[Path, dict[str, str]]]:
    """Folders and values of a sweep's runs. A sweep that was moved has them beside its plan."""
    try:
        runs = json.loads(plan.read_bytes())["runs"]
        entries = [(Path(run["workdir"]), [str(word) for word in run["overrides"]]) for run in runs]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{printable(plan)} is not the plan of a sweep: {type(error).__name__}: {error}") from error
    common = set.intersection(*(set(words) for _, words in entries)) if len(entries) > 1 else set()
    found = []
    for folder, words in entries:
        beside = plan.parent / folder.name
        values = dict(word.partition("=")[::2] for word in words if word not in common)
        found.append((folder if folder.is_dir() or not beside.is_dir() else beside, values))
    return found


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = [str(Path(*part[-length:])) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {folder.name}" for number, folder in enumerate(folders, 1)]


def _read(folder: Path, values: dict[str, str], name: str) -> Run:
    layout = Workdir(folder)
    lines = _lines(layout.metrics)
    events = read_events(layout.events)
    past = history(events)
    state, words = _state(layout, past, events, bool(lines))
    return Run(
        name=name,
        workdir=layout,
        config=_whole(_json(layout.config)),
        state=state,
        words=words,
        rows=tuple(line for line in lines if not _has_scores(line)),
        scores=tuple(line for line in lines if _has_scores(line)),
        history=past,
        best=best_step(layout),
        values=values,
    )


def _state(layout: Workdir, past: History | None, events: Sequence[Row], measured: bool) -> tuple[str, str]:
    """The state of a run, as a word and as a sentence."""
    if past is None:
        if layout.exported:
            return "finished", "finished"
        words = "it wrote no events: of an earlier version" if measured else "nothing was trained yet"
        return ("killed", f"not finished, and {words}") if measured else ("not begun", words)
    last = past.attempts[-1]
    if last.end:
        return last.end, last.why or last.end
    quiet = max(0.0, time.time() - events[-1]["time"])
    waits = [later["time"] - earlier["time"] for earlier, later in itertools.pairwise(events)]
    if quiet < max(QUIET, 5 * max(waits, default=0.0)):
        return "running", f"running: its last line was {ago(quiet)} old when this page was made"
    return "killed", f"it ended without a word: its last line was {ago(quiet)} old when this page was made"


def ago(seconds: float) -> str:
    """A time in words: 12 s, 3 min, 5.2 h, 3.1 days."""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _lines(path: Path) -> list[Row]:
    """The lines of a metrics file that can be read."""
    return [
        row
        for row in json_lines(path)
        if isinstance(row.get("step"), int) and all(isinstance(value, int | float | None) for value in row.values())
    ]


def _has_scores(row: Row) -> bool:
    return any(name.startswith(SCORES) for name in row)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _whole(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the defaults of fields that an earlier version did not have."""
    try:
        return json.loads(json.dumps(run_config.recorded(config).to_dict())) if config else {}
    except HarvestError:
        return config


def _table(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            return list(csv.reader(file))
    except (OSError, csv.Error):
        return []
