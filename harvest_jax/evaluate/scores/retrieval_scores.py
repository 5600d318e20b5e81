"""The figures of a retrieval evaluation: both directions, and the extra columns beside them.

Two sweeps over the cosines: the first counts plain ranks and gathers the sums that extra columns need, the second
counts the ranks of these columns.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from harvest_jax.evaluate.scores import ranking, relevance
from harvest_jax.evaluate.scores.cosines import Cosines, unit_vectors
from harvest_jax.evaluate.scores.gallery import Gallery
from harvest_jax.evaluate.scores.ranking import Ranks
from harvest_jax.evaluate.scores.relevance import RightAnswers
from harvest_jax.evaluate.scores.rescoring import BestIsActive, SoftmaxSums, query_bank
from harvest_jax.evaluate.scores.tallies import (
    CaptionRanks,
    MaxOverCaptionsRanks,
    RightAnswerCounts,
    Tally,
    VideoRanks,
    sweep,
)


@dataclasses.dataclass(frozen=True)
class Extra:
    """What is computed beside plain ranks.

    Attributes:
      dual_softmax: scales.
      bank: embeddings of the captions of a query bank; None: no QB-Norm.
      bank_beta: its scale.
    """

    dual_softmax: Sequence[float] = ()
    bank: Float[np.ndarray, "bank width"] | None = None
    bank_beta: float = 20.0


@dataclasses.dataclass(frozen=True)
class RetrievalScores:
    """The figures, and the ranks that the headline comes from.

    Attributes:
      metrics: see `scores`.
      caption: of each text-to-video query, the number of a caption that has its text (its own, unless equal captions
        are one query).
      t2v: of each text-to-video query.
      v2t: of each video.
    """

    metrics: dict[str, Any]
    caption: Int[np.ndarray, " queries"]
    t2v: Ranks
    v2t: Ranks


def scores(gallery: Gallery, extra: Extra, tolerance: float = 0.0) -> RetrievalScores:
    """All figures; `metrics` has these keys.

      "t2v", "v2t": `ranking.summary`; where captions have several right videos also "mAP" and "nDCG" (percent). Of a
        video with several captions, the one that ranks best among all captions counts ("best_caption").
      "v2t_max_over_captions", where a video has several captions: the rule of CLIP4Clip. Videos are ranked, each by the
        highest score of its captions.
      "dual_softmax", for one scale: {"scale", "t2v", "v2t"}; for several, "dual_softmax_S" with each scale S.
      "querybank", for QB-Norm: {"beta", "captions", "t2v"}.

    Args:
      gallery: of `gallery.arrange`.
      extra: what is computed besides.
      tolerance: cosines no further apart than this tie, in "t2v" and "v2t" alone.

    Raises:
      NonFiniteError: an embedding of the bank is zero or not finite.
    """
    plain = _Plain(gallery, tolerance)
    columns: list[_Column] = [plain]
    for scale in extra.dual_softmax:
        name = "dual_softmax" if len(extra.dual_softmax) == 1 else f"dual_softmax_{scale:g}"
        columns.append(_DualSoftmax(gallery, name, scale))
    if extra.bank is not None:
        columns.append(_QueryBank(gallery, extra.bank, extra.bank_beta))
    sweep(gallery.source, [tally for column in columns for tally in column.first()], gallery.owner)
    second = [tally for column in columns for tally in column.second()]
    if second:
        sweep(gallery.source, second, gallery.owner)
    metrics = {name: value for column in columns for name, value in column.metrics().items()}
    return RetrievalScores(metrics, gallery.caption, *plain.ranks())


@runtime_checkable
class _Column(Protocol):
    """A part of the metrics, and what it needs of the two sweeps."""

    def first(self) -> list[Tally]: ...

    def second(self) -> list[Tally]: ...

    def metrics(self) -> dict[str, Any]: ...


class _Plain:
    def __init__(self, gallery: Gallery, tolerance: float):
        source, right = gallery.source, gallery.right
        self._gallery = gallery
        self._captions = CaptionRanks(source, right, tolerance=tolerance)
        self._videos = VideoRanks(source, right, tolerance=tolerance)
        self._by_video: list[MaxOverCaptionsRanks] = []
        self._counts: list[RightAnswerCounts] = []
        if gallery.owner is None:
            self._counts = [RightAnswerCounts(source, right, True), RightAnswerCounts(source, right, False)]
        elif gallery.n_captions.max() > 1:
            self._by_video = [MaxOverCaptionsRanks(source, gallery.owner, gallery.present)]

    def first(self) -> list[Tally]:
        return [self._captions, self._videos, *self._by_video, *self._counts]

    def second(self) -> list[Tally]:
        return []

    def ranks(self) -> tuple[Ranks, Ranks]:
        return self._gallery.caption_ranks(self._captions.ranks()), self._gallery.video_ranks(self._videos.ranks())

    def metrics(self) -> dict[str, Any]:
        t2v, v2t = self.ranks()
        result = {"t2v": ranking.summary(t2v), "v2t": ranking.summary(v2t)}
        for block, counts, of_captions in zip(result.values(), self._counts, (True, False), strict=False):
            _add_means(block, self._gallery.right_answers(counts, of_captions))
        for tally in self._by_video:
            ranks = self._gallery.video_ranks(tally.ranks(), answers=len(self._gallery.missing))
            result["v2t_max_over_captions"] = ranking.summary(ranks)
        return result


class _DualSoftmax:
    def __init__(self, gallery: Gallery, name: str, scale: float):
        self._gallery, self._name, self._sums = gallery, name, SoftmaxSums(gallery.source.shape, scale)

    def first(self) -> list[Tally]:
        return [self._sums]

    def second(self) -> list[Tally]:
        source, right = self._gallery.source, self._gallery.right
        self._captions = CaptionRanks(source, right, self._sums.over_captions)
        self._videos = VideoRanks(source, right, self._sums.over_videos)
        return [self._captions, self._videos]

    def metrics(self) -> dict[str, Any]:
        t2v = self._gallery.caption_ranks(self._captions.ranks())
        v2t = self._gallery.video_ranks(self._videos.ranks())
        return {self._name: {"scale": self._sums.scale, "t2v": ranking.summary(t2v), "v2t": ranking.summary(v2t)}}


class _QueryBank:
    def __init__(self, gallery: Gallery, bank: Float[np.ndarray, "bank width"], beta: float):
        self._gallery, self._captions, self._beta = gallery, len(bank), beta
        found = query_bank(Cosines(gallery.source.videos, unit_vectors(bank, "query bank")), beta)
        self._active = BestIsActive(found, gallery.source.shape[1])

    def first(self) -> list[Tally]:
        return [self._active]

    def second(self) -> list[Tally]:
        self._ranks = CaptionRanks(self._gallery.source, self._gallery.right, self._active.rescore)
        return [self._ranks]

    def metrics(self) -> dict[str, Any]:
        t2v = self._gallery.caption_ranks(self._ranks.ranks())
        return {"querybank": {"beta": self._beta, "captions": self._captions, "t2v": ranking.summary(t2v)}}


def _add_means(block: dict[str, Any], right: RightAnswers) -> None:
    """mAP and nDCG of a direction, also of the best and the worst order of ties."""
    for part, answers in (
        (block, right),
        (block["optimistic"], right.optimistic),
        (block["pessimistic"], right.pessimistic),
    ):
        part["mAP"] = 100 * float(np.mean(relevance.average_precision(answers)))
        part["nDCG"] = 100 * float(np.mean(relevance.ndcg(answers)))
