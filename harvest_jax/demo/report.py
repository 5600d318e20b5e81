"""The demo's page: one HTML file that needs no other file, for readers who do not know the method.

`write_report` takes the results of the evaluations, the other figures of report.json and the pictures. The tables are
those of `harvest results`. Which motions are not learned, and which results do not differ from chance, is said here;
the layout is in `templates/`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.compute as pc
from jaxtyping import Int, UInt8

from harvest_jax.demo.charts import CHARTS, DARK, LIGHT, draw
from harvest_jax.demo.clip_pictures import data_uri, highlight_kept, strip
from harvest_jax.demo.scoring import headline
from harvest_jax.errors import DataError
from harvest_jax.evaluate.report import page as results_page
from harvest_jax.evaluate.report.bootstrap import interval
from harvest_jax.evaluate.report.grids import Report, number
from harvest_jax.evaluate.report.query_scores import METRICS, query_scores
from harvest_jax.evaluate.report.result_files import ResultFile
from harvest_jax.files import write_atomically
from harvest_jax.pages.environment import page_environment

PATCH = 8  # pixels, of the demo's model
TEMPLATES = Path(__file__).parent / "templates"
FRAMES_A_PICTURE = 4  # of the clips with their kept patches, so that a phone shows the frames in two rows
ACCURACY = METRICS["multiple_choice"][0]
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
      before: right answers of the image model.
      after: right answers of the video model.
      weak: `after` is less than halfway from chance to 100.
      noise: chance is within the 95 % interval of `after`, or below it.
    """

    name: str
    n: int
    before: float
    after: float
    weak: bool
    noise: bool


def pairs(before: ResultFile, after: ResultFile) -> list[Pair]:
    """Each pair of motions with its results, the worst last.

    Args:
      before, after: multiple choice of the image model and of the video model, on the same set.

    Raises:
      DataError: the table of the queries of `after` cannot be used.
    """
    if after.queries is None:
        raise DataError(after.fault)
    chance = float(after.content["metrics"]["chance"])
    rows = []
    for name, score in after.content["metrics"]["per_type"].items():
        own = query_scores(after.queries.filter(pc.equal(after.queries["type"], name)), ACCURACY)
        ends = interval(own.values, own.clusters)
        earlier, accuracy = before.content["metrics"]["per_type"][name]["accuracy"], score["accuracy"]
        noise = ends is None or ends[0] <= chance
        rows.append(Pair(name, score["n"], earlier, accuracy, accuracy < (chance + 100) / 2, noise))
    return sorted(rows, key=lambda row: -row.after)


def write_report(
    path: Path,
    report: dict[str, Any],
    tables: Report,
    before: Mapping[str, ResultFile],
    after: Mapping[str, ResultFile],
    curves: list[dict[str, Any]],
    clips: list[ShownClip],
    queries: list[Query],
    image_stills: list[tuple[str, UInt8[np.ndarray, "64 64 3"]]],
) -> None:
    """Write the page; it appears whole or not at all.

    Args:
      path: of the HTML file.
      report: the content of report.json (`stages.run_demo`).
      tables: of all results.
      before: task -> result of the image model (`scoring.score`).
      after: task -> result of the video model.
      curves: lines of metrics.jsonl.
      clips: examples of the generated clips.
      queries: examples.
      image_stills: captions and pictures like those that the image model was trained on.

    Raises:
      DataError: the table of the queries of a result cannot be used.
      OSError: it cannot be written.
      KeyError, jinja2.UndefinedError: a figure is missing from `report`.
    """
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
            tables=tables,
            choice={
                "before": before["multiple_choice"].content["metrics"],
                "after": after["multiple_choice"].content["metrics"],
            },
            headlines={task: (headline(before[task]), headline(after[task])) for task in after},
            pairs=pairs(before["multiple_choice"], after["multiple_choice"]),
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
            attention_speedup=report["attention_ms"]["all"] / report["attention_ms"]["kept"],
            fewer_scores=((1 + report["tokens"]["all"]) / (1 + report["tokens"]["kept"])) ** 2,
            stages=_stages(report["seconds"]),
        )
    )
    write_atomically(path, page.encode("utf-8"))


def _environment() -> jinja2.Environment:
    environment = page_environment(TEMPLATES, results_page.TEMPLATES)
    environment.filters |= {"percent": percent, "span": span}
    return environment


def percent(value: float) -> str:
    """12.3 %, as `harvest results` shows it, with a space at which no line breaks."""
    return number(value, ACCURACY) + "\N{NO-BREAK SPACE}%"


def span(seconds: float) -> str:
    """A time in words: 0.4 s, 12 s, 3 min 5 s."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{round(seconds) // 60} min {round(seconds) % 60} s"


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
