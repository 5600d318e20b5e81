"""Which videos are right for which captions, and scores that count all right answers of a query: mAP and nDCG.

Both are exact expectations over a random order of tied answers, as all scores of `ranking` are. The formulas for ties
are those of McSherry and Najork, "Computing information retrieval performance measures efficiently in the presence of
tied scores" (ECIR 2008), for right and wrong answers without grades.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int


@dataclasses.dataclass(frozen=True)
class Relevance:
    """Pairs of a caption and a video that is right for it.

    Attributes:
      video, caption: numbers of each pair, sorted by caption and then by video; no pair appears twice.
    """

    video: Int[np.ndarray, " pairs"]
    caption: Int[np.ndarray, " pairs"]


def own(owner: Int[np.ndarray, " captions"]) -> Relevance:
    """A caption is right for its own video alone."""
    return Relevance(owner, np.arange(len(owner)))


def same_text(owner: Int[np.ndarray, " captions"], texts: Sequence[str]) -> Relevance:
    """Captions of equal text share their right videos; each stays a query of its own.

    This is what perception_models does since its audio-visual release (apps/pe/clip_benchmark/metrics/
    zeroshot_retrieval.py).
    """
    relevance, number = distinct_texts(owner, texts)
    first, count = _bounds(relevance.caption, int(number.max()) + 1)
    repeated = count[number]
    caption = np.repeat(np.arange(len(number)), repeated)
    within = np.arange(len(caption)) - np.repeat(np.cumsum(repeated) - repeated, repeated)
    return Relevance(relevance.video[first[number[caption]] + within], caption)


def distinct_texts(
    owner: Int[np.ndarray, " captions"], texts: Sequence[str]
) -> tuple[Relevance, Int[np.ndarray, " captions"]]:
    """Each distinct text is one query, and all videos that have it are right (unmasked_teacher, SSv2-template).

    Returns:
      The relevance of the distinct texts, in the order of their first mention, and for each caption its text's number.
    """
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    number = np.array([place[text] for text in texts], np.int64)
    caption, video = np.unique([number, owner], axis=1)
    return Relevance(video, caption), number


def _bounds(group: Int[np.ndarray, " pairs"], groups: int) -> tuple[Int[np.ndarray, " groups"], ...]:
    """First index and length of each group in a sorted list of group numbers."""
    count = np.bincount(group, minlength=groups)
    return np.cumsum(count) - count, count


@dataclasses.dataclass(frozen=True)
class RightAnswers:
    """Where the right answers of all queries stand: one entry for each pair of a query and a right answer.

    Attributes:
      query: its number.
      before: number of answers, right or wrong, with a higher score.
      tied: number of answers with exactly this score, this one included.
      right_before: number of right answers of the query with a higher score.
      right_tied: number of right answers of the query with exactly this score, this one included.
      place: among those, counted from 0 in any order.
    """

    query: Int[np.ndarray, " pairs"]
    before: Int[np.ndarray, " pairs"]
    tied: Int[np.ndarray, " pairs"]
    right_before: Int[np.ndarray, " pairs"]
    right_tied: Int[np.ndarray, " pairs"]
    place: Int[np.ndarray, " pairs"]

    @property
    def optimistic(self) -> "RightAnswers":
        """The same if every tie is broken in favour of the right answers."""
        return self._in_order(self.before)

    @property
    def pessimistic(self) -> "RightAnswers":
        """The same if every tie is broken against the right answers."""
        return self._in_order(self.before + self.tied - self.right_tied)

    def _in_order(self, start: Int[np.ndarray, " pairs"]) -> "RightAnswers":
        one, none = np.ones_like(self.tied), np.zeros_like(self.tied)
        return RightAnswers(self.query, start + self.place, one, self.right_before + self.place, one, none)


def right_answers(
    query: Int[np.ndarray, " pairs"],
    score: Float[np.ndarray, " pairs"],
    before: Int[np.ndarray, " pairs"],
    tied: Int[np.ndarray, " pairs"],
    lost: Bool[np.ndarray, " pairs"],
    answers: int,
) -> RightAnswers:
    """From the counts of each pair.

    Args:
      query: number of the query of each pair, in any order.
      score: of the right answer; ignored where it is lost.
      before, tied: answers with a higher score, and with this score (this one included); ignored where lost.
      lost: pairs whose video could not be read. They stand last of all, behind all wrong answers.
      answers: number of answers of a query, the missing ones included.
    """
    order = np.lexsort((-np.where(lost, -np.inf, score), query))
    query, score, before, tied, lost = (x[order] for x in (query, score, before, tied, lost))
    first, count = _bounds(query, int(query[-1]) + 1) if len(query) else (query, query)
    right_place = np.arange(len(query)) - first[query]
    new_group = np.ones(len(query), bool)
    new_group[1:] = (query[1:] != query[:-1]) | (score[1:] != score[:-1]) | lost[1:]
    group = np.cumsum(new_group) - 1
    group_first, group_count = _bounds(group, int(group[-1]) + 1) if len(group) else (group, group)
    place = np.arange(len(query)) - group_first[group]
    return RightAnswers(
        query,
        np.where(lost, answers - count[query] + right_place, before),
        np.where(lost, 1, tied),
        right_place - place,
        group_count[group],
        place,
    )


def average_precision(right: RightAnswers) -> Float64[np.ndarray, " queries"]:
    """Expected average precision of each query: the mean over its right answers of the precision at their ranks.

    Of g tied answers behind n others, r are right, and a right ones are before them. A right answer is at each place
    p = 1..g of the group equally likely, and then a + 1 + (p - 1) (r - 1) / (g - 1) right answers are up to there.
    """
    n, g = right.before, right.tied
    share = (right.right_tied - 1) / np.maximum(g - 1, 1)
    harmonic = _sums(1 / np.arange(1, _longest(right) + 1))
    # The sum over p of (a + 1 + share (p - 1)) / (n + p)
    total = share * g + (right.right_before + 1 - share * (n + 1)) * (harmonic[n + g] - harmonic[n])
    return _mean_over_right(right, total / g)


def ndcg(right: RightAnswers, k: int | None = None) -> Float64[np.ndarray, " queries"]:
    """Expected normalised discounted cumulative gain of each query: gain 1 for a right answer, discount log2(1 + rank).

    Args:
      k: only the first k answers count; None: all.
    """
    last = _longest(right)
    gain = _sums(np.where(np.arange(1, last + 1) <= (last if k is None else k), 1 / np.log2(np.arange(2, last + 2)), 0))
    n, g = right.before, right.tied
    found = np.bincount(right.query, weights=(gain[n + g] - gain[n]) / g)
    return found / gain[np.bincount(right.query)]


def _longest(right: RightAnswers) -> int:
    return int((right.before + right.tied).max(initial=0))


def _sums(terms: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n+1"]:
    return np.concatenate([[0.0], np.cumsum(terms)])


def _mean_over_right(right: RightAnswers, value: Float64[np.ndarray, " pairs"]) -> Float64[np.ndarray, " queries"]:
    return np.bincount(right.query, weights=value) / np.bincount(right.query)
