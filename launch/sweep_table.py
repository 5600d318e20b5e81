"""What a sweep found: one table of all runs, one with the seeds of equal values as mean and spread, and a plot."""

import contextlib
import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harvest_jax.evaluate.report.query_scores import METRICS
from harvest_jax.files import write_atomically

from .sweep_runs import Evaluation, Run

COSTS = ("step_ms", "clips_per_s")  # medians over the lines of metrics.jsonl
Row = dict[str, Any]


def rows_of(runs: Sequence[Run], evaluations: Sequence[Evaluation]) -> list[Row]:
    """One row for each run: folder, what the sweep set, scores ("NAME METRIC"), costs; what is not there is absent.

    "complete": it was trained to the end; "scored": and every evaluation has its result, of this very model.
    """
    rows = []
    for run in runs:
        scorings = {evaluation.name: evaluation.of(run) for evaluation in evaluations}
        current = [name for name, scoring in scorings.items() if scoring.current]
        scored = run.complete and len(current) == len(scorings)
        row: Row = {"run": run.workdir.name, "complete": run.complete, "scored": scored, **run.values}
        for name in current:
            scores = _scores(scorings[name].out)
            row |= {f"{name} {metric}": value for metric, value in scores.items()}
        rows.append(row | _costs(run.workdir / "metrics.jsonl"))
    return rows


def _scores(path: Path) -> dict[str, float]:
    """The percentages of a result, the headline first, and those of each type of question."""
    try:
        result = json.loads(path.read_bytes())
        task, metrics = result["task"], result["metrics"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    found: dict[str, float] = {}
    for metric in METRICS.get(task, ()):
        value: Any = metrics
        for key in metric.path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, int | float):
            found[metric.name] = float(value)
    for name, value in metrics.get("per_type", {}).items():
        score = value.get("accuracy") if isinstance(value, Mapping) else value
        if isinstance(score, int | float):
            found[f"type {name}"] = float(score)
    return found


def _costs(path: Path) -> dict[str, float]:
    """Medians; a line that a kill cut short is passed over."""
    lines = []
    with contextlib.suppress(OSError):
        for text in path.read_text("utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(text))
    lines = [line for line in lines if isinstance(line, dict)]
    found = {key: [line[key] for line in lines if isinstance(line.get(key), int | float)] for key in COSTS}
    return {key: statistics.median(values) for key, values in found.items() if values}


def grouped(rows: Sequence[Row], swept: Sequence[str]) -> list[tuple[Row, list[Row]]]:
    """The complete runs that differ in nothing but `seed`: (what they share, their rows), in the order of the runs."""
    keys = [field for field in swept if field != "seed"]
    groups: dict[str, tuple[Row, list[Row]]] = {}
    for row in rows:
        if row["complete"]:
            shared = {field: row[field] for field in keys if field in row}
            groups.setdefault(repr(sorted(shared.items())), (shared, []))[1].append(row)
    return list(groups.values())


def _measured(rows: Sequence[Row], swept: Sequence[str]) -> list[str]:
    """The columns with scores and costs, in the order in which they come."""
    fixed = {"run", "complete", "scored", *swept}
    return list(dict.fromkeys(column for row in rows for column in row if column not in fixed))


def as_csv(rows: Sequence[Row], swept: Sequence[str]) -> str:
    """All runs."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["run", "complete", "scored", *swept, *_measured(rows, swept)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_markdown(rows: Sequence[Row], swept: Sequence[str]) -> str:
    """One line for each set of values: mean over its seeds, and their standard deviation where there are several."""
    groups = grouped(rows, swept)
    fields, columns = [field for field in swept if field != "seed"], _measured(rows, swept)
    lines = [
        "| " + " | ".join([*(field.rpartition(".")[2] for field in fields), "seeds", *columns]) + " |",
        "|" + "---|" * (len(fields) + 1 + len(columns)),
    ]
    for shared, members in groups:
        cells = [str(shared.get(field, "")) for field in fields] + [str(len(members))]
        for column in columns:
            values = [row[column] for row in members if column in row]
            cells.append(_mean(values))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    unfinished = sum(not row["complete"] for row in rows)
    unscored = sum(row["complete"] and not row["scored"] for row in rows)
    note = f"\n{unfinished} of {len(rows)} runs are not complete.\n" if unfinished else ""
    note += f"\n{unscored} of {len(rows)} runs are trained, but not scored in full.\n" if unscored else ""
    return "\n".join(lines) + "\n" + note


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = statistics.fmean(values)
    digits = 1 if abs(mean) >= 1 else 3
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{spread}"


def plot(rows: Sequence[Row], swept: Sequence[str], columns: Sequence[str]) -> bytes | None:
    """The scores over the swept values: SVG; None where there is nothing to draw.

    The values are those of the first field that alone tells the settings apart, or of all fields together. Points are
    means over seeds, bars their standard deviations. Numbers are drawn to scale, words side by side.
    """
    groups = grouped(rows, swept)
    fields = [field for field in swept if field != "seed" and len({str(shared.get(field)) for shared, _ in groups}) > 1]
    columns = [column for column in columns if any(column in row for _, members in groups for row in members)]
    if not fields or not columns:
        return None
    import matplotlib
    from matplotlib.figure import Figure

    alone = (field for field in fields if len({str(shared.get(field)) for shared, _ in groups}) == len(groups))
    one = next(alone, None)
    if one is None:
        values: list[Any] = [", ".join(str(shared.get(field)) for field in fields) for shared, _ in groups]
    else:
        values = [shared.get(one) for shared, _ in groups]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    labels = list(dict.fromkeys(map(str, values)))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "harvest", "font.size": 9}):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.subplots()
        for column in columns:
            points: list[tuple[float, float, float]] = []
            for (_, members), value in zip(groups, values, strict=True):
                found = [row[column] for row in members if column in row]
                if found:
                    spread = statistics.stdev(found) if len(found) > 1 else 0.0
                    place = float(value) if numbers and value is not None else labels.index(str(value))
                    points.append((place, statistics.fmean(found), spread))
            x, y, spread = zip(*sorted(points), strict=True)
            axes.errorbar(x, y, spread, marker="o", markersize=4, capsize=3, label=column)
        if not numbers:
            axes.set_xticks(range(len(labels)), labels)
        axes.set_xlabel(one or ", ".join(fields))
        axes.set_ylabel("%")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def write_results(root: Path, runs: Sequence[Run], evaluations: Sequence[Evaluation]) -> str:
    """Write `results.csv`, `results.md` and `results.svg` into the sweep's folder; returns the Markdown table."""
    swept = list(dict.fromkeys(field for run in runs for field in run.values))
    rows = rows_of(runs, evaluations)
    table = as_markdown(rows, swept)
    write_atomically(root / "results.csv", as_csv(rows, swept).encode())
    write_atomically(root / "results.md", table.encode())
    headlines = []
    for evaluation in evaluations:
        measured = [column for column in _measured(rows, swept) if column.startswith(f"{evaluation.name} ")]
        headlines += measured[:1]
    picture = plot(rows, swept, headlines)
    if picture is not None:
        write_atomically(root / "results.svg", picture)
    return table
