"""The page of one run or of several: one HTML file that needs no other file."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harvest_jax.pages.environment import page_environment
from harvest_jax.run_report.charts import charts_of, key_style, score_charts
from harvest_jax.run_report.runs import Found, Run
from harvest_jax.run_report.samples import samples
from harvest_jax.terminal import duration
from harvest_jax.train.goodput import KINDS, Attempt
from harvest_jax.train.metrics import SCORES
from harvest_jax.version import __version__

TEMPLATES = Path(__file__).parent / "templates"
MOST_NAMES = 3  # in the title
MOST_SAMPLES = 3  # runs whose clips are shown
MOST_ATTEMPTS = 40  # of a run: the newest
# How a kind of time is drawn: colour and the angle of its stripes (none: plain), so that colours are not needed.
FILLS = {
    "train": ("#0f9488", None),
    "data_wait": ("#d9690f", 45),
    "compile": ("#7a73e0", 135),
    "save": ("#2f8fd8", 90),
    "evaluate": ("#7f9a1c", 0),
    "start": ("#8494a5", 45),
    "recomputed": ("#d0468f", 135),
    "dead": ("#c02626", 90),
    "down": ("#b08a10", 0),
}


def page(found: Found, command: Sequence[str]) -> str:
    """The page, in light or dark colours as the reader's system has them.

    Args:
      found: the runs.
      command: the words that made it.
    """
    runs = found.runs
    with_clips = [(run, *samples(run)) for run in runs[:MOST_SAMPLES]]
    return (
        page_environment(TEMPLATES)
        .get_template("run_report.html.j2")
        .render(
            title=_title(found),
            alone=len(runs) == 1,
            runs=[_run(run, number) for number, run in enumerate(runs)],
            charts=charts_of(runs),
            scores=score_charts(runs),
            last_scores=[(run.name, row) for run in runs if (row := _newest_scores(run))],
            times=_times(runs),
            samples=with_clips,
            more_samples=len(runs) > MOST_SAMPLES,
            differences=_differences(runs),
            table=found.table,
            now=_moment(time.time()),
            command=" ".join(command),
            version=__version__,
        )
    )


def _title(found: Found) -> str:
    if found.sweep:
        return f"Sweep {found.sweep.absolute().name}"
    return " · ".join(run.name for run in found.runs) if len(found.runs) <= MOST_NAMES else f"{len(found.runs)} runs"


def _run(run: Run, number: int) -> dict[str, Any]:
    left = run.seconds_left
    past = run.history
    return {
        "name": run.name,
        "key": key_style(number),
        "state": run.state,
        "words": run.words,
        "folder": str(run.workdir.root),
        "step": run.step,
        "steps": run.steps,
        "done": min(100.0, 100 * run.step / run.steps) if run.steps else 0.0,
        "left": duration(left) if left is not None else "",
        "loss": run.last("loss"),
        "clips_per_s": run.median("clips_per_s"),
        "mfu": run.median("mfu"),
        "wait": run.median("data_wait"),
        "best": run.best,
        "epoch": run.last("epoch"),
        "values": run.values,
        "stages": run.stages,
        "goodput": past.goodput if past else None,
        "wall": duration(past.seconds) if past else "",
        "attempts": _attempts(run),
        "left_out": max(0, len(past.attempts) - MOST_ATTEMPTS) if past else 0,
        "bar": _bar(past.spent, past.seconds) if past and past.seconds else [],
        "config": flat(run.config),
    }


def _attempts(run: Run) -> list[dict[str, Any]]:
    """The newest attempts; one without an end was killed, but the last one of a run that goes on."""
    attempts = [_attempt(attempt) for attempt in run.history.attempts[-MOST_ATTEMPTS:]] if run.history else []
    if attempts and not attempts[-1]["end"] and run.state == "running":
        attempts[-1]["end"] = "running"
    return [attempt | {"end": attempt["end"] or "killed"} for attempt in attempts]


def _attempt(attempt: Attempt) -> dict[str, Any]:
    facts = attempt.facts
    where = " ".join(str(facts[name]) for name in ("devices", "device") if name in facts)
    return {
        "number": attempt.number,
        "began": _moment(attempt.began),
        "first": attempt.first_step,
        "last": attempt.last_step,
        "repeated": attempt.repeated,
        "to_first_step": duration(attempt.to_first_step) if attempt.to_first_step is not None else "–",
        "took": duration(attempt.last - attempt.began),
        "end": attempt.end,
        "why": attempt.why,
        "where": where,
    }


def _bar(spent: dict[str, float], seconds: float) -> list[dict[str, Any]]:
    parts = [(kind, 100 * spent[kind] / seconds) for kind in KINDS if spent.get(kind)]
    return [{"words": KINDS[kind], "share": share, "fill": fill(kind)} for kind, share in parts]


def fill(kind: str) -> str:
    """The ground of a kind of time, as CSS."""
    colour, angle = FILLS[kind]
    if angle is None:
        return f"background: {colour}"
    return (
        f"background: repeating-linear-gradient({angle}deg, {colour} 0 4px, "
        f"color-mix(in srgb, {colour} 55%, var(--paper)) 4px 7px)"
    )


def _times(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Seconds by kind, a column for each run that wrote events; None if none did."""
    with_events = [run for run in runs if run.history and run.history.seconds]
    if not with_events:
        return None
    rows = []
    for kind, words in KINDS.items():
        cells = []
        for run in with_events:
            assert run.history is not None
            seconds = run.history.spent.get(kind, 0.0)
            cells.append((duration(seconds), f"{100 * seconds / run.history.seconds:.1f} %") if seconds else ("", ""))
        if any(cell[0] for cell in cells):
            rows.append({"words": words, "fill": fill(kind), "cells": cells})
    walls = [duration(run.history.seconds) for run in with_events if run.history]
    return {"names": [run.name for run in with_events], "rows": rows, "walls": walls}


def _newest_scores(run: Run) -> dict[str, Any] | None:
    """All scores of the newest evaluations of a run."""
    if not run.scores:
        return None
    row = run.scores[-1]
    values = {name.removeprefix(SCORES): value for name, value in row.items() if name.startswith(SCORES)}
    return {"step": row["step"], "values": values}


def _differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """The fields of the config in which runs differ, with their values."""
    flats = [flat(run.config) for run in runs]
    names = dict.fromkeys(name for one in flats for name in one)
    rows = [(name, [str(one.get(name, "–")) for one in flats]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"steps": 5}} -> {"train.steps": 5}."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _moment(seconds: float) -> str:
    """A point in time, for people everywhere."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
