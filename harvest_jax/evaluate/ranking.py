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

RECALLS = (1, 5, 10)


@dataclasses.dataclass(frozen=True)
class Ranks:
    """One entry for each query.

    Attributes:
      greater: number of wrong answers with a higher score than the best right answer.
      tied: number of wrong answers with exactly the score of the best right answer.
      right: number of right answers with that score (1, unless the query has several right answers).
    """

    greater: Int[np.ndarray, " queries"]
    tied: Int[np.ndarray, " queries"]
    right: Int[np.ndarray, " queries"]

    def __len__(self) -> int:
        return len(self.greater)

    @property
    def optimistic(self) -> "Ranks":
        """The ranks if every tie is broken in favour of the right answer."""
        return Ranks(self.greater, np.zeros_like(self.tied), np.ones_like(self.right))

    @property
    def pessimistic(self) -> "Ranks":
        """The ranks if every tie is broken against the right answer."""
        return Ranks(self.greater + self.tied, np.zeros_like(self.tied), np.ones_like(self.right))


def similarity(
    video: Float[np.ndarray, "videos width"], text: Float[np.ndarray, "texts width"]
) -> Float32[np.ndarray, "videos texts"]:
    """Cosine of every pair; embeddings may have any norm except zero.

    Products are summed in float64 and rounded once, so equal embeddings give equal cosines in every row and column. A
    float32 matrix product rounds the same pair differently at the edge of a block, which would break ties by position.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
    """
    rows, columns = unit(video, "video"), unit(text, "text")
    result = np.empty((len(rows), len(columns)), np.float32)
    for start in range(0, len(rows), 1024):  # bounds the float64 block
        result[start : start + 1024] = rows[start : start + 1024] @ columns.T
    return result


def row_similarity(
    one: Float[np.ndarray, "rows width"], other: Float[np.ndarray, "rows width"]
) -> Float32[np.ndarray, " rows"]:
    """Cosine of each row with the row of the same number; see `similarity`."""
    return np.einsum("rw,rw->r", unit(one, "video"), unit(other, "text")).astype(np.float32)


def unit(embeddings: Float[np.ndarray, "n width"], name: str) -> Float[np.ndarray, "n width"]:
    """Each row with the length 1, in float64; `name` says of what the rows are in the message.

    Raises:
      NonFiniteError: a row is zero or not finite.
    """
    embeddings = embeddings.astype(np.float32).astype(np.float64)
    norm = np.linalg.norm(embeddings, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norm) & (norm > 0)))
    if len(bad):
        raise NonFiniteError(
            f"{len(bad)} of {len(norm)} {name} embeddings are zero or not finite (the first: number {bad[0]}): "
            "the model's weights are damaged or its training diverged"
        )
    return embeddings / norm


def text_to_video(
    scores: Float[np.ndarray, "videos captions"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " videos"] | None = None,
) -> Ranks:
    """Every caption is a query; the answers are all videos.

    Args:
      scores: higher is more similar; rows of missing videos are ignored.
      owner: the row of the video that each caption belongs to; any number of captions a video.
      missing: videos that could not be read. They stay in the gallery, ranked after all others, and their captions stay
        queries, with the last rank.

    Raises:
      DataError: a number in `owner` is not a row of `scores`, or there is no caption.
      NonFiniteError: a score is not finite.
    """
    scores, missing = _checked(scores, owner, missing)
    right = scores[owner, np.arange(len(owner))]
    greater = np.sum(scores > right, axis=0)
    tied = np.sum(scores == right, axis=0) - 1
    lost = missing[owner]
    return Ranks(np.where(lost, len(scores) - 1, greater), np.where(lost, 0, tied), np.ones(len(owner), np.int64))


