"""Each clip forwards and backwards: does its caption choose the forward one? For any set of clips with captions.

Backwards means: the frames that the model sees of the clip, in reverse order. For a model that averages frames both
are the same clip, so that it is exactly at chance, whatever the captions say. How much the order tells depends on the
set: nobody can say which way a still landscape was filmed.

Rows may have a caption for the clip played backwards (`reversed_caption`, as RTime's files have). Then two more scores
follow: the choice between both in both directions (RTime-Binary), and retrieval among all clips, forward and backward,
with all captions (RTime-Hard; arXiv 2412.19178, section 4).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from harvest_jax.errors import DataError
from harvest_jax.evaluate import frame_average, tables
from harvest_jax.evaluate.clips.embeddings import (
    FORWARD,
    VideoTextModel,
    clip_encoder,
    embed_in_ways,
    embed_texts,
    text_facts,
)
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.result.queries import Queries
from harvest_jax.evaluate.result.results import TaskOutput, mean_by_type
from harvest_jax.evaluate.scores import ranking
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.evaluate.tasks import pairs, retrieval
from harvest_jax.terminal import Progress

# Cosines no further apart count as equal. Our choice: in a model without a sense of order, other frames first means
# other float32 numbers added first, which moves cosines by less than this; else rounding would decide.
TOLERANCE = 1e-5
BACKWARD = "backward"  # name of this way to look at a clip


@dataclasses.dataclass(frozen=True)
class Settings(TaskSettings):
    """`configs/eval/reversal.py`."""


def run(model: VideoTextModel, data: EvaluationSet, settings: Settings, progress: Progress) -> TaskOutput:
    """Compare each clip with itself played backwards.

    Raises:
      DataError: a row has no caption, or a reversed caption beside several captions; or no video could be read.
      NonFiniteError: an embedding is zero or not finite.
    """
    without = [sample.id for sample in data.samples if not sample.captions]
    if without:
        raise DataError(f"{data.name}: {len(without)} rows have no caption, the first: {without[0]}")
    owner = np.array([sample.clip for sample in data.samples for _ in sample.captions])
    types = data.column_if_complete("type")
    if types is not None:
        types = [one for one, sample in zip(types, data.samples, strict=True) for _ in sample.captions]
    captions = [caption for row in data.samples for caption in row.captions]
    text = embed_texts(model, captions, settings.batch_size)
    both = both_ways(data)
    both_text = (
        embed_texts(model, [caption for _, *own in both for caption in own], settings.batch_size) if both else None
    )
    both_clip = np.array([clip for clip, *_ in both], np.int64)
    encode = clip_encoder(model)
    forward, backward, averaged = embed_in_ways(
        model,
        data,
        settings,
        progress,
        {
            FORWARD: encode,
            BACKWARD: lambda clips: encode(np.ascontiguousarray(clips[:, ::-1])),
            frame_average.FRAME_AVERAGE: lambda clips: frame_average.average_of_frames(model, clips),
        },
    )
    missing = forward.missing

    def scores(one: Float[np.ndarray, "clips width"], other: Float[np.ndarray, "clips width"]) -> dict[str, Any]:
        metrics = score(one, other, text, owner, missing, types)
        if both_text is not None:
            lost = missing[both_clip]
            metrics |= score_both_ways(one[both_clip], other[both_clip], both_text[0::2], both_text[1::2], lost)
        return metrics

    metrics = scores(forward.values, backward.values)
    # Frames have the same average in either order: nothing is computed twice, so that nothing differs by rounding.
    metrics["frame_average"] = frame_average.without_bounds(scores(averaged.values, averaged.values))
    protocol = {
        "captions": len(owner),
        "reversed_captions": len(both),
        "tolerance": TOLERANCE,
        "frame_average": frame_average.IN_WORDS,
        "text_length": model.config.text.context_length,
    }
    right, wrong = (own_similarity(way.values, text, owner, missing) for way in (forward, backward))
    of_caption = [data.clips[clip] for clip in owner]
    reversed_of = {clip: caption for clip, _, caption in both}
    kinds = types or [""] * len(captions)
    return TaskOutput(
        protocol=protocol,
        content=[
            [data.identity(clip), caption, reversed_of.get(clip, ""), kind]
            for clip, caption, kind in zip(owner.tolist(), captions, kinds, strict=True)
        ],
        missing=missing,
        reasons=forward.reasons,
        metrics=metrics,
        queries=[
            Queries(
                "direction",
                of_caption,
                captions,
                pairs.two_way(right, wrong, missing[owner], TOLERANCE),
                missing[owner],
                types,
            )
        ],
        texts=text_facts(model, [*captions, *reversed_of.values()]),
        data_ties=None,  # a model that does not see the order is at chance by ties alone: that is its answer
    )


def table(metrics: Mapping[str, Any]) -> list[str]:
    """The scores beside those of the average of frames and chance."""
    average = metrics["frame_average"]
    lines = tables.columns(("accuracy", "difference", "moved"), {"model": metrics, "average of frames": average})
    lines += [f"chance {metrics['chance']:.0f}"]
    if "per_type" in metrics:
        lines += ["", *tables.columns(("n", "accuracy"), metrics["per_type"])]
    if "both_ways" in metrics:
        shown = {"model": metrics["both_ways"], "average of frames": average["both_ways"]}
        lines += ["", *tables.columns(pairs.COLUMNS, shown | {"chance": metrics["both_ways"]["chance"]})]
        lines += ["", *retrieval.table(metrics["retrieval"])]
    return lines


def both_ways(data: EvaluationSet) -> list[tuple[int, str, str]]:
    """(clip, caption, caption of the clip played backwards) of the rows that have the column `reversed_caption`.

    Raises:
      DataError: such a row has not exactly one caption, a reversed caption that is not text, or the clip of another.
    """
    found: dict[int, tuple[int, str, str]] = {}
    for sample in data.samples:
        caption = sample.extra.get("reversed_caption")
        if caption in (None, ""):
            continue
        if not isinstance(caption, str) or not caption.strip():
            raise DataError(f"{data.name}, row {sample.id}: `reversed_caption` must be a sentence, not {caption!r:.80}")
        if len(sample.captions) != 1 or sample.clip in found:
            raise DataError(f"{data.name}, row {sample.id}: a clip with a `reversed_caption` needs exactly one caption")
        found[sample.clip] = (sample.clip, sample.captions[0], caption)
    return list(found.values())


def score(
    forward: Float[np.ndarray, "clips width"],
    backward: Float[np.ndarray, "clips width"],
    text: Float[np.ndarray, "captions width"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " clips"],
    types: Sequence[str] | None = None,
) -> dict[str, Any]:
    """How often a caption is nearer to its clip than to the clip played backwards, and by how much.

    Args:
      forward, backward: embeddings of the clips and of the clips played backwards; rows of missing clips are ignored.
      text: embeddings of the captions.
      owner: the clip (row) of each caption.
      missing: clips that could not be read; their captions count as wrong.
      types: type of each caption, if there are any.

    Returns:
      "accuracy": percent; cosines that differ by at most `TOLERANCE` are a tie, which counts half.
      "chance": 50. "n" captions, "n_tied_queries".
      "difference": mean of (cosine with the clip - cosine with the clip backwards) over the captions that have a clip.
      "moved": mean of 1 - cosine of a clip and the clip backwards; 0 says that the model does not see the order.
      "optimistic", "pessimistic": accuracy with every tie right, and with every tie wrong.
      "per_type" (if there are types): {type: {"n", "accuracy"}}.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
    """
    right, wrong = (own_similarity(way, text, owner, missing) for way in (forward, backward))
    ranks = pairs.two_way(right, wrong, missing[owner], TOLERANCE)
    credit = 100 * ranking.probability_within(ranks, 1)
    result: dict[str, Any] = {
        "accuracy": float(credit.mean()),
        "chance": 50.0,
        "n": len(owner),
        "n_tied_queries": int(np.sum(ranks.tied > 0)),
        "difference": float(np.mean((right.astype(np.float64) - wrong)[~missing[owner]])),
        "moved": float(np.mean(1 - ranking.row_similarity(forward[~missing], backward[~missing]).astype(np.float64))),
        "optimistic": {"accuracy": ranking.recall(ranks.optimistic, 1)},
        "pessimistic": {"accuracy": ranking.recall(ranks.pessimistic, 1)},
    }
    if types is not None:
        result["per_type"] = mean_by_type(types, credit, "accuracy")
    return result


def own_similarity(
    video: Float[np.ndarray, "clips width"],
    text: Float[np.ndarray, "captions width"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " clips"],
) -> Float32[np.ndarray, " captions"]:
    """Cosine of each caption and its clip; zero where the clip is missing."""
    held = ~missing[owner]
    result = np.zeros(len(owner), np.float32)
    result[held] = ranking.row_similarity(video[owner[held]], text[held])
    return result


def score_both_ways(
    forward: Float[np.ndarray, "clips width"],
    backward: Float[np.ndarray, "clips width"],
    caption: Float[np.ndarray, "clips width"],
    reversed_caption: Float[np.ndarray, "clips width"],
    missing: Bool[np.ndarray, " clips"],
) -> dict[str, Any]:
    """Scores of clips whose backward version has a caption of its own; row i of each array belongs to clip i.

    Returns:
      "both_ways": `pairs.score` of the groups of a clip, the clip backwards, and their captions. RTime-Binary is its
        `video_accuracy` (a caption chooses one of two clips) and `text_accuracy` (a clip chooses one of two captions).
      "retrieval": `retrieval.score` among all forward and backward clips (RTime-Hard).
      In both, cosines that differ by at most `TOLERANCE` are a tie.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
    """
    video, text = np.stack([forward, backward], axis=1), np.stack([caption, reversed_caption], axis=1)
    return {
        "both_ways": pairs.score(pairs.similarities(video, text, missing), missing, tolerance=TOLERANCE),
        "retrieval": retrieval.score(
            np.concatenate([forward, backward]),
            np.concatenate([caption, reversed_caption]),
            np.arange(2 * len(forward)),
            np.concatenate([missing, missing]),
            tolerance=TOLERANCE,
        ),
    }
