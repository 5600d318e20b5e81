"""The charts of the page: measurements and scores over the steps, of one run or of several."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from harvest_jax.demo.charts import CHARTS as LEARNING
from harvest_jax.demo.charts import Line
from harvest_jax.pages.charts import DARK, LIGHT, Colours, chart
from harvest_jax.run_report.runs import Row, Run
from harvest_jax.train.metrics import SCORES

POINTS = 400  # of a line at most: more lines of a run are averaged
MOST_SCORES = 6  # charts of scores
HEADLINES = ("accuracy", "R@1", "top1", "mAP")  # last parts of the names of scores that are drawn first
# Lines of several runs, readable on light and dark ground. Further runs have the same colours with other dashes.
PALETTE = ("#0f9488", "#d9690f", "#7a73e0", "#d0468f", "#7f9a1c", "#2f8fd8", "#b08a10", "#a1663f")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
BORDERS = ("solid", "dashed", "dotted")  # the same in CSS


class Chart(NamedTuple):
    """At most two measurements of each run.

    Attributes:
      log: a logarithmic axis.
      zero: whether the vertical axis begins at 0.
    """

    group: str
    title: str
    how_to_read: str
    lines: tuple[Line, ...]
    log: bool = False
    zero: bool = True


CHARTS = (
    Chart("Learning", "Loss", "The weighted sum that is minimized. Lower is better.", (Line("loss", ""),)),
    *(Chart("Learning", *one[:3]) for one in LEARNING),
    Chart(
        "Learning",
        "Right in the batch (%)",
        "Labels, answers or masked words that the model has right. Higher is better.",
        (Line("accuracy", "labels or answers", 100.0), Line("mlm_accuracy", "masked words", 100.0)),
    ),
    Chart(
        "Optimizer",
        "Norm of the gradient",
        "Of all parameters that train, before clipping. A jump shows an unusual batch, a steady rise a learning rate "
        "that is too high.",
        (Line("grad_norm", ""),),
        log=True,
    ),
    Chart("Optimizer", "Learning rate", "Its schedule: warm-up, decay, last stage.", (Line("learning_rate", ""),)),
    Chart(
        "Optimizer",
        "logit_scale",
        "Logarithm of the factor of the similarities; at most ln 100 = 4.61.",
        (Line("logit_scale", ""),),
        zero=False,
    ),
    Chart("Speed", "Clips a second", "On all devices together.", (Line("clips_per_s", ""),)),
    Chart(
        "Speed",
        "MFU (%)",
        "Matrix products of the steps, as a share of the device's own rate of large products, measured at the start.",
        (Line("mfu", "", 100.0),),
    ),
    Chart(
        "Speed",
        "Wait for data (%)",
        "Share of the time in which the step had no batch.",
        (Line("data_wait", "", 100.0),),
    ),
    Chart(
        "Speed",
        "Memory (GB)",
        "Most in use since the start on the fullest device of the first process; and of the host, its processes now.",
        (Line("device_bytes", "device", 1e-9), Line("host_bytes", "host", 1e-9)),
    ),
)


def charts_of(runs: Sequence[Run]) -> dict[str, list[dict[str, Any]]]:
    """The charts for which there are measurements, by group, each as the template shows it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in CHARTS:
        drawn = _drawn(one, runs, [run.rows for run in runs])
        if drawn:
            found.setdefault(one.group, []).append(drawn)
    return found


def score_charts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Charts of the most important scores of evaluations while the runs trained."""
    names = list(dict.fromkeys(name for run in runs for row in run.scores for name in row if name.startswith(SCORES)))
    decides = {f"{SCORES}{run.best[2]}" for run in runs if run.best}
    several = {name for run in runs if len(run.scores) > 1 for row in run.scores for name in row}
    names = [name for name in names if name in several]  # a single point is no curve
    rank = {name: (name not in decides, name.rpartition("/")[2] not in HEADLINES, name.count("/")) for name in names}
    best = sorted(names, key=lambda name: rank[name])[:MOST_SCORES]
    words = "Of an evaluation while the run trained."
    charts = [
        Chart(
            "Scores",
            name.removeprefix(SCORES),
            f"{words} It decides which checkpoint is the best." if name in decides else words,
            (Line(name, ""),),
            zero=False,
        )
        for name in best
    ]
    drawn = [_drawn(one, runs, [run.scores for run in runs], marker=True) for one in charts]
    return [one for one in drawn if one]


def key_style(number: int) -> str:
    """The style of a run's line in a legend, as CSS."""
    return f"border-top: 3px {BORDERS[number // len(PALETTE) % len(BORDERS)]} {PALETTE[number % len(PALETTE)]}"


