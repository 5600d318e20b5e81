"""Scores that use more than one pair: dual softmax and QB-Norm. They are extra columns and never the headline."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int

from harvest_jax.evaluate.scores.cosines import TILE, Cosines
from harvest_jax.evaluate.scores.tallies import sweep


class SoftmaxSums:
    """Highest cosine and sum of exp(scale * (cosine - highest)) of each video over the captions, and the other way.

    A tally. The sums are carried from tile to tile with the highest cosine so far, in float64. Equal embeddings get
    equal sums, because every tile of a sweep has the same captions for all videos.
    """

    def __init__(self, shape: tuple[int, int], scale: float):
        """`shape`: number of videos, number of captions."""
        self.scale = scale
        self.highest = [np.full(length, -np.inf) for length in shape]  # of each video, of each caption
        self.total = [np.zeros(length) for length in shape]

    def add(self, block: Float32[np.ndarray, "v c"], videos: slice, captions: slice) -> None:
        """See `tallies.Tally`."""
        exact = block.astype(np.float64)
        for part, axis, queries in ((0, 1, videos), (1, 0, captions)):
            before = self.highest[part][queries]
            highest = np.maximum(before, exact.max(axis=axis))
            added = np.exp(self.scale * (exact - np.expand_dims(highest, axis))).sum(axis=axis)
            self.total[part][queries] = self.total[part][queries] * np.exp(self.scale * (before - highest)) + added
            self.highest[part][queries] = highest

    def over_captions(
        self, cosines: Float32[np.ndarray, "..."], videos: Int[np.ndarray, "..."], captions: Int[np.ndarray, "..."]
    ) -> Float64[np.ndarray, "..."]:
        """Cosine times softmax(scale * cosine) over the captions, for text-to-video; a `tallies.Rescore`."""
        return self._times_softmax(cosines, self.highest[0][videos], self.total[0][videos])

    def over_videos(
        self, cosines: Float32[np.ndarray, "..."], videos: Int[np.ndarray, "..."], captions: Int[np.ndarray, "..."]
    ) -> Float64[np.ndarray, "..."]:
        """Cosine times softmax(scale * cosine) over the videos, for video-to-text; a `tallies.Rescore`."""
        return self._times_softmax(cosines, self.highest[1][captions], self.total[1][captions])

    def _times_softmax(
        self,
        cosines: Float32[np.ndarray, "..."],
        highest: Float64[np.ndarray, "..."],
        total: Float64[np.ndarray, "..."],
    ) -> Float64[np.ndarray, "..."]:
        exact = cosines.astype(np.float64)
        return exact * np.exp(self.scale * (exact - highest)) / total


@dataclasses.dataclass(frozen=True)
class QueryBank:
    """QB-Norm with the dynamic inverted softmax (ioanacroi/qb-norm, dynamic_inverted_softmax.py, k = 1).

    A caption whose best video is also the best of some caption of the bank is scored by exp(beta * cosine) divided by
    the video's sum of that over the bank; other captions keep their cosines. Here the logarithm is ranked, which orders
    alike and does not overflow. Where videos tie for the best, each of them is one (the reference takes whichever its
    sort puts first): our choice, so that the order of rows decides nothing.

    Attributes:
      beta: the scale.
      log_sum: of each video, log of the sum over the bank of exp(beta * cosine).
      active: videos that are the best of at least one caption of the bank.
    """

    beta: float
    log_sum: Float64[np.ndarray, " videos"]
    active: Bool[np.ndarray, " videos"]

    def rescore(
        self,
        cosines: Float32[np.ndarray, "..."],
        videos: Int[np.ndarray, "..."],
        normalised: Bool[np.ndarray, "..."],
    ) -> Float64[np.ndarray, "..."]:
        """The scores; `normalised` says which captions' best video is active."""
        exact = cosines.astype(np.float64)
        return np.where(normalised, self.beta * exact - self.log_sum[videos], exact)


def query_bank(source: Cosines, beta: float) -> QueryBank:
    """From the cosines of all videos (rows) with the captions of the bank (columns)."""
    videos = max(1, source.shape[0])
    sums, best = SoftmaxSums(source.shape, beta), _BestVideos(source.shape[0])
    # a tile holds all videos, so that the best of them is known at once
    sweep(source, [sums, best], tile=(videos, max(1, TILE[0] * TILE[1] // videos)))
    return QueryBank(beta, beta * sums.highest[0] + np.log(sums.total[0]), best.found)


class _BestVideos:
    """Which videos are the best of some caption; a tally of tiles that hold all videos."""

    def __init__(self, videos: int):
        self.found = np.zeros(videos, bool)

    def add(self, block: Float32[np.ndarray, "v c"], videos: slice, captions: slice) -> None:
        """See `tallies.Tally`."""
        self.found[videos] |= (block == block.max(axis=0)).any(axis=1)


class BestIsActive:
    """Whether the best video of each caption is active in a bank; a tally."""

    def __init__(self, bank: QueryBank, captions: int):
        """Without tiles yet."""
        self._bank = bank
        self._any, self._active = np.full(captions, -np.inf, np.float32), np.full(captions, -np.inf, np.float32)

    def add(self, block: Float32[np.ndarray, "v c"], videos: slice, captions: slice) -> None:
        """See `tallies.Tally`."""
        self._any[captions] = np.maximum(self._any[captions], block.max(axis=0))
        active = block[self._bank.active[videos]]
        self._active[captions] = np.maximum(self._active[captions], active.max(axis=0, initial=-np.inf))

    def rescore(
        self, cosines: Float32[np.ndarray, "..."], videos: Int[np.ndarray, "..."], captions: Int[np.ndarray, "..."]
    ) -> Float[np.ndarray, "..."]:
        """A `tallies.Rescore`, once all tiles were seen."""
        return self._bank.rescore(cosines, videos, (self._active == self._any)[captions])
