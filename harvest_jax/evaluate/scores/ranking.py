"""Ranks of the right answers among all answers, and retrieval scores from them, exact where scores tie.

With tied scores the rank depends on how a program sorts: for one similarity matrix in bfloat16, published evaluation
programs report between 16 and 36 % R@1. Here a rank is an interval. Every score is the exact expectation over a random
order of the tied answers; the scores of the best and the worst order are reported too. Ranks start at 1. R@k is a
percentage (0 to 100) and is not rounded.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from harvest_jax.errors import DataError, NonFiniteError
from harvest_jax.evaluate.scores import tied_median
from harvest_jax.evaluate.scores.cosines import TILE, spans, unit_cosines

RECALLS = (1, 5, 10)


@dataclasses.dataclass(frozen=True)
class Ranks:
    """One entry for each query.

    Attributes:
      greater: number of wrong answers with a higher score than the best right answer.
      tied: number of wrong answers with exactly the score of the best right answer.
      right: number of right answers with that score (1, unless the query has several right answers).
      lost: queries that count as wrong, because their video could not be read; None: none. They have the last rank, and
        no share in R@k even where k reaches to the last.
    """

    greater: Int[np.ndarray, " queries"]
    tied: Int[np.ndarray, " queries"]
    right: Int[np.ndarray, " queries"]
    lost: Bool[np.ndarray, " queries"] | None = None

    def __len__(self) -> int:
        return len(self.greater)

    @property
    def optimistic(self) -> "Ranks":
        """The ranks if every tie is broken in favour of the right answer."""
        return Ranks(self.greater, np.zeros_like(self.tied), np.ones_like(self.right), self.lost)

    @property
    def pessimistic(self) -> "Ranks":
        """The ranks if every tie is broken against the right answer."""
        return Ranks(self.greater + self.tied, np.zeros_like(self.tied), np.ones_like(self.right), self.lost)

    def with_lost(self, lost: Bool[np.ndarray, " queries"], before: Int[np.ndarray, " queries"] | int) -> "Ranks":
        """The same with `before` answers, and no tie, before the first right answer of the `lost` queries.

        Args:
          lost: see `Ranks.lost`.
          before: of each query.
        """
        greater, tied = np.where(lost, before, self.greater), np.where(lost, 0, self.tied)
        return Ranks(greater, tied, np.where(lost, 1, self.right), lost)


class Counter:
    """Counts the answers that rank before the best right answer of each query, and those that tie with it.

    Scores come block by block, so that the whole matrix is never needed.
    """

    def __init__(
        self,
        queries: int,
        query: Int[np.ndarray, " pairs"],
        score: Float[np.ndarray, " pairs"],
        tolerance: float = 0.0,
    ):
        """Without answers yet.

        Args:
          queries: their number.
          query: of each pair of a query and a right answer.
          score: of each pair, exactly as it stands in the blocks.
          tolerance: scores no further from the best right one than this tie with it.
        """
        self._tolerance = tolerance
        self.best = np.full(queries, -np.inf, score.dtype)
        np.maximum.at(self.best, query, score)
        ties = self._tied(score, self.best[query])
        self.right = np.bincount(query, weights=ties, minlength=queries).astype(np.int64)
        self.greater, self.equal = np.zeros(queries, np.int64), np.zeros(queries, np.int64)

    def add(
        self,
        scores: Float[np.ndarray, "some_queries some_answers"],
        queries: slice | Int[np.ndarray, " some_queries"] = slice(None),
    ) -> None:
        """Scores of some answers, for some of the queries."""
        best = self.best[queries, None]
        tied = self._tied(scores, best)
        above = scores > best
        self.greater[queries] += np.sum(above & ~tied if self._tolerance else above, axis=1)
        self.equal[queries] += np.sum(tied, axis=1)

    def _tied(self, scores: Float[np.ndarray, "*n"], best: Float[np.ndarray, "*m"]) -> Bool[np.ndarray, "*n"]:
        return np.abs(scores - best) <= self._tolerance if self._tolerance else scores == best

    def ranks(self) -> Ranks:
        """The ranks among all answers so far; those of a query without a right answer mean nothing."""
        return Ranks(self.greater, self.equal - self.right, self.right)


def similarity(
    video: Float[np.ndarray, "videos width"], text: Float[np.ndarray, "texts width"]
) -> Float32[np.ndarray, "videos texts"]:
    """Cosine of every pair; embeddings may have any norm except zero.

    Products are summed in float64 and rounded once, so equal embeddings give equal cosines in every row and column:
    `cosines` says how.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
    """
    source = unit_cosines(video, text)
    result = np.empty(source.shape, np.float32)
    for rows in spans(len(video), TILE[0]):
        for columns in spans(len(text), TILE[1]):
            result[rows, columns] = source.block(rows, columns)
    return result


def row_similarity(
    one: Float[np.ndarray, "rows width"], other: Float[np.ndarray, "rows width"]
) -> Float32[np.ndarray, " rows"]:
    """Cosine of each row with the row of the same number, equal to that of `similarity`."""
    numbers = np.arange(len(one))
    return unit_cosines(one, other).pairs(numbers, numbers)


def captions_of_each(owner: Int[np.ndarray, " captions"], videos: int) -> Int[np.ndarray, " videos"]:
    """The number of captions of each video.

    Raises:
      DataError: a video has none.
    """
    count = np.bincount(owner, minlength=videos)
    if not count.all():
        raise DataError(f"video number {int(np.argmin(count))} has no caption: retrieval needs one for each video")
    return count


def choice(
    scores: Float[np.ndarray, "queries options"],
    answer: Int[np.ndarray, " queries"],
    missing: Bool[np.ndarray, " queries"] | None = None,
) -> Ranks:
    """Every query has its own options, the same number of them, and one of them is right.

    Args:
      scores: higher is likelier; rows of missing queries are ignored.
      answer: the right option's column.
      missing: queries whose video could not be read; they have the last rank.

    Raises:
      DataError: a number in `answer` is not a column of `scores`.
      NonFiniteError: a score is not finite.
    """
    missing = np.zeros(len(scores), bool) if missing is None else missing
    if len(answer) and not 0 <= answer.min() <= answer.max() < scores.shape[1]:
        raise DataError(f"an answer is outside 0..{scores.shape[1] - 1}, the numbers of the options")
    require_finite(scores[~missing])
    right = np.take_along_axis(scores, answer[:, None], axis=1)
    greater = np.where(missing, scores.shape[1] - 1, np.sum(scores > right, axis=1))
    tied = np.where(missing, 0, np.sum(scores == right, axis=1) - 1)
    return Ranks(greater, tied, np.ones(len(scores), np.int64))


def check_owner(owner: Int[np.ndarray, " captions"], videos: int) -> None:
    """Raises DataError: there is no caption, or one belongs to a video that does not exist."""
    if not len(owner):
        raise DataError("no captions: there is nothing to retrieve with")
    if not 0 <= owner.min() <= owner.max() < videos:
        raise DataError(f"captions belong to video numbers {owner.min()}..{owner.max()}, of {videos} videos")


def require_finite(scores: Float[np.ndarray, "rows columns"]) -> None:
    """Raises NonFiniteError: a score is not finite."""
    bad = int(np.size(scores) - np.count_nonzero(np.isfinite(scores)))
    if bad:  # no number is greater than NaN: a matrix of NaN would score 100 %
        raise NonFiniteError(
            f"{bad} of {scores.size} scores are not finite: the model's weights are damaged or its training diverged"
        )


def probability_within(ranks: Ranks, k: int) -> Float[np.ndarray, " queries"]:
    """Probability that a right answer is among the first `k` if all orders of the tied answers are equally likely.

    In a random order of `tied` wrong and `right` right answers, the first j are all wrong with probability
    C(tied + right - j, right) / C(tied + right, right), the tail of the negative hypergeometric distribution. For
    right = 1 it is (tied + 1 - j) / (tied + 1).
    """
    # No right answer is within k exactly if the first so many of the tied answers are all wrong.
    wrong_first = np.clip(k - ranks.greater, 0, ranks.tied + 1)
    miss = np.ones(len(ranks))
    for used in range(int(ranks.right.max(initial=0))):
        left = np.maximum(ranks.tied + ranks.right - used, 1)
        miss = np.where(used < ranks.right, miss * (left - wrong_first) / left, miss)
    return 1 - miss


def expected_rank(ranks: Ranks) -> Float[np.ndarray, " queries"]:
    """Mean rank of the first right answer over all orders of the tied answers."""
    return ranks.greater + 1 + ranks.tied / (ranks.right + 1)


def expected_median(ranks: Ranks) -> float:
    """Expectation of the median rank over the queries (for an even number of queries: the mean of the middle two).

    Ties of different queries are broken independently.
    """
    kinds, weight = np.unique([ranks.greater, ranks.tied, ranks.right], axis=1, return_counts=True)
    kind = Ranks(*kinds)
    return tied_median.expected_median(
        np.sort(ranks.greater + 1),
        np.sort(ranks.greater + ranks.tied + 1),
        lambda r: probability_within(kind, r),
        weight,
    )


def recall(ranks: Ranks, k: int) -> float:
    """R@k in percent: the expected share of the queries with a right answer among the first `k`."""
    within = probability_within(ranks, k)
    return 100 * float(np.mean(within if ranks.lost is None else np.where(ranks.lost, 0.0, within)))


def summary(ranks: Ranks) -> dict[str, float | int | dict[str, float]]:
    """R@1, R@5, R@10 (percent), MedR and MnR, each as the expectation over random orders of the tied answers.

    Also `n_queries`, `n_tied_queries` (queries with a tie at the right answer's score), and under `optimistic` and
    `pessimistic` the same five if every tie is broken in favour of the right answer or against it.
    """
    return {
        **_five_scores(ranks),
        "n_queries": len(ranks),
        "n_tied_queries": int(np.sum(ranks.tied > 0)),
        "optimistic": _five_scores(ranks.optimistic),
        "pessimistic": _five_scores(ranks.pessimistic),
    }


def _five_scores(ranks: Ranks) -> dict[str, float]:
    return {
        **{f"R@{k}": recall(ranks, k) for k in RECALLS},
        "MedR": expected_median(ranks),
        "MnR": float(np.mean(expected_rank(ranks))),
    }
