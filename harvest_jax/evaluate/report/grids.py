"""Results as tables of text: an overview of the headlines, and a table for each protocol."""

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.evaluate.report.bootstrap import RESAMPLES, SEED, interval
from harvest_jax.evaluate.report.means import NOTE_HALVES, NOTE_SPLITS, OTHER_HALVES, MeanColumn, mean_columns, mean_of
from harvest_jax.evaluate.report.model_rows import ModelRow, model_rows
from harvest_jax.evaluate.report.protocol_columns import ProtocolColumn, protocol_columns
from harvest_jax.evaluate.report.query_scores import METRICS, Metric, QueryScores, differences, query_scores
from harvest_jax.evaluate.report.result_files import ResultFile
from harvest_jax.terminal import printable

METHOD = (
    f"In brackets: 95 % interval, percentile bootstrap over videos ({RESAMPLES:,} resamples, seed {SEED}), each video "
    "with all its queries. It says how far a score depends on which videos were asked, not on the training."
)
SEEDS = "± is the sample standard deviation over n runs of one configuration, with or without another seed."
_AGREES = 1e-6  # between a score and the mean of its queries, relative


@dataclasses.dataclass(frozen=True)
class Cell:
    """A score: its text, the interval, and "better" or "worse" where it is a change whose interval excludes 0."""

    text: str = ""
    detail: str = ""
    tone: str = ""


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table: the lines of each column's head, and the rows with their labels."""

    title: str
    heads: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Report:
    """What is shown: tables, how to read them, and what was left out."""

    grids: tuple[Grid, ...]
    method: tuple[str, ...]
    warnings: tuple[str, ...]


def report(results: Sequence[ResultFile], warnings: Sequence[str] = ()) -> Report:
    """The tables of results: an overview if there are several protocols, then one table for each.

    Results of the same weights and protocol count once: the one with the fewest missing videos, then the newest.

    Args:
      results: at least one.
      warnings: lines to show besides the report's own.

    Raises:
      DataError: none of them is of a task that this program knows.
    """
    said = list(warnings)
    used = _once(results, said)
    said += [result.fault for result in used.values() if result.fault]
    rows, columns = model_rows(list(used.values())), protocol_columns(list(used.values()))
    table = {(row, column): _of(row, column, used) for row in rows for column in columns}
    grids = [_overview(rows, columns, table, used, said)] if len(columns) > 1 else []
    grids += [_details(rows, column, table, said) for column in columns]
    several = any(len(own) > 1 for own in table.values())
    return Report(tuple(grids), (METHOD, SEEDS) if several else (METHOD,), tuple(dict.fromkeys(map(printable, said))))


def _once(results: Sequence[ResultFile], said: list[str]) -> dict[tuple[str, str], ResultFile]:
    """(weights, protocol_hash) -> the result that counts; results without a score that is known are left out.

    Raises:
      DataError: none is left.
    """
    used: dict[tuple[str, str], ResultFile] = {}
    for result in results:
        if result.task not in METRICS:
            said.append(f"{result.path} left out: this program knows no task {printable(result.task, 40)!r}")
            continue
        if result.number(METRICS[result.task][0].path) is None:
            said.append(f"{result.path} left out: it has no score {'.'.join(METRICS[result.task][0].path)}")
            continue
        key = (result.weights, result.protocol_hash)
        before = used.get(key)
        if before is None:
            used[key] = result
            continue
        used[key] = min(before, result, key=_rank)
        other = result if used[key] is before else before
        if result.content["metrics"] != before.content["metrics"]:
            said.append(
                f"{other.path} not used: {used[key].path} is of the same model and protocol and has "
                f"{'fewer missing videos' if _rank(other)[0] != _rank(used[key])[0] else 'other scores, and is newer'}"
            )
    if not used:
        raise DataError(f"no result that can be shown: {'; '.join(said)[:400]}")
    return used


def _rank(result: ResultFile) -> tuple[int, tuple[int, ...]]:
    # dates are ISO 8601 in UTC, so that later ones are larger as text
    return int(result.content["n_missing"]), tuple(
        -ord(letter) for letter in str(result.content["run"].get("date", ""))
    )


