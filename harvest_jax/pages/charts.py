"""Charts of HTML pages: small SVG pictures in the pages' colours, as values of `src` attributes."""

import base64
import io
from collections.abc import Callable
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure


class Colours(NamedTuple):
    """Colours on a light or a dark page: text, axis labels, grid, and the two lines."""

    ink: str
    faint: str
    grid: str
    first: str
    second: str


LIGHT = Colours("#1d2733", "#566472", "#dfe5eb", "#0f766e", "#b8500a")
DARK = Colours("#e6edf3", "#a3b1bf", "#2c3641", "#2dd4bf", "#fb9a4b")


def chart(fill: Callable[[Axes], None], colours: Colours, size: tuple[float, float] = (4.0, 2.6)) -> str:
    """A picture of values over the steps of a training, as a data URI; the ground is transparent.

    Args:
      fill: draws the lines, and sets limits of the vertical axis.
      colours: of the page that it is for.
      size: width and height in inches of 72 points.
    """
    # Text as paths looks the same on every machine. A fixed salt makes equal pictures of equal runs.
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "harvest", "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        fill(axes)
        axes.set_xlim(left=0)
        axes.set_xlabel("step", color=colours.faint)
        axes.grid(axis="y", color=colours.grid, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(which="both", colors=colours.faint, length=0)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(colours.grid)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
