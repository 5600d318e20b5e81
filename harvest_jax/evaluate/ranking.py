"""Where the right answer stands among all answers, and the scores made of that, with ties left open.

A tie says that the model cannot tell; which of the tied answers a program then lists first is an accident of its sort
(of one similarity matrix in bfloat16 the field's programs make anything from 16 to 36 % R@1). So a rank is
kept as an interval, and every score is the exact expectation over a random order of what is tied, with the best and
the worst order beside it. Ranks start at 1; R@k is a percentage (0 to 100), rounded nowhere.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from harvest_jax.errors import DataError, NonFiniteError

RECALLS = (1, 5, 10)


@dataclasses.dataclass(frozen=True)
class Ranks:
    """One entry a query.

    Attributes:
      greater: wrong answers that score above the best right one.
      tied: wrong answers that score exactly as the best right one.
      own: right answers that share that score (1, unless the query has several right answers).
    """

    greater: Int[np.ndarray, " queries"]
    tied: Int[np.ndarray, " queries"]
    own: Int[np.ndarray, " queries"]

    def __len__(self) -> int:
        return len(self.greater)

    @property
    def optimistic(self) -> "Ranks":
        """As if each tie were broken in favour of the right answer."""
        return Ranks(self.greater, np.zeros_like(self.tied), np.ones_like(self.own))

    @property
    def pessimistic(self) -> "Ranks":
        """As if each tie were broken against it."""
        return Ranks(self.greater + self.tied, np.zeros_like(self.tied), np.ones_like(self.own))


def similarity(
    video: Float[np.ndarray, "videos width"], text: Float[np.ndarray, "texts width"]
) -> Float32[np.ndarray, "videos texts"]:
    """Cosine of every pair, from embeddings of any length other than zero.

    Products are summed in float64 and rounded once, so that equal embeddings give equal cosines wherever they stand;
    a float32 product rounds the same pair differently at the edge of a block, which breaks ties by position.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
    """
    rows, columns = _unit(video, "video"), _unit(text, "text")
    result = np.empty((len(rows), len(columns)), np.float32)
    for start in range(0, len(rows), 1024):  # bounds the float64 block
        result[start : start + 1024] = rows[start : start + 1024] @ columns.T
    return result


def _unit(embeddings: Float[np.ndarray, "n width"], what: str) -> Float[np.ndarray, "n width"]:
    embeddings = embeddings.astype(np.float32).astype(np.float64)
    norm = np.linalg.norm(embeddings, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norm) & (norm > 0)))
    if len(bad):
        raise NonFiniteError(
            f"{len(bad)} of {len(norm)} {what} embeddings are zero or not finite (the first: number {bad[0]}): "
            "the model's weights cannot be used"
        )
    return embeddings / norm


def text_to_video(
    scores: Float[np.ndarray, "videos captions"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " videos"] | None = None,
) -> Ranks:
    """Every caption searches its video among all videos.

    Args:
      scores: higher is more alike; rows of missing videos are not looked at.
      owner: the row of the video that each caption belongs to; any number of captions a video.
      missing: videos that could not be read. They stay in the gallery behind all others, and their captions stay
        queries, with the last rank.

    Raises:
      DataError: `owner` names no row, or there is no caption.
      NonFiniteError: a score is not finite.
    """
    scores, missing = _checked(scores, owner, missing)
    own = scores[owner, np.arange(len(owner))]
    greater = np.sum(scores > own, axis=0)
    tied = np.sum(scores == own, axis=0) - 1
    lost = missing[owner]
    return Ranks(np.where(lost, len(scores) - 1, greater), np.where(lost, 0, tied), np.ones(len(owner), np.int64))


def video_to_text(
    scores: Float[np.ndarray, "videos captions"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " videos"] | None = None,
) -> Ranks:
    """Every video searches its captions among all captions; the best-ranked of its own counts.

    Arguments and errors as in `text_to_video`; a video without captions is an error too. A missing video has the last
    rank it can have, its captions stay in the gallery.
    """
    scores, missing = _checked(scores, owner, missing)
    count = np.bincount(owner, minlength=len(scores))
    if not count.all():
        raise DataError(f"video number {int(np.argmin(count))} has no caption: retrieval needs one for each video")
    own = scores[owner, np.arange(len(owner))]
    best = np.full(len(scores), -np.inf, scores.dtype)
    np.maximum.at(best, owner, own)
    greater = np.sum(scores > best[:, None], axis=1)
    own_tied = np.bincount(owner, weights=own == best[owner], minlength=len(scores)).astype(np.int64)
    tied = np.sum(scores == best[:, None], axis=1) - own_tied
    return Ranks(
        np.where(missing, len(owner) - count, greater), np.where(missing, 0, tied), np.where(missing, 1, own_tied)
    )


def choice(
    scores: Float[np.ndarray, "queries options"],
    answer: Int[np.ndarray, " queries"],
    missing: Bool[np.ndarray, " queries"] | None = None,
) -> Ranks:
    """Every query has its own scores over the same number of options, one of which is right.

    Args:
      scores: higher is likelier; rows of missing queries are not looked at.
      answer: the right option's column.
      missing: queries whose video could not be read: last rank.

    Raises:
      DataError: `answer` names no column.
      NonFiniteError: a score is not finite.
    """
    missing = np.zeros(len(scores), bool) if missing is None else missing
    if len(answer) and not 0 <= answer.min() <= answer.max() < scores.shape[1]:
        raise DataError(f"an answer is outside 0..{scores.shape[1] - 1}, the numbers of the options")
    _require_finite(scores[~missing])
    own = np.take_along_axis(scores, answer[:, None], axis=1)
    greater = np.where(missing, scores.shape[1] - 1, np.sum(scores > own, axis=1))
    tied = np.where(missing, 0, np.sum(scores == own, axis=1) - 1)
    return Ranks(greater, tied, np.ones(len(scores), np.int64))


def _checked(
    scores: Float[np.ndarray, "videos captions"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " videos"] | None,
) -> tuple[Float[np.ndarray, "videos captions"], Bool[np.ndarray, " videos"]]:
    """The scores with missing videos behind everything, and the mask of those."""
    if not len(owner):
        raise DataError("no captions: there is nothing to retrieve with")
    if not 0 <= owner.min() <= owner.max() < len(scores):
        raise DataError(f"captions belong to video numbers {owner.min()}..{owner.max()}, of {len(scores)} videos")
    missing = np.zeros(len(scores), bool) if missing is None else missing
    _require_finite(scores[~missing])
    return np.where(missing[:, None], scores.dtype.type(-np.inf), scores), missing


def _require_finite(scores: Float[np.ndarray, "rows columns"]) -> None:
    bad = int(np.size(scores) - np.count_nonzero(np.isfinite(scores)))
    if bad:  # nothing compares greater than nan: a matrix of them would score 100 %
        raise NonFiniteError(f"{bad} of {scores.size} scores are not finite: the model's weights cannot be used")


def probability_within(ranks: Ranks, k: int) -> Float[np.ndarray, " queries"]:
    """Probability that a right answer is among the first `k`, all orders of the tied answers being equally likely.

    With `tied` wrong and `own` right answers shuffled, j wrong ones come first with probability
    C(tied + own - j, own) / C(tied + own, own), the negative hypergeometric tail; for own = 1 that is the uniform
    rank (tied + 1 - j) / (tied + 1).
    """
    wrong_first = np.clip(k - ranks.greater, 0, ranks.tied + 1)  # this many, and no right answer is within k
    miss = np.ones(len(ranks))
    for used in range(int(ranks.own.max(initial=0))):
        left = np.maximum(ranks.tied + ranks.own - used, 1)
        miss = np.where(used < ranks.own, miss * (left - wrong_first) / left, miss)
    return 1 - miss


def expected_rank(ranks: Ranks) -> Float[np.ndarray, " queries"]:
    """Mean rank of the first right answer over all orders of the tied answers."""
    return ranks.greater + 1 + ranks.tied / (ranks.own + 1)


def expected_median(ranks: Ranks) -> float:
    """Expectation of the median over the queries of the rank (of two middle ranks: their mean).

    The queries' ties are broken independently, so that each order statistic has the expectation
    sum over r >= 0 of P(fewer than m queries rank within r).
    """
    best, worst = np.sort(ranks.greater + 1), np.sort(ranks.greater + ranks.tied + 1)
    middle = ((len(ranks) + 1) // 2, len(ranks) // 2 + 1)  # the same one twice if the number is odd
    expected = [float(best[m - 1]) for m in middle]
    for r in range(int(best[middle[0] - 1]), int(worst[middle[1] - 1])):
        within = probability_within(ranks, r)
        for i, m in enumerate(middle):
            if best[m - 1] <= r < worst[m - 1]:
                expected[i] += 1 - _at_least(within, m)
    return sum(expected) / 2


def _at_least(probability: Float[np.ndarray, " n"], m: int) -> float:
    """Probability that at least `m` of these independent events happen."""
    m -= int(np.sum(probability == 1))
    open_ones = probability[(probability > 0) & (probability < 1)]
    n = len(open_ones)
    if m <= 0 or m > n:
        return float(m <= 0)
    if abs(open_ones.sum() - (m - 0.5)) > np.sqrt(18 * n) + 0.5:  # Hoeffding: within exp(-36) of certainty
        return float(open_ones.sum() > m)
    count = np.zeros(n + 1)  # probability of 0..n events among those seen
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
    """R@1, R@5, R@10 (percent), MedR and MnR, each as the expectation over random orders of what is tied.

    Also `n_queries`, `n_tied_queries` (queries whose rank a tie leaves open), and under `optimistic` and
    `pessimistic` the same five if every tie fell for or against the right answer.
    """
    return {
        **_five(ranks),
        "n_queries": len(ranks),
        "n_tied_queries": int(np.sum(ranks.tied > 0)),
        "optimistic": _five(ranks.optimistic),
        "pessimistic": _five(ranks.pessimistic),
    }


def _five(ranks: Ranks) -> dict[str, float]:
    return {
        **{f"R@{k}": recall(ranks, k) for k in RECALLS},
        "MedR": expected_median(ranks),
        "MnR": float(np.mean(expected_rank(ranks))),
    }
