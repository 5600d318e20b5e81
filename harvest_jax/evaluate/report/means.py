"""Means over several protocols that papers report as one score: all splits of a dataset, random halves of its classes.

Each protocol keeps its own table; a mean is another score, of protocols that are equal in everything else.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from harvest_jax.evaluate.benchmarks.named import all_benchmarks
from harvest_jax.evaluate.report.protocol_columns import differing
from harvest_jax.evaluate.report.query_scores import METRICS
from harvest_jax.evaluate.report.result_files import ResultFile
from harvest_jax.evaluate.result.protocol import digest
from harvest_jax.terminal import printable

NOTE_SPLITS = "mean of splits: the mean of the scores of all splits, for models that were scored on each."
NOTE_HALVES = "mean of halves: mean ± sample standard deviation over n random halves of the classes."
OTHER_HALVES = "models were scored on other halves of the classes: their means of halves do not compare"


@dataclasses.dataclass(frozen=True)
class MeanColumn:
    """Protocols that differ only in the split, or in the half of the classes.

    Attributes:
      title: for a reader.
      task: of `METRICS`.
      over: what they differ in.
      members: their hashes.
      differs: the fields in which it differs from other means of the same title, with its own values.
    """

    title: str
    task: str
    over: Literal["splits", "halves"]
    members: tuple[str, ...]
    differs: tuple[str, ...] = ()

    def values(self, weights: str, used: Mapping[tuple[str, str], ResultFile]) -> dict[str, float]:
        """The headline of a model by protocol; empty if a split is missing."""
        results = {one: used[weights, one] for one in self.members if (weights, one) in used}
        if self.over == "splits" and len(results) < len(self.members):
            return {}
        found = {one: result.number(METRICS[self.task][0].path) for one, result in results.items()}
        return {one: value for one, value in found.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over protocols: its value, the spread if there is one, of how many, and which protocols were there."""

    value: float
    spread: float | None
    n: int
    members: frozenset[str]


def mean_columns(results: Sequence[ResultFile]) -> list[MeanColumn]:
    """The means that can be made: of splits if all are there, of halves of the classes if there are two or more."""
    of_family: dict[str, dict[str, ResultFile]] = {}
    base: dict[str, tuple[Literal["splits", "halves"], str, dict[str, Any]]] = {}
    for result in results:
        family = _family(result)
        if family is not None:
            key = digest(family)
            base[key] = family
            of_family.setdefault(key, {}).setdefault(result.protocol_hash, result)
    columns: list[tuple[MeanColumn, dict[str, Any]]] = []
    for key, members in of_family.items():
        over, title, protocol = base[key]
        names = {str(result.protocol["data"].get("name")) for result in members.values()}
        complete = names == _splits(title) if over == "splits" else len(members) > 1
        if complete:
            # of splits each is there once: their protocols differ in nothing else
            shown = f"{title} (mean of {len(members)} {over})"
            task = next(iter(members.values())).task
            columns.append((MeanColumn(shown, task, over, tuple(members)), protocol))
    told = []
    for column, _ in columns:
        alike = [(one, protocol) for one, protocol in columns if (one.title, one.task) == (column.title, column.task)]
        differs = differing([protocol for _, protocol in alike])[[one for one, _ in alike].index(column)]
        told.append(dataclasses.replace(column, differs=differs))
    return sorted(told, key=lambda column: (list(METRICS).index(column.task), column.title, column.differs))


def mean_of(column: MeanColumn, weights: Sequence[str], used: Mapping[tuple[str, str], ResultFile]) -> Mean | None:
    """The mean for a model, or for several runs of one configuration; None if it has none.

    Of splits: the mean over the runs, and their spread. Of halves: each half's mean over the runs, and the spread over
    the halves.
    """
    runs = [found for one in weights if (found := column.values(one, used))]
    if not runs:
        return None
    members = frozenset(one for run in runs for one in run)
    if column.over == "splits":
        values = [statistics.fmean(run.values()) for run in runs]
    else:
        values = [statistics.fmean(run[one] for run in runs if one in run) for one in sorted(members)]
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Mean(statistics.fmean(values), spread, len(values), members)


def _family(result: ResultFile) -> tuple[Literal["splits", "halves"], str, dict[str, Any]] | None:
    """What a result is a part of, its name, and what the protocols of all parts have in common."""
    protocol = result.protocol
    data, source = protocol.get("data"), protocol.get("frame_source")
    if not isinstance(data, dict) or not isinstance(source, dict):
        return None
    common = {**protocol, "data": {name: value for name, value in data.items() if name != "sha256"}}
    if "half_of_classes" in protocol:
        common = {name: value for name, value in common.items() if name not in ("half_of_classes", "classes_sha256")}
        # what a manifest is called is not in its protocol
        return "halves", printable(result.set_name, 60), common
    benchmark = all_benchmarks().get(str(data.get("name")))
    if benchmark is None or not benchmark.split_of:
        return None
    common["data"] = {name: value for name, value in data.items() if name not in ("sha256", "name", "clips")}
    common["frame_source"] = {name: value for name, value in source.items() if name != "frames_sha256"}
    return "splits", benchmark.split_of, common


def _splits(dataset: str) -> set[str]:
    return {name for name, benchmark in all_benchmarks().items() if benchmark.split_of == dataset}
