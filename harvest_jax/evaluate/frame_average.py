"""The frame-averaging baseline: what a model scores if it sees the frames of a clip but not their order.

Each frame is shown to the model as a clip in which nothing moves, and the embeddings of these stills are averaged. What
the model scores above this average is what it takes from the order of the frames. An image model averages its frames
anyway (`model/inference.py`), so that its baseline is itself; an image model before any training on videos is the
baseline of the demo's report.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from harvest_jax.evaluate.clips.embeddings import (
    FORWARD,
    VideoEmbeddings,
    VideoTextModel,
    clip_encoder,
    embed_in_ways,
    embed_videos,
    is_image_model,
)
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.terminal import Progress

FRAME_AVERAGE = "frame_average"  # name of this way to look at a clip
IN_WORDS = "mean of the unit embeddings of each frame shown as a clip"  # for protocols


def average_of_frames(
    model: VideoTextModel, clips: UInt8[np.ndarray, "b t h w 3"]
) -> Float[np.ndarray, "b d"] | Float32[np.ndarray, "b d"]:
    """The mean of the unit embeddings of each clip's frames; each frame is repeated T times, as a clip of its own.

    It costs T times an embedding of the clips (nothing more than one for an image model). Rows are not normalised.
    """
    if is_image_model(model):
        return model.encode_clips(clips)
    total = np.zeros((), np.float64)
    for t in range(clips.shape[1]):
        still = np.repeat(clips[:, t : t + 1], clips.shape[1], axis=1)
        embedded = np.asarray(model.encode_video(still), np.float64)
        total = total + embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    return (total / clips.shape[1]).astype(np.float32)


def embed_and_score(
    model: VideoTextModel,
    data: EvaluationSet,
    settings: TaskSettings,
    progress: Progress,
    score: Callable[[VideoEmbeddings], dict[str, Any]],
    beside_average: bool = True,
) -> tuple[VideoEmbeddings, dict[str, Any]]:
    """The model's embeddings and scores; under "frame_average" the scores of the averaged frames.

    Args:
      model, data, settings, progress: as `embeddings.embed_videos`, whose errors it has.
      score: the task's metrics from embeddings of all clips.
      beside_average: False leaves the average out.
    """
    if not beside_average:
        own = embed_videos(model, data, settings, progress)
        return own, score(own)
    own, averaged = embed_in_ways(
        model,
        data,
        settings,
        progress,
        {FORWARD: clip_encoder(model), FRAME_AVERAGE: lambda clips: average_of_frames(model, clips)},
    )
    return own, {**score(own), "frame_average": without_bounds(score(averaged))}


def without_bounds(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics without `optimistic` and `pessimistic` at any depth.

    Ties of a baseline are no reason to doubt the model's own figures, and these two are what `results.tie_spread` warns
    about.
    """
    return {
        name: without_bounds(value) if isinstance(value, dict) else value
        for name, value in metrics.items()
        if name not in ("optimistic", "pessimistic")
    }
