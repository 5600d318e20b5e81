"""What is shown of each task, the headline first, and the same scores query by query."""

import collections
import dataclasses
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from harvest_jax.errors import DataError
from harvest_jax.evaluate.scores.ranking import Ranks, probability_within
from harvest_jax.terminal import printable


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score of a task.

    Attributes:
      name: for a reader.
      path: its place in a result's `metrics`.
      part: the queries that it is the mean of; "" if it is no mean over queries.
      how: what it is the mean of: "within": the probability that the right answer is within the first `k`, 0 where the
        video is missing; "value": the column `value`; "group": all four choices of a pair are right, a tie is wrong.
      k: see `how`.
      interval: whether tables show its interval.
      percent: whether it is a percentage; more is better then. Of the others (ranks, errors) less is better.
    """

    name: str
    path: tuple[str, ...]
    part: str = ""
    how: Literal["within", "value", "group"] = "within"
    k: int = 1
    interval: bool = False
    percent: bool = True


def _retrieval(part: str) -> tuple[Metric, ...]:
    recalls = [Metric(f"{part} R@{k}", (part, f"R@{k}"), part, k=k, interval=k == 1) for k in (1, 5, 10)]
    return (*recalls, Metric(f"{part} MedR", (part, "MedR"), percent=False))


# Task -> what is shown of it, in the order in which tasks are shown. The first is the headline.
METRICS: dict[str, tuple[Metric, ...]] = {
    "retrieval": (*_retrieval("t2v"), *_retrieval("v2t")),
    "multiple_choice": (Metric("accuracy", ("accuracy",), "choice", interval=True),),
    "clip_choice": (Metric("accuracy", ("accuracy",), "clip", interval=True),),
    "videoqa": (
        Metric("accuracy", ("acc_all",), "answer", interval=True),
        Metric("of answers in the list", ("acc_in_vocab",)),
    ),
    "counting": (
        Metric("MSE", ("MSE",), "count", "value", interval=True, percent=False),
        Metric("accuracy", ("accuracy",)),
    ),
    "zero_shot": (
        Metric("top-1", ("top1",), "class", interval=True),
        Metric("top-5", ("top5",), "class", k=5),
        Metric("mean of both", ("AVG",)),
        Metric("mean class top-1", ("mean_class_top1",)),
    ),
    "linear_probe": (
        Metric("top-1", ("top1",), "class", interval=True),
        Metric("top-5", ("top5",), "class", k=5),
        Metric("mean class top-1", ("mean_class_top1",)),
    ),
    "pairs": (
        Metric("group", ("group",), "pair", "group", interval=True),
        Metric("text", ("text",)),
        Metric("video", ("video",)),
    ),
    "reversal": (
        Metric("accuracy", ("accuracy",), "direction", interval=True),
        Metric("moved", ("moved",), percent=False),
    ),
}


@dataclasses.dataclass(frozen=True)
class QueryScores:
    """One metric, query by query, in the order of `keys`.

    Attributes:
      keys: what was asked: video, start, end, text, and which occurrence of the same question it is; sorted.
      values: the metric is their mean.
      clusters: number of the video of each query, by the sorted names of the videos.
    """

    keys: tuple[tuple[str, ...], ...]
    values: Float[np.ndarray, " queries"]
    clusters: Int[np.ndarray, " queries"]


def query_scores(table: pa.Table, metric: Metric) -> QueryScores:
    """The queries of a metric with their scores.

    Args:
      table: with `queries.SCHEMA`.
      metric: one with a `part`.

    Raises:
      DataError: the table has no such queries, or lacks what the metric is made of.
    """
    own = table.filter(pc.equal(table["part"], metric.part))
    if not own.num_rows:
        raise DataError(f"the table has no queries of {metric.part!r}")
    videos = own["video"].to_pylist()
    asked = zip(videos, own["start"].to_pylist(), own["end"].to_pylist(), own["text"].to_pylist(), strict=True)
    questions = [tuple("" if part is None else str(part) for part in one) for one in asked]
    values = _values(own, metric)
    if metric.how == "group":
        if len(questions) % 4:
            raise DataError("the queries of the pairs are not four for each")
        fours = [sorted(set(questions[start : start + 4])) for start in range(0, len(questions), 4)]
        videos = [four[0][0] for four in fours]
        questions = [tuple(part for one in four for part in one) for four in fours]
    occurred: collections.Counter[tuple[str, ...]] = collections.Counter()
    keys = []
    for question in questions:
        keys.append((*question, f"{occurred[question]:09d}"))
        occurred[question] += 1
    order = sorted(range(len(keys)), key=keys.__getitem__)
    number = {name: i for i, name in enumerate(sorted({str(video) for video in videos}))}
    clusters = np.array([number[str(videos[i])] for i in order], np.int64)
    return QueryScores(tuple(keys[i] for i in order), values[order], clusters)


def _values(own: pa.Table, metric: Metric) -> Float[np.ndarray, " queries"]:
    needed = ("value",) if metric.how == "value" else ("greater", "tied", "right", "missing")
    if any(own[name].null_count for name in needed):
        raise DataError(f"the table lacks the {' or '.join(needed)} of queries of {metric.part!r}")
    if metric.how == "value":
        return own["value"].to_numpy()
    ranks = Ranks(*(own[name].to_numpy().astype(np.int64) for name in ("greater", "tied", "right")))
    missing = np.array(own["missing"].to_pylist(), bool)
    if metric.how == "group":
        right = ~missing & (probability_within(ranks.pessimistic, 1) == 1)
        return 100.0 * right.reshape(-1, 4).all(axis=1) if len(right) % 4 == 0 else np.zeros(0)
    return np.where(missing, 0.0, 100 * probability_within(ranks, metric.k))


def differences(one: QueryScores, other: QueryScores, names: tuple[str, str]) -> QueryScores:
    """`other` minus `one`, query by query.

    Args:
      one, other: of the same metric.
      names: of the two, for the message.

    Raises:
      DataError: they were not asked the same.
    """
    if one.keys == other.keys:
        return QueryScores(one.keys, other.values - one.values, one.clusters)
    for here, there, (name, against) in ((one, other, names), (other, one, names[::-1])):
        only = sorted(set(here.keys) - set(there.keys))
        if only:
            video, *_, text, _ = only[0]
            first = printable(f"video {video}{f', {text!r}' if text else ''}", 160)
            raise DataError(
                f"{name} and {against} were not asked the same, so that they cannot be compared query by query: "
                f"{len(only):,} of the {len(here.keys):,} queries of {name} are not in {against}, the first: {first}"
            )
    raise DataError(f"{names[0]} and {names[1]} were not asked the same")
