"""Videos and caption queries of a retrieval evaluation, arranged for sweeps over their cosines."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from harvest_jax.errors import DataError
from harvest_jax.evaluate.scores import ranking, relevance
from harvest_jax.evaluate.scores.cosines import Cosines, unit_cosines
from harvest_jax.evaluate.scores.ranking import Ranks
from harvest_jax.evaluate.scores.relevance import Relevance, RightAnswers
from harvest_jax.evaluate.scores.tallies import RightAnswerCounts

# Which videos are right for a caption: its own; those of all captions with the same text, each caption a query of its
# own; the same with one query for each distinct text.
Positives = Literal["own", "same_text", "distinct_text"]


@dataclasses.dataclass(frozen=True)
class Gallery:
    """The sweeps see the readable videos only, and the queries in the order of their videos.

    Attributes:
      source: unit vectors of the readable videos, and of the queries.
      right: the right pairs that can be found, numbered as in the source.
      all_right: all right pairs, numbered as given.
      owner: of the queries of the source, numbered as given and sorted; None if queries have several right videos.
      place: of each query in the source.
      caption: the number of a caption that has the text of the query.
      missing: videos that could not be read. They stay answers, behind all others.
    """

    source: Cosines
    right: Relevance
    all_right: Relevance
    owner: Int[np.ndarray, " queries"] | None
    place: Int[np.ndarray, " queries"]
    caption: Int[np.ndarray, " queries"]
    missing: Bool[np.ndarray, " videos"]

    @property
    def present(self) -> Int[np.ndarray, " present"]:
        """Numbers of the readable videos."""
        return np.flatnonzero(~self.missing)

    @property
    def n_captions(self) -> Int[np.ndarray, " videos"]:
        """Number of right captions of each video."""
        return np.bincount(self.all_right.video, minlength=len(self.missing))

    def caption_ranks(self, counted: Ranks) -> Ranks:
        """Text-to-video ranks in the order given, from those of the source."""
        right = np.bincount(self.all_right.caption, minlength=len(self.place))
        readable = np.bincount(self.right.caption, minlength=len(self.place))[self.place]
        ranks = Ranks(counted.greater[self.place], counted.tied[self.place], counted.right[self.place])
        return ranks.with_lost(readable == 0, len(self.missing) - right)

    def video_ranks(self, counted: Ranks, answers: int | None = None) -> Ranks:
        """Video-to-text ranks in the order given, from those of the readable videos.

        `answers`: number of answers where each video has one right one; None: the answers are the captions.
        """
        columns = np.zeros((3, len(self.missing)), np.int64)
        columns[:, self.present] = [counted.greater, counted.tied, counted.right]
        before = len(self.place) - self.n_captions if answers is None else answers - 1
        return Ranks(*columns).with_lost(self.missing, before)

    def right_answers(self, counted: RightAnswerCounts, of_captions: bool) -> RightAnswers:
        """Places of all right answers, those that could not be read behind all others."""
        present = np.flatnonzero(~self.missing[self.all_right.video])
        if of_captions:
            return counted.right_answers(self.all_right.caption, present, len(self.missing))
        return counted.right_answers(self.all_right.video, present, len(self.place))


def arrange(
    video: Float[np.ndarray, "videos width"],
    text: Float[np.ndarray, "captions width"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " videos"],
    positives: Positives = "own",
    texts: Sequence[str] = (),
) -> Gallery:
    """From embeddings.

    Args:
      video: rows of missing videos are ignored.
      text: one row for each caption.
      owner: the video (row) of each caption.
      missing: videos that could not be read.
      positives: which videos are right for a caption.
      texts: the captions; needed unless `positives` is "own".

    Raises:
      DataError: a caption belongs to no video, or a video has none.
      NonFiniteError: an embedding is zero or not finite.
    """
    ranking.check_owner(owner, len(video))
    ranking.captions_of_each(owner, len(video))
    if positives != "own" and len(texts) != len(owner):
        raise DataError(f"positives={positives} needs the text of each of the {len(owner)} captions")
    order = np.argsort(owner, kind="stable")
    right = relevance.own(owner)
    if positives == "same_text":
        right = relevance.same_text(owner, texts)
    elif positives == "distinct_text":
        right, number = relevance.distinct_texts(owner, texts)
        _, order = np.unique(number, return_index=True)
    place, caption = np.arange(len(order)), order
    if positives != "distinct_text":
        place[order], caption = np.arange(len(order)), np.arange(len(order))
    readable = ~missing[right.video]
    found = Relevance((np.cumsum(~missing) - 1)[right.video[readable]], place[right.caption[readable]])
    return Gallery(
        unit_cosines(video[~missing], text[order]),
        found,
        right,
        owner[order] if positives == "own" else None,
        place,
        caption,
        missing,
    )
