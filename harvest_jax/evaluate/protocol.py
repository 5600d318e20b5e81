"""The protocol of a result: every choice that decides its numbers, and the hash by which two results are compared."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from harvest_jax.evaluate.embeddings import VideoTextModel
from harvest_jax.evaluate.evaluation_set import EvaluationSet
from harvest_jax.evaluate.settings import TaskSettings

RESIZES = {  # what the protocol says of `Preprocessing.resize`
    "crop": "shorter side to image_size, bicubic with antialias, centre crop",
    "squash": "both sides to image_size, bicubic with antialias",
}


def digest(value: Any) -> str:
    """sha256 (hex) of the value's canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def content_digest(data: EvaluationSet) -> str:
    """sha256 of the rows: ids, clips, captions and all other columns, but no folder names."""
    return digest(
        [[row.id, dataclasses.astuple(data.clips[row.clip]), row.captions, row.extra] for row in data.samples]
    )


def protocol(
    settings: TaskSettings, model: VideoTextModel, data: EvaluationSet, of_task: Mapping[str, Any]
) -> dict[str, Any]:
    """The common choices, followed by the task's own (`of_task`); `settings.frames` is not 0 here."""
    return {
        "task": settings.task,
        "data": {
            "name": data.name,
            "kind": data.kind,
            "split": data.split,
            "rows": len(data.samples),
            "sha256": content_digest(data),
        },
        "frames": settings.frames,
        "model_frames": model.num_frames,
        "sampling": "segment_middle",
        "resize": RESIZES[model.config.preprocessing.resize],
        "image_size": model.config.video.image_size,
        "scores_dtype": "float32",
        "ties": "expectation",
        "missing": "wrong",
        **of_task,
    }
