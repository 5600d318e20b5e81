"""The demo's page: one HTML file that needs no other file, for readers who do not know the method.

`write_report` takes the figures of report.json and the pictures. What follows from the figures (which motions are not
learned, which results are within the noise of chance) is computed here; the layout is in `templates/`.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Int, UInt8

from harvest_jax.demo.charts import CHARTS, DARK, LIGHT, draw
from harvest_jax.demo.clip_pictures import data_uri, highlight_kept, strip
from harvest_jax.files import write_atomically
from harvest_jax.pages.environment import page_environment

PATCH = 8  # pixels, of the demo's model
TEMPLATES = Path(__file__).parent / "templates"
FRAMES_A_PICTURE = 4  # of the clips with their kept patches, so that a phone shows the frames in two rows
# name in report.json -> explanation in the table, and whether more is better
_RETRIEVAL = {
    "R@1": ("the right one comes first", True),
    "R@5": ("the right one is in the first 5", True),
    "R@10": ("the right one is in the first 10", True),
    "MedR": ("median rank of the right one, 1 is best", False),
    "MnR": ("mean rank of the right one, 1 is best", False),
}
_STAGES = {  # name in report.json -> name on the page; others keep theirs
    "clips": "write the clips",
    "shards": "decode them into shards",
    "image_clip": "train the image model",
    "before": "evaluate the image model",
    "train": "train the video model",
    "after": "evaluate the video model",
    "cost": "time a step",
    "report": "draw this page",
}
_DIRECTIONS = {"t2v": "Find the clip that a caption describes", "v2t": "Find the caption that describes a clip"}


@dataclasses.dataclass(frozen=True)
class ShownClip:
    """A clip and the patches that one training step kept: positions in its grid of T x 8 x 8 patches."""

    caption: str
    frames: UInt8[np.ndarray, "t 64 64 3"]
    kept: Int[np.ndarray, " k"]


@dataclasses.dataclass(frozen=True)
class Hit:
    """A clip found for a query; `score` is the cosine, `right` whether its caption is the query."""

    caption: str
    frames: UInt8[np.ndarray, "t 64 64 3"]
    score: float
    right: bool


@dataclasses.dataclass(frozen=True)
class Query:
    """Words, and the clips that come first for them with the image model and with the video model."""

    text: str
    before: list[Hit]
    after: list[Hit]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Results of the choice between a motion and its reverse, in percent.

    Attributes:
      name: of the two motions.
      n: clips.
      before: right answers of the image model; None if they are not known.
      after: right answers of the video model.
      weak: less than halfway from chance to 100.
      noise: at most two standard errors of guessing above chance.
    """

    name: str
    n: int
    before: float | None
    after: float
    weak: bool
    noise: bool


def pairs(before: dict[str, Any], after: dict[str, Any]) -> list[Pair]:
    """Each pair of motions with its results, the worst last; from the `motion_choice` of report.json."""
    chance = float(after["chance"])
    rows = []
    for name, score in after["per_type"].items():
        accuracy, n = float(score["accuracy"]), int(score["n"])
        error = math.sqrt(chance * (100 - chance) / n)
        earlier = before["per_type"].get(name, {}).get("accuracy")
        weak, noise = accuracy < (chance + 100) / 2, accuracy <= chance + 2 * error
        rows.append(Pair(name, n, None if earlier is None else float(earlier), accuracy, weak, noise))
    return sorted(rows, key=lambda row: -row.after)


