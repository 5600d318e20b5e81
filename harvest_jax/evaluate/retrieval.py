"""Text-to-video and video-to-text retrieval over a gallery; scored as `ranking` explains."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from harvest_jax.evaluate import ranking


def score(
    video: Float[np.ndarray, "videos width"],
    text: Float[np.ndarray, "captions width"],
    owner: Int[np.ndarray, " captions"],
    missing: Bool[np.ndarray, " videos"],
    dual_softmax_scale: float = 0.0,
) -> dict[str, Any]:
    """R@1/5/10 (percent), MedR and MnR in both directions.

    Args:
      video: embeddings; rows of missing videos are not looked at.
      text: embeddings of all captions.
      owner: the video (row) of each caption; several captions a video are each a text-to-video query, and the
        best-ranked of them counts video-to-text.
      missing: videos that could not be read; they stay in the gallery and have the last rank.
      dual_softmax_scale: other than 0 adds the block "dual_softmax", which looks at all test queries at once and is no
        figure to compare plain ones with.

    Returns:
      {"t2v", "v2t"}: `ranking.summary` of each, and "dual_softmax": {"scale", "t2v", "v2t"} where asked for.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
      DataError: a video has no caption.
    """
    present = ~missing
    scores = np.zeros((len(video), len(text)), np.float32)
    scores[present] = ranking.similarity(video[present], text)
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


def dual_softmax(
    scores: Float32[np.ndarray, "videos captions"], scale: float, axis: int
) -> Float[np.ndarray, "videos captions"]:
    """Scores times softmax(scale * scores) over the queries: axis 1 (captions) for text-to-video, axis 0 for the other.

    float64, as the softmax of many queries underflows float32 at CLIP's scale of 100 and would tie what is not equal.
    The scale decides what this does: 100 is InternVideo's (it acts on logits), 1 ViCLIP's (nearly no effect).
    """
    exact = scores.astype(np.float64)
    if not exact.size:
        return exact
    weights = np.exp(scale * (exact - exact.max(axis=axis, keepdims=True)))
    return exact * weights / weights.sum(axis=axis, keepdims=True)