def _of(row: ModelRow, column: ProtocolColumn, used: dict[tuple[str, str], ResultFile]) -> list[ResultFile]:
    found = [used[weights, column.protocol_hash] for weights in row.weights if (weights, column.protocol_hash) in used]
    if row.average_of_frames:
        return [result for result in found if "frame_average" in result.content["metrics"]]
    return found


def _overview(
    rows: Sequence[ModelRow],
    columns: Sequence[ProtocolColumn],
    table: dict[tuple[ModelRow, ProtocolColumn], list[ResultFile]],
    used: dict[tuple[str, str], ResultFile],
    said: list[str],
) -> Grid:
    means = mean_columns(list(used.values()))
    halves = {one for mean in means if mean.over == "halves" for one in mean.members}
    columns = [column for column in columns if column.protocol_hash not in halves]  # often ten, shown as their mean
    shown: list[ProtocolColumn | MeanColumn] = [*columns, *means]
    heads = tuple((column.title, METRICS[column.task][0].name, *column.differs) for column in shown)
    body = []
    for row in rows:
        cells = []
        for column in columns:
            own = table[row, column]
            cells.append(_marked(score(row, own, METRICS[column.task][0], said)[0], own))
        cells += [_mean_cell(row, mean, used) for mean in means]
        body.append((row.label, tuple(cells)))
    several = ", or a mean over several" if means else ""
    notes = [f"The first score of each protocol; each column is one protocol{several}."]
    notes += [NOTE_SPLITS] if any(mean.over == "splits" for mean in means) else []
    notes += [NOTE_HALVES] if halves else []
    for mean in means:
        drawn = {found.members for row in rows if (found := mean_of(mean, row.weights, used))}
        if mean.over == "halves" and len(drawn) > 1:
            said.append(f"{mean.title}: {OTHER_HALVES}")
    if any(cell.text.endswith("*") for _, cells in body for cell in cells):
        notes.append("* has warnings: see the table of its protocol (harvest results).")
    return Grid("Overview", heads, tuple(body), tuple(notes))


def _marked(cell: Cell, results: Sequence[ResultFile]) -> Cell:
    return dataclasses.replace(cell, text=f"{cell.text} *") if cell.text and _warnings(results) else cell


def _mean_cell(row: ModelRow, column: MeanColumn, used: dict[tuple[str, str], ResultFile]) -> Cell:
    found = None if row.average_of_frames else mean_of(column, row.weights, used)
    if found is None:
        return Cell()
    metric = METRICS[column.task][0]
    spread = "" if found.spread is None else f" ± {number(found.spread, metric)}"
    count = f" (n={found.n})" if spread or column.over == "halves" else ""
    own = [used[weights, one] for weights in row.weights for one in found.members if (weights, one) in used]
    return _marked(Cell(f"{number(found.value, metric)}{spread}{count}"), own)


def _details(
    rows: Sequence[ModelRow],
    column: ProtocolColumn,
    table: dict[tuple[ModelRow, ProtocolColumn], list[ResultFile]],
    said: list[str],
) -> Grid:
    shown = [(row, table[row, column]) for row in rows if table[row, column]]
    metrics = METRICS[column.task]
    metrics = tuple(m for m in metrics if any(r.number(_path(row, m)) is not None for row, own in shown for r in own))
    cells: list[list[Cell]] = []
    scores: list[QueryScores | None] = []
    for row, own in shown:
        found = [score(row, own, metric, said) for metric in metrics]
        cells.append([cell for cell, _ in found])
        scores.append(found[0][1])
    heads = [(metric.name,) for metric in metrics]
    notes = [f"protocol {column.protocol_hash[:12]}, task {column.task}"]
    reference = next((place for place, own in enumerate(scores) if own is not None), None)
    if reference is not None and sum(own is not None for own in scores) > 1:
        heads.insert(1, ("change",))
        base = shown[reference][0].label
        for place, (row, _) in enumerate(shown):
            cells[place].insert(1, _change(reference, place, scores, (base, row.label), metrics[0], said))
        notes.append(f"change: of {metrics[0].name} from {base}, compared query by query")
    notes += [
        f"{row.label}: {printable(text)}" for row, own in shown for text in dict.fromkeys(_warnings(own))
        if not row.average_of_frames
    ]  # fmt: skip
    body = tuple((row.label, tuple(own)) for (row, _), own in zip(shown, cells, strict=True))
    title = ", ".join([column.title, *column.differs])
    return Grid(title, tuple(heads), body, tuple(notes))


