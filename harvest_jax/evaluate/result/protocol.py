"""The protocol of a result: every choice that decides its numbers, except the model; results with equal hashes compare.

What does not decide is not in it: names of files and folders, the order of rows, their ids, columns that the task does
not use. The model is not in it either, nor its resolution and its way of making pictures square: two models are
compared by one protocol, each with its own preprocessing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.settings import TaskSettings


def digest(value: Any) -> str:
    """sha256 (hex) of the value's canonical JSON: sorted keys, no spaces, UTF-8."""
    return hashlib.sha256(_canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def content_digest(items: Sequence[Any]) -> str:
    """sha256 (hex) of JSON values whose order does not matter."""
    return digest(sorted(map(_canonical, items)))


def protocol(
    settings: TaskSettings, data: EvaluationSet, content: Sequence[Any], of_task: Mapping[str, Any]
) -> dict[str, Any]:
    """The common choices, followed by the task's own.

    Args:
      settings: `settings.frames` is not 0 here. A `resize` that replaces the model's own is part of the protocol.
      data: the set, after its frames were read.
      content: what decides of each clip or row, see `results.TaskOutput`.
      of_task: the task's own choices.
    """
    return {
        "task": settings.task,
        "data": {
            **data.benchmark,
            "clips": len(data.clips),
            "sha256": content_digest(content),
        },
        "frames": settings.frames,
        "frame_source": data.reader.described(),
        **({"resize": settings.resize} if settings.resize else {}),
        **settings.dropping,
        "scores_dtype": "float32",
        "ties": "expectation",
        "missing": "wrong",
        **of_task,
    }


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
