"""Charts of a training run for the report: one small SVG for each question, as text of an `src`."""

import base64
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure

INK, FAINT, GRID = "#1d2733", "#5b6b7b", "#e3e8ee"
TEAL, ORANGE = "#0f766e", "#c2570c"


class Line(NamedTuple):
    """One measurement of metrics.jsonl; `name` is written at its end."""

    key: str
    name: str
    colour: str
    factor: float = 1.0


class Chart(NamedTuple):
    """What is drawn together, and how it is read."""

    title: str
    how_to_read: str
    lines: tuple[Line, ...]
    top: float | None = None  # of the vertical axis; None: what the data needs


CHARTS = (
    Chart(
        "Contrastive loss",
        "How hard it is to tell which caption of the batch belongs to which clip. Lower is better.",
        (Line("contrastive_loss", "", TEAL),),
    ),
    Chart(
        "Masked-word loss",
        "How hard it is to guess a hidden word of the caption from the clip and the other words. Lower is better.",
        (Line("mlm_loss", "", TEAL),),
    ),
    Chart(
        "First guess right (%)",
        "How often a clip's own caption comes first among the batch's, and the other way round. Higher is better.",
        (
            Line("batch_R@1_v2t", "caption of a clip", TEAL, 100.0),
            Line("batch_R@1_t2v", "clip of a caption", ORANGE, 100.0),
        ),
        102.0,
    ),
)


def draw(chart: Chart, curves: Sequence[dict[str, Any]]) -> str | None:
    """The chart as a data URI, or None where the run measured none of its lines.

    Args:
      chart: what to draw.
      curves: lines of metrics.jsonl, {"step": int, measurement: number or None}; None (no number) leaves a gap.
    """
    lines = [line for line in chart.lines if any(row.get(line.key) is not None for row in curves)]
    if not lines:
        return None
    # Paths instead of text: the page then looks the same wherever it is opened. A fixed salt: equal runs, equal pages.
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "harvest", "font.size": 9}):
        figure = Figure(figsize=(4.0, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            rows = [row for row in curves if line.key in row]
            values = [math.nan if row[line.key] is None else line.factor * row[line.key] for row in rows]
            axes.plot([row["step"] for row in rows], values, color=line.colour, linewidth=1.6, label=line.name)
        if len(lines) > 1:
            axes.legend(frameon=False, loc="lower right", labelcolor=INK)
        axes.set_ylim(0, chart.top)
        axes.set_xlim(left=0)
        axes.set_xlabel("step", color=FAINT)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=FAINT, length=0)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(GRID)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
