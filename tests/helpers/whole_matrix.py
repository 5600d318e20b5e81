"""Ranks from a whole matrix of scores, as the program's tiles must give them."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from harvest_jax.evaluate.scores import cosines, ranking
from harvest_jax.evaluate.scores.rescoring import SoftmaxSums


def text_to_video(
    scores: Float[np.ndarray, "videos captions"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " videos"] | None = None,
) -> ranking.Ranks:
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
    missing = _checked(scores, owner, missing)
    lost = missing[owner]
    own = np.where(lost, -np.inf, scores[owner, np.arange(len(owner))]).astype(scores.dtype)
    counter = ranking.Counter(len(owner), np.arange(len(owner)), own)
    for rows in _present(missing):
        counter.add(scores[rows].T)
    return counter.ranks().with_lost(lost, len(scores) - 1)


def video_to_text(
    scores: Float[np.ndarray, "videos captions"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " videos"] | None = None,
) -> ranking.Ranks:
    """Every video is a query; the answers are all captions, and the best-ranked of the video's own captions counts.

    Arguments and errors as in `text_to_video`; a video without captions is an error too. A missing video has the last
    possible rank; its captions stay in the gallery.
    """
    missing = _checked(scores, owner, missing)
    count = ranking.captions_of_each(owner, len(scores))
    own = np.where(missing[owner], -np.inf, scores[owner, np.arange(len(owner))]).astype(scores.dtype)
    counter = ranking.Counter(len(scores), owner, own)
    for rows in _present(missing):
        counter.add(scores[rows], rows)
    return counter.ranks().with_lost(missing, len(owner) - count)


def _checked(
    scores: Float[np.ndarray, "videos captions"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " videos"] | None,
) -> Bool[np.ndarray, " videos"]:
    """The mask of the missing videos."""
    ranking.check_owner(owner, len(scores))
    missing = np.zeros(len(scores), bool) if missing is None else missing
    ranking.require_finite(scores[~missing] if missing.any() else scores)
    return missing


def _present(missing: Bool[np.ndarray, " videos"]) -> Iterator[Int[np.ndarray, " some_videos"]]:
    """The numbers of the videos that are not missing, as many as a tile has."""
    present = np.flatnonzero(~missing)
    for part in cosines.spans(len(present), cosines.TILE[0]):
        yield present[part]


def dual_softmax(
    scores: Float32[np.ndarray, "videos captions"], scale: float, axis: int
) -> Float[np.ndarray, "videos captions"]:
    """Scores times softmax(scale * scores) over the queries: axis 1 (captions) for text-to-video, axis 0 for the other.

    In float64: at CLIP's scale of 100 the softmax over many queries underflows in float32, which would make unequal
    scores tie. InternVideo uses scale 100 (it acts on logits), ViCLIP 1 (nearly no effect).
    """
    sums = SoftmaxSums(scores.shape, scale)
    if scores.size:
        sums.add(scores, slice(0, len(scores)), slice(0, scores.shape[1]))
    rows, columns = np.ogrid[: len(scores), : scores.shape[1]]
    return (sums.over_captions if axis == 1 else sums.over_videos)(scores, rows, columns)
