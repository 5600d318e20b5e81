"""Text-to-video and video-to-text retrieval over a gallery; `ranking` explains the scores."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from harvest_jax.config.fields import Range
from harvest_jax.errors import DataError
from harvest_jax.evaluate import frame_average, ranking, tables
from harvest_jax.evaluate.embeddings import VideoEmbeddings, VideoTextModel, embed_texts, text_facts
from harvest_jax.evaluate.evaluation_set import EvaluationSet
from harvest_jax.evaluate.queries import Queries
from harvest_jax.evaluate.results import TaskOutput
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.terminal import Progress

COLUMNS = ("R@1", "R@5", "R@10", "MedR", "MnR", "n_queries", "n_tied_queries")


@dataclasses.dataclass(frozen=True)
class Settings(TaskSettings):
    """`configs/eval/retrieval.py`."""

    dual_softmax_scale: Annotated[float, Range(0, 1e4)]
    frame_average: bool = False  # configs of version 0.1.0 do not have it


def run(model: VideoTextModel, data: EvaluationSet, settings: Settings, progress: Progress) -> TaskOutput:
    """Rank every clip for every caption and the other way round.

    Raises:
      DataError: a row has no caption, or no video could be read.
      NonFiniteError: an embedding is zero or not finite.
    """
    without = [sample.id for sample in data.samples if not sample.captions]
    if without:
        raise DataError(f"{data.name}: {len(without)} rows have no caption, the first: {without[0]}{_hint(data)}")
    captions = [caption for sample in data.samples for caption in sample.captions]
    owner = np.array([sample.clip for sample in data.samples for _ in sample.captions])
    text = embed_texts(model, captions, settings.batch_size)
    protocol = {
        "gallery": len(data.clips),
        "captions": len(captions),
        "distinct_captions": len(set(captions)),
        "text_length": model.config.text.context_length,
        "dual_softmax_scale": settings.dual_softmax_scale,
    }
    if settings.frame_average:
        protocol["frame_average"] = frame_average.IN_WORDS

    def ranked(video: VideoEmbeddings) -> dict[str, Any]:
        return score(video.values, text, owner, video.missing, settings.dual_softmax_scale)

    video, metrics = frame_average.embed_and_score(model, data, settings, progress, ranked, settings.frame_average)
    of_clip: dict[int, list[str]] = {}
    for clip, caption in zip(owner.tolist(), captions, strict=True):
        of_clip.setdefault(clip, []).append(caption)
    scores = similarities(video.values, text, video.missing)
    ranks = {"t2v": ranking.text_to_video(scores, owner, video.missing)}
    ranks["v2t"] = ranking.video_to_text(scores, owner, video.missing)
    clips = data.clips
    return TaskOutput(
        protocol=protocol,
        content=[[clips[clip].key, sorted(own)] for clip, own in of_clip.items()],
        missing=video.missing,
        reasons=video.reasons,
        metrics=metrics,
        queries=[
            Queries("t2v", [clips[clip] for clip in owner], captions, ranks["t2v"], video.missing[owner]),
            Queries("v2t", clips, [""] * len(clips), ranks["v2t"], video.missing),
        ],
        texts=text_facts(model, captions),
    )


def _hint(data: EvaluationSet) -> str:
    """Which evaluation the rows seem to be made for."""
    columns = {"question": "videoqa", "options": "multiple_choice", "option_0": "multiple_choice", "label": "zero_shot"}
    fitting = [task for column, task in columns.items() if data.column_if_complete(column) is not None]
    return f"; the rows fit --config eval/{fitting[0]}" if fitting else ""


def table(metrics: Mapping[str, Any]) -> list[str]:
    """One line for each direction, with and without dual softmax."""
    rows = {"text to video": metrics["t2v"], "video to text": metrics["v2t"]}
    if "dual_softmax" in metrics:
        name = f"dual softmax {metrics['dual_softmax']['scale']:g}"
        rows |= {f"{direction}, {name}": metrics["dual_softmax"][direction] for direction in ("t2v", "v2t")}
    if "frame_average" in metrics:
        average = metrics["frame_average"]
        rows |= {
            f"{words}, average of frames": average[way]
            for words, way in (("text to video", "t2v"), ("video to text", "v2t"))
        }
    return tables.columns(COLUMNS, rows)


def score(
    video: Float[np.ndarray, "videos width"],
    text: Float[np.ndarray, "captions width"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " videos"],
    dual_softmax_scale: float = 0.0,
) -> dict[str, Any]:
    """R@1/5/10 (percent), MedR and MnR in both directions.

    Args:
      video: embeddings; rows of missing videos are ignored.
      text: embeddings of all captions.
      owner: the video (row) of each caption; several captions a video are each a text-to-video query, and the
        best-ranked of them counts video-to-text.
      missing: videos that could not be read; they stay in the gallery and have the last rank.
      dual_softmax_scale: other than 0 adds the block "dual_softmax". It uses all test queries at once and must not be
        compared with plain scores.

    Returns:
      {"t2v", "v2t"}: `ranking.summary` of each, and "dual_softmax": {"scale", "t2v", "v2t"} where asked for.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
      DataError: a video has no caption.
    """
    present = ~missing
    scores = similarities(video, text, missing)
    result: dict[str, Any] = {
        "t2v": ranking.summary(ranking.text_to_video(scores, owner, missing)),
        "v2t": ranking.summary(ranking.video_to_text(scores, owner, missing)),
    }
    if dual_softmax_scale:
        over_captions, over_videos = np.zeros_like(scores, np.float64), np.zeros_like(scores, np.float64)
        over_captions[present] = dual_softmax(scores[present], dual_softmax_scale, axis=1)
        over_videos[present] = dual_softmax(scores[present], dual_softmax_scale, axis=0)
        result["dual_softmax"] = {
            "scale": dual_softmax_scale,
            "t2v": ranking.summary(ranking.text_to_video(over_captions, owner, missing)),
            "v2t": ranking.summary(ranking.video_to_text(over_videos, owner, missing)),
        }
    return result


def similarities(
    video: Float[np.ndarray, "videos width"],
    text: Float[np.ndarray, "captions width"],
    missing: Bool[np.ndarray, " videos"],
) -> Float32[np.ndarray, "videos captions"]:
    """`ranking.similarity`; rows of missing videos are zero."""
    scores = np.zeros((len(video), len(text)), np.float32)
    scores[~missing] = ranking.similarity(video[~missing], text)
    return scores


def dual_softmax(
    scores: Float32[np.ndarray, "videos captions"], scale: float, axis: int
) -> Float[np.ndarray, "videos captions"]:
    """Scores times softmax(scale * scores) over the queries: axis 1 (captions) for text-to-video, axis 0 for the other.

    In float64: at CLIP's scale of 100 the softmax over many queries underflows in float32, which would make unequal
    scores tie. InternVideo uses scale 100 (it acts on logits), ViCLIP 1 (nearly no effect).
    """
    exact = scores.astype(np.float64)
    if not exact.size:
        return exact
    weights = np.exp(scale * (exact - exact.max(axis=axis, keepdims=True)))
    return exact * weights / weights.sum(axis=axis, keepdims=True)