def write_report(
    path: Path,
    report: dict[str, Any],
    curves: list[dict[str, Any]],
    clips: list[ShownClip],
    queries: list[Query],
    image_stills: list[tuple[str, UInt8[np.ndarray, "64 64 3"]]],
) -> None:
    """Write the page; it appears whole or not at all.

    Args:
      path: of the HTML file.
      report: the content of report.json (`stages.run_demo`).
      curves: lines of metrics.jsonl.
      clips: examples of the generated clips.
      queries: examples.
      image_stills: captions and pictures like those that the image model was trained on.

    Raises:
      OSError: it cannot be written.
      KeyError, jinja2.UndefinedError: a figure is missing from `report`.
    """
    before, after = report["before"], report["after"]
    limit = report["first_guess_limit"]
    charts = [
        {
            "title": chart.title,
            "how_to_read": chart.how_to_read,
            "limited": chart.limited,
            "light": draw(chart, curves, limit, LIGHT),
            "dark": draw(chart, curves, limit, DARK),
        }
        for chart in CHARTS
    ]
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            retrieval=[
                _table(key, title, before["retrieval"], after["retrieval"]) for key, title in _DIRECTIONS.items()
            ],
            pairs=pairs(before["motion_choice"], after["motion_choice"]),
            clips=[_clip(clip) for clip in clips],
            stills=[{"caption": caption, "picture": data_uri(picture)} for caption, picture in image_stills],
            charts=[chart for chart in charts if chart["light"]],
            queries=[
                {
                    "text": query.text,
                    "sides": [("Before", _hits(query.before)), ("After", _hits(query.after))],
                }
                for query in queries
            ],
            less_arithmetic=report["step_flops"]["all"] / report["step_flops"]["kept"],
            speedup=report["step_ms"]["all"] / report["step_ms"]["kept"],
            stages=_stages(report["seconds"]),
        )
    )
    write_atomically(path, page.encode("utf-8"))


def _environment() -> jinja2.Environment:
    environment = page_environment(TEMPLATES)
    environment.filters |= {"number": format_number, "percent": percent, "change": change, "span": span}
    return environment


def format_number(value: float) -> str:
    """12.3, 100, 1,234: three digits, or whole numbers."""
    return f"{value:,.1f}" if abs(value) < 99.95 else f"{value:,.0f}"


def percent(value: float) -> str:
    """12.3 %, with a space at which no line breaks."""
    return format_number(value) + "\N{NO-BREAK SPACE}%"


def change(value: float) -> str:
    """+12.3, −4.5 or ±0."""
    sign = "±" if value == 0 else "+" if value > 0 else "\N{MINUS SIGN}"
    return sign + (format_number(abs(value)) if value else "0")


def span(seconds: float) -> str:
    """A time in words: 0.4 s, 12 s, 3 min 5 s."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{round(seconds) // 60} min {round(seconds) % 60} s"


def _table(key: str, title: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for name, (meaning, more_is_better) in _RETRIEVAL.items():
        old, new = float(before[key][name]), float(after[key][name])
        by = round(round(new, 1) - round(old, 1), 1)  # between the figures as shown
        tone = "" if by == 0 else "better" if (by > 0) == more_is_better else "worse"
        shown = percent if name.startswith("R@") else format_number
        rows.append(
            {"name": name, "meaning": meaning, "before": shown(old), "after": shown(new), "by": by, "tone": tone}
        )
    return {"title": title, "rows": rows, "queries": after[key].get("n_queries")}


def _clip(clip: ShownClip) -> dict[str, Any]:
    frames = highlight_kept(clip.frames, clip.kept, PATCH)
    parts = [frames[start : start + FRAMES_A_PICTURE] for start in range(0, len(frames), FRAMES_A_PICTURE)]
    return {
        "caption": clip.caption,
        "picture": data_uri(strip(clip.frames)),
        "kept": [data_uri(strip(part, gap=4)) for part in parts],
    }


def _hits(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    return [
        {"caption": hit.caption, "picture": data_uri(strip(hit.frames)), "score": hit.score, "right": hit.right}
        for hit in hits
    ]


def _stages(seconds: dict[str, float]) -> list[dict[str, Any]]:
    longest = max(seconds.values(), default=0.0) or 1.0
    return [
        {"name": _STAGES.get(name, name.replace("_", " ")), "seconds": value, "share": 100 * value / longest}
        for name, value in seconds.items()
    ]
