"""Charts of a training run as small SVG pictures, and the limit that repeated captions set to one of them."""

import collections
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from harvest_jax.pages.charts import DARK, LIGHT, Colours
from harvest_jax.pages.charts import chart as page_chart

__all__ = ["CHARTS", "DARK", "LIGHT", "Chart", "Line", "draw", "first_guess_limit"]


class Line(NamedTuple):
    """One measurement of metrics.jsonl, multiplied by `factor`; `name` is its entry in the legend."""

    key: str
    name: str
    factor: float = 1.0


class Chart(NamedTuple):
    """At most two lines with their title and an explanation.

    Attributes:
      top: end of the vertical axis; None lets the data decide.
      limited: whether repeated captions limit the values (`first_guess_limit`).
    """

    title: str
    how_to_read: str
    lines: tuple[Line, ...]
    top: float | None = None
    limited: bool = False


CHARTS = (
    Chart(
        "Contrastive loss (nats)",
        "How hard it is to tell which caption of the batch belongs to which clip. Lower is better.",
        (Line("contrastive_loss", ""),),
    ),
    Chart(
        "Masked-word loss (nats)",
        "How hard it is to predict a hidden word of the caption from the clip and the other words. Lower is better.",
        (Line("mlm_loss", ""),),
    ),
    Chart(
        "First guess right (%)",
        "How often a clip's own caption is the most similar one of the batch, and the other way round. Higher is "
        "better.",
        (
            Line("batch_R@1_v2t", "caption of a clip", 100.0),
            Line("batch_R@1_t2v", "clip of a caption", 100.0),
        ),
        102.0,
        limited=True,
    ),
)


def first_guess_limit(captions: Sequence[str], batch_size: int) -> float:
    """The largest share of first guesses that can be right when captions repeat, in 0..1.

    Clips of a batch with the same caption cannot be told apart by it: of n such clips a perfect model finds the right
    one with probability 1/n. So the limit is the expected number of distinct captions in a batch, over its size. Hidden
    words make more captions alike and lower it further.

    Args:
      captions: of all training clips.
      batch_size: clips drawn from them without replacement.
    """
    clips = len(captions)
    size = min(batch_size, clips)

    def log_choices(total: int) -> float:  # of `size` clips
        return math.lgamma(total + 1) - math.lgamma(total - size + 1)

    distinct = sum(
        1.0 - (math.exp(log_choices(clips - count) - log_choices(clips)) if clips - count >= size else 0.0)
        for count in collections.Counter(captions).values()
    )
    return distinct / size


def draw(
    chart: Chart, curves: Sequence[dict[str, Any]], limit: float | None = None, colours: Colours = LIGHT
) -> str | None:
    """The chart as a data URI of an SVG picture, or None where the run measured none of its lines.

    Args:
      chart: what to draw.
      curves: lines of metrics.jsonl, {"step": int, measurement: number or None}; None (not a number) leaves a gap.
      limit: `first_guess_limit` of the run, drawn if the chart is `limited`.
      colours: of the page that it is for; the ground is transparent.
    """
    lines = [line for line in chart.lines if any(row.get(line.key) is not None for row in curves)]
    if not lines:
        return None

    def fill(axes: Axes) -> None:
        styles = ((colours.first, "-"), (colours.second, (0, (4, 1.5))))
        for line, (colour, dashes) in zip(lines, styles, strict=False):
            rows = [row for row in curves if line.key in row]
            values = [math.nan if row[line.key] is None else line.factor * row[line.key] for row in rows]
            axes.plot([row["step"] for row in rows], values, color=colour, linestyle=dashes, label=line.name)
        if chart.limited and limit is not None:
            label = f"most possible ({100 * limit:.0f} %)"
            axes.axhline(100 * limit, color=colours.ink, linewidth=1.0, linestyle=":", label=label)
        if len(axes.lines) > 1:
            axes.legend(frameon=False, loc="upper left", labelcolor=colours.ink, fontsize=8)
        axes.set_ylim(0, chart.top)

    return page_chart(fill, colours)
