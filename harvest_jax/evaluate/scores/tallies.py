"""Ranks of all captions and all videos, counted tile by tile, so that memory does not grow with the matrix.

Memory of a sweep over n videos and m captions of width w: the float64 unit vectors (8 w (n + m) bytes), the counts
(about 50 (n + m) bytes for each tally), and a few temporaries of one tile (`cosines.TILE`: 32 MB each in float64, about
six at once). For 100,000 videos and as many captions of width 512 this is 0.8 GB and 0.3 GB, where the matrix alone
would be 40 GB. A tile is wider where one video has more captions than a tile has columns.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int

from harvest_jax.evaluate.scores.cosines import TILE, Cosines, spans
from harvest_jax.evaluate.scores.ranking import Counter, Ranks
from harvest_jax.evaluate.scores.relevance import Relevance, RightAnswers, right_answers

# Cosines, and the numbers of their videos and captions (arrays that broadcast against them), to the scores that count.
Rescore = Callable[[Any, Any, Any], Any]


@runtime_checkable
class Tally(Protocol):
    """Something that is counted or summed over all tiles."""

    def add(self, block: Float32[np.ndarray, "some_videos some_captions"], videos: slice, captions: slice) -> None:
        """One tile of cosines. Each pair of a video and a caption comes exactly once."""


def sweep(
    source: Cosines,
    tallies: Sequence[Tally],
    owner: Int[np.ndarray, " captions"] | None = None,
    tile: tuple[int, int] | None = None,
) -> None:
    """Show every tile of the matrix to every tally.

    Args:
      owner: sorted video numbers of the captions; the captions of a video then come in one tile.
      tile: number of videos and of captions of a tile, by default `cosines.TILE`; a video with more captions is wider.
    """
    tile = TILE if tile is None else tile
    videos, captions = source.shape
    for columns in spans(captions, tile[1]) if owner is None else _whole_videos(owner, tile[1]):
        for rows in spans(videos, tile[0]):
            block = source.block(rows, columns)
            for tally in tallies:
                tally.add(block, rows, columns)


def _whole_videos(owner: Int[np.ndarray, " captions"], size: int) -> Iterator[slice]:
    """Spans of captions of at most `size`, or of one video."""
    edges = np.append(_starts(owner), len(owner))
    start = 0
    while start < len(owner):
        stop = int(edges[np.searchsorted(edges, start + size, side="right") - 1])
        if stop <= start:
            stop = int(edges[np.searchsorted(edges, start, side="right")])
        yield slice(start, stop)
        start = stop


def _starts(owner: Int[np.ndarray, " captions"]) -> Int[np.ndarray, " videos"]:
    """First caption of each video, of captions that are sorted by video."""
    return np.flatnonzero(np.diff(owner, prepend=-1))


class CaptionRanks:
    """Text-to-video: every caption is a query, the videos are its answers."""

    def __init__(self, source: Cosines, relevance: Relevance, rescore: Rescore | None = None, tolerance: float = 0.0):
        """`relevance` has pairs with videos of `source` alone; `tolerance` as in `Counter`."""
        self._rescore = rescore
        scores = _scores(source, relevance, rescore)
        self._counter = Counter(source.shape[1], relevance.caption, scores, tolerance)

    def add(self, block: Float32[np.ndarray, "v c"], videos: slice, captions: slice) -> None:
        """See `Tally`."""
        self._counter.add(_rescored(block, videos, captions, self._rescore).T, captions)

    def ranks(self) -> Ranks:
        """Of the captions of the source."""
        return self._counter.ranks()


class VideoRanks:
    """Video-to-text: every video is a query, the captions are its answers, the best-ranked right one counts."""

    def __init__(self, source: Cosines, relevance: Relevance, rescore: Rescore | None = None, tolerance: float = 0.0):
        """`relevance` has pairs with videos of `source` alone; `tolerance` as in `Counter`."""
        self._rescore = rescore
        scores = _scores(source, relevance, rescore)
        self._counter = Counter(source.shape[0], relevance.video, scores, tolerance)

    def add(self, block: Float32[np.ndarray, "v c"], videos: slice, captions: slice) -> None:
        """See `Tally`."""
        self._counter.add(_rescored(block, videos, captions, self._rescore), videos)

    def ranks(self) -> Ranks:
        """Of the videos of the source."""
        return self._counter.ranks()


class MaxOverCaptionsRanks:
    """Video-to-text by CLIP4Clip's rule: the answers are videos, each with the highest score of its captions.

    The sweep must be given `owner`.
    """

    def __init__(self, source: Cosines, owner: Int[np.ndarray, " captions"], of: Int[np.ndarray, " videos"]):
        """`owner`: of all captions, sorted; `of`: the numbers of the source's videos among the owners, rising."""
        self._starts = _starts(owner)
        pairs = np.flatnonzero(np.isin(owner, of))
        query = np.searchsorted(of, owner[pairs])
        score = source.pairs(query, pairs)
        best = np.full(len(of), -np.inf, score.dtype)
        np.maximum.at(best, query, score)
        self._counter = Counter(len(of), np.arange(len(of)), best)

    def add(self, block: Float32[np.ndarray, "v c"], videos: slice, captions: slice) -> None:
        """See `Tally`."""
        inside = (self._starts >= captions.start) & (self._starts < captions.stop)
        self._counter.add(np.maximum.reduceat(block, self._starts[inside] - captions.start, axis=1), videos)

    def ranks(self) -> Ranks:
        """Of the videos of the source."""
        return self._counter.ranks()