def video_to_text(
    scores: Float[np.ndarray, "videos captions"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " videos"] | None = None,
) -> Ranks:
    """Every video is a query; the answers are all captions, and the best-ranked of the video's own captions counts.

    Arguments and errors as in `text_to_video`; a video without captions is an error too. A missing video has the last
    possible rank; its captions stay in the gallery.
    """
    scores, missing = _checked(scores, owner, missing)
    count = np.bincount(owner, minlength=len(scores))
    if not count.all():
        raise DataError(f"video number {int(np.argmin(count))} has no caption: retrieval needs one for each video")
    right = scores[owner, np.arange(len(owner))]
    best = np.full(len(scores), -np.inf, scores.dtype)
    np.maximum.at(best, owner, right)
    greater = np.sum(scores > best[:, None], axis=1)
    right_tied = np.bincount(owner, weights=right == best[owner], minlength=len(scores)).astype(np.int64)
    tied = np.sum(scores == best[:, None], axis=1) - right_tied
    return Ranks(
        np.where(missing, len(owner) - count, greater), np.where(missing, 0, tied), np.where(missing, 1, right_tied)
    )


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
    _require_finite(scores[~missing])
    right = np.take_along_axis(scores, answer[:, None], axis=1)
    greater = np.where(missing, scores.shape[1] - 1, np.sum(scores > right, axis=1))
    tied = np.where(missing, 0, np.sum(scores == right, axis=1) - 1)
    return Ranks(greater, tied, np.ones(len(scores), np.int64))


def _checked(
    scores: Float[np.ndarray, "videos captions"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " videos"] | None,
) -> tuple[Float[np.ndarray, "videos captions"], Bool[np.ndarray, " videos"]]:
    """The scores with missing videos ranked last, and the mask of those videos."""
    if not len(owner):
        raise DataError("no captions: there is nothing to retrieve with")
    if not 0 <= owner.min() <= owner.max() < len(scores):
        raise DataError(f"captions belong to video numbers {owner.min()}..{owner.max()}, of {len(scores)} videos")
    missing = np.zeros(len(scores), bool) if missing is None else missing
    _require_finite(scores[~missing])
    return np.where(missing[:, None], scores.dtype.type(-np.inf), scores), missing


def _require_finite(scores: Float[np.ndarray, "rows columns"]) -> None:
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

    Ties of different queries are broken independently. The expectation of the m-th smallest rank is then the sum over
    r >= 0 of P(fewer than m queries have a rank within r).
    """
    best, worst = np.sort(ranks.greater + 1), np.sort(ranks.greater + ranks.tied + 1)
    middle = ((len(ranks) + 1) // 2, len(ranks) // 2 + 1)  # the same one twice if the number of queries is odd
    expected = [float(best[m - 1]) for m in middle]
    for r in range(int(best[middle[0] - 1]), int(worst[middle[1] - 1])):
        within = probability_within(ranks, r)
        for i, m in enumerate(middle):
            if best[m - 1] <= r < worst[m - 1]:
                expected[i] += 1 - _at_least(within, m)
    return sum(expected) / 2


def _at_least(probability: Float[np.ndarray, " n"], m: int) -> float:
    """Probability that at least `m` of these independent events happen (Poisson binomial distribution)."""
    m -= int(np.sum(probability == 1))
    open_ones = probability[(probability > 0) & (probability < 1)]
    n = len(open_ones)
    if m <= 0 or m > n:
        return float(m <= 0)
    if abs(open_ones.sum() - (m - 0.5)) > np.sqrt(18 * n) + 0.5:  # Hoeffding: the error is below exp(-36)
        return float(open_ones.sum() > m)
    count = np.zeros(n + 1)  # probability that 0..n of the events so far happen
    count[0] = 1
    for i, p in enumerate(open_ones):
        happens = count[: i + 1] * p
        count[: i + 1] -= happens
        count[1 : i + 2] += happens
    return float(count[m:].sum())


def recall(ranks: Ranks, k: int) -> float:
    """R@k in percent: the expected share of the queries with a right answer among the first `k`."""
    return 100 * float(np.mean(probability_within(ranks, k)))


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