def thinned(rows: Sequence[Row], line: Line) -> tuple[list[float], list[float]]:
    """Steps and values of a measurement: at most `POINTS`, means of as many lines; not a number is a gap."""
    found = [row for row in rows if line.key in row]
    size = -(-len(found) // POINTS) or 1
    steps, values = [], []
    for start in range(0, len(found), size):
        part = found[start : start + size]
        numbers = [math.nan if row[line.key] is None else line.factor * row[line.key] for row in part]
        steps.append(sum(row["step"] for row in part) / len(part))
        values.append(sum(numbers) / len(part))
    return steps, values


def _drawn(
    one: Chart, runs: Sequence[Run], rows: Sequence[Sequence[Row]], marker: bool = False
) -> dict[str, Any] | None:
    lines = [line for line in one.lines if any(row.get(line.key) is not None for part in rows for row in part)]
    if not lines:
        return None
    light, dark = (
        chart(lambda axes, colours=colours: _fill(axes, one, lines, runs, rows, colours, marker), colours)  # type: ignore[misc]
        for colours in (LIGHT, DARK)
    )
    how = one.how_to_read
    if len(lines) > 1 and len(runs) > 1:
        how += f" Full line: {lines[0].name}; dashed: {lines[1].name}."
    if max(map(len, rows), default=0) > POINTS:
        how += " Each point is the mean of several lines of the log."
    return {"title": one.title, "how_to_read": how, "light": light, "dark": dark, "last": _last(lines, runs, rows)}


def _fill(
    axes: Axes,
    one: Chart,
    lines: Sequence[Line],
    runs: Sequence[Run],
    rows: Sequence[Sequence[Row]],
    colours: Colours,
    marker: bool,
) -> None:
    alone = len(runs) == 1
    positive = False
    for number, part in enumerate(rows):
        for which, line in enumerate(lines):
            colour = (colours.first, colours.second)[which] if alone else PALETTE[number % len(PALETTE)]
            dashes = DASHES[which if alone or len(lines) > 1 else number // len(PALETTE) % len(DASHES)]
            steps, values = thinned(part, line)
            positive |= any(value > 0 for value in values)
            dot = "o" if marker or len(values) == 1 else None
            axes.plot(
                steps,
                values,
                color=colour,
                linestyle=dashes,
                marker=dot,
                markersize=3.5,
                label=line.name,
                linewidth=1.3,
            )
    if alone:
        _marks(axes, runs[0], colours)
        if len(lines) > 1:
            axes.legend(frameon=False, labelcolor=colours.ink, fontsize=8)
    if one.log and positive:
        axes.set_yscale("log")
    elif one.zero:
        axes.set_ylim(bottom=0)


def _marks(axes: Axes, run: Run, colours: Colours) -> None:
    """Where the run went on after a stop, and where the last stage begins."""
    restarts = {attempt.first_step for attempt in run.history.attempts[1:]} if run.history else set()
    for step in restarts:
        if step and step < run.step:
            axes.axvline(step, color=colours.faint, linewidth=0.9, linestyle=":")
    stages = run.stages
    if len(stages) > 1 and run.step >= stages[1].first and stages[0].name != stages[1].name:
        axes.axvspan(stages[1].first - 0.5, run.step, color=colours.faint, alpha=0.12, linewidth=0)


def _last(lines: Sequence[Line], runs: Sequence[Run], rows: Sequence[Sequence[Row]]) -> str:
    """The newest values in words, for readers who do not see the picture."""
    words = []
    for run, part in zip(runs, rows, strict=True):
        for line in lines:
            row = next((row for row in reversed(part) if row.get(line.key) is not None), None)
            if row is not None:
                name = " ".join(word for word in (run.name if len(runs) > 1 else "", line.name) if word)
                words.append(f"{name} {line.factor * row[line.key]:.4g} at step {row['step']}".strip())
    return "; ".join(words)