def _warnings(results: Sequence[ResultFile]) -> list[str]:
    return [text for result in results for text in result.warnings]


def _path(row: ModelRow, metric: Metric) -> tuple[str, ...]:
    return ("frame_average", *metric.path) if row.average_of_frames else metric.path


def score(
    row: ModelRow, results: Sequence[ResultFile], metric: Metric, said: list[str]
) -> tuple[Cell, QueryScores | None]:
    """The cell of a metric, and its scores query by query (the mean over the runs) where they are known.

    Args:
      row: the model.
      results: of its runs, by one protocol; may be empty.
      metric: of the task.
      said: lines about what is wrong with a result are added to it.
    """
    values = [value for value in (result.number(_path(row, metric)) for result in results) if value is not None]
    if not values:
        return Cell(), None
    text = number(statistics.fmean(values), metric)
    if len(values) > 1:
        text += f" ± {number(statistics.stdev(values), metric)}"
    if max(len(values), len(row.weights)) > 1 and (metric.interval or len(values) != len(row.weights)):
        text += f" (n={len(values)})"
    own = _mean_queries(results, metric, said) if metric.interval and not row.average_of_frames else None
    ends = None if own is None else interval(own.values, own.clusters)
    return Cell(text, "" if ends is None else f"[{number(ends[0], metric)}, {number(ends[1], metric)}]"), own


def _mean_queries(results: Sequence[ResultFile], metric: Metric, said: list[str]) -> QueryScores | None:
    """Each query's mean over the runs; None if a run has no queries of this metric."""
    if any(result.queries is None for result in results):
        return None
    try:
        runs = [checked_queries(result, metric) for result in results]
        mean = np.zeros_like(runs[0].values)
        for result, run in zip(results, runs, strict=True):
            names = (str(results[0].path), str(result.path))
            mean += runs[0].values + differences(runs[0], run, names).values
        return QueryScores(runs[0].keys, mean / len(runs), runs[0].clusters)
    except DataError as error:
        said.append(f"no interval of {metric.name}: {error}")
        return None


def checked_queries(result: ResultFile, metric: Metric) -> QueryScores:
    """The queries of a result's metric.

    Raises:
      DataError: there are none, or their mean is not the result's score.
    """
    if result.queries is None:
        raise DataError(result.fault)
    own = query_scores(result.queries, metric)
    told, mean = result.number(metric.path), float(own.values.mean())
    if told is None or abs(told - mean) > _AGREES * max(1.0, abs(mean)):
        raise DataError(f"{result.path}: the mean over the queries is {mean:g}, but {metric.name} is {told}")
    return own


def _change(
    reference: int,
    row: int,
    scores: Sequence[QueryScores | None],
    names: tuple[str, str],
    metric: Metric,
    said: list[str],
) -> Cell:
    one, other = scores[reference], scores[row]
    if row == reference or one is None or other is None:
        return Cell()
    try:
        return change(one, other, names, metric)
    except DataError as error:
        said.append(str(error))
        return Cell()


def change(one: QueryScores, other: QueryScores, names: tuple[str, str], metric: Metric) -> Cell:
    """How much `other` is above `one`, with the interval of the paired bootstrap.

    Raises:
      DataError: they were not asked the same.
    """
    apart = differences(one, other, names)
    mean, ends = float(apart.values.mean()), interval(apart.values, apart.clusters)
    if ends is None:
        return Cell(signed(mean, metric))
    above, below = ends[0] > 0, ends[1] < 0
    tone = "" if not (above or below) else "better" if above == metric.percent else "worse"
    return Cell(signed(mean, metric), f"[{signed(ends[0], metric)}, {signed(ends[1], metric)}]", tone)


def number(value: float, metric: Metric) -> str:
    """One digit after the point of a percentage, two of others."""
    return f"{value:,.1f}" if metric.percent else f"{value:,.2f}"


def signed(value: float, metric: Metric) -> str:
    """As `number`, with its sign; what rounds to 0 has none."""
    text = number(abs(value), metric)
    sign = "" if not text.strip("0.,") else "+" if value > 0 else "\N{MINUS SIGN}"
    return f"{sign}{text}"
