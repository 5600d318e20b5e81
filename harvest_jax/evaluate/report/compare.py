"""`harvest results --compare`: the first result against each of the others, query by query."""

from collections.abc import Sequence

from harvest_jax.errors import DataError
from harvest_jax.evaluate.report.grids import METHOD, Cell, Grid, Report, change, checked_queries
from harvest_jax.evaluate.report.protocol_columns import differing
from harvest_jax.evaluate.report.query_scores import METRICS
from harvest_jax.evaluate.report.result_files import ResultFile
from harvest_jax.terminal import printable


def compare(results: Sequence[ResultFile], warnings: Sequence[str] = ()) -> Report:
    """For each score that is a mean over queries: how far each result is above the first, with its interval.

    The protocols may differ, for example in the number of frames, as long as the same was asked; the table says in what
    they differ.

    Args:
      results: the first is compared with the others.
      warnings: lines to show with the table.

    Raises:
      DataError: there is one result alone, the tasks differ, a result has no queries, or they were not asked the same.
    """
    if len(results) < 2:
        raise DataError(f"--compare needs two results, and {results[0].path} is the only one")
    first = results[0]
    other_task = next((one for one in results if one.task != first.task), None)
    if other_task is not None:
        raise DataError(f"{first.path} is of {first.task} and {other_task.path} of {other_task.task}: not comparable")
    if first.task not in METRICS:
        raise DataError(f"{first.path}: this program knows no task {printable(first.task, 40)!r}")
    metrics = [metric for metric in METRICS[first.task] if metric.part]
    base = [checked_queries(first, metric) for metric in metrics]
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    notes = [f"change from {first.path} ({first.model['name']})"]
    for other in results[1:]:
        names = (str(first.path), str(other.path))
        cells = [
            change(one, checked_queries(other, metric), names, metric)
            for metric, one in zip(metrics, base, strict=True)
        ]
        rows.append((printable(f"{other.path} ({other.model['name']})"), tuple(cells)))
        if first.protocol_hash != other.protocol_hash:
            here, there = differing([first.protocol, other.protocol])
            notes.append(f"protocols differ: {', '.join(there)} in {other.path}, {', '.join(here)} in {first.path}")
    heads = tuple((metric.name,) for metric in metrics)
    grid = Grid(printable(first.set_name), heads, tuple(rows), tuple(map(printable, notes)))
    return Report((grid,), (METHOD,), tuple(map(printable, warnings)))