class RightAnswerCounts:
    """How many answers stand before each right answer, and with it; for mAP and nDCG.

    Its time grows with the largest number of right answers that a query has.
    """

    def __init__(self, source: Cosines, relevance: Relevance, of_captions: bool):
        """`of_captions`: the queries are captions (text-to-video); else videos."""
        self._of_captions = of_captions
        self._query = relevance.caption if of_captions else relevance.video
        self._score = source.pairs(relevance.video, relevance.caption)
        count = np.bincount(self._query, minlength=source.shape[of_captions])
        order = np.argsort(self._query, kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
        self._place = place
        # A query with fewer right answers than others is filled up with scores that nothing reaches.
        self._right = np.full((len(count), int(count.max(initial=0))), np.inf, np.float32)
        self._right[self._query, place] = self._score
        self._before, self._tied = np.zeros(self._right.shape, np.int64), np.zeros(self._right.shape, np.int64)

    def add(self, block: Float32[np.ndarray, "v c"], videos: slice, captions: slice) -> None:
        """See `Tally`."""
        scores, queries = (block.T, captions) if self._of_captions else (block, videos)
        for place in range(self._right.shape[1]):
            right = self._right[queries, place, None]
            self._before[queries, place] += np.sum(scores > right, axis=1)
            self._tied[queries, place] += np.sum(scores == right, axis=1)

    def right_answers(
        self, query: Int[np.ndarray, " all"], present: Int[np.ndarray, " pairs"], answers: int
    ) -> RightAnswers:
        """Of all pairs, those of missing videos too.

        Args:
          query: number of the query of each pair.
          present: the indices of the pairs that were counted.
          answers: as `relevance.right_answers`.
        """
        lost = np.ones(len(query), bool)
        lost[present] = False
        score, before, tied = np.zeros(len(query), np.float32), np.zeros_like(query), np.zeros_like(query)
        score[present] = self._score
        before[present] = self._before[self._query, self._place]
        tied[present] = self._tied[self._query, self._place]
        return right_answers(query, score, before, tied, lost, answers)


def _scores(source: Cosines, relevance: Relevance, rescore: Rescore | None) -> Float[np.ndarray, " pairs"]:
    """The score of each pair."""
    cosines: Any = source.pairs(relevance.video, relevance.caption)
    return cosines if rescore is None else rescore(cosines, relevance.video, relevance.caption)


def _rescored(
    block: Float32[np.ndarray, "v c"], videos: slice, captions: slice, rescore: Rescore | None
) -> Float[np.ndarray, "v c"]:
    if rescore is None:
        return block
    rows, columns = np.arange(videos.start, videos.stop), np.arange(captions.start, captions.stop)
    scores: Any = rescore(block, rows[:, None], columns[None])
    return scores
