"""A model run over an evaluation set: one embedding a clip, one a distinct text."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from harvest_jax.errors import DataError
from harvest_jax.evaluate.clips import EvaluationSet

Report = Callable[[int, int], None]  # clips done, clips in all


@runtime_checkable
class VideoTextModel(Protocol):
    """What an evaluation asks of a model; `harvest_jax.load` gives one."""

    config: Any
    name: str

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""

    @property
    def num_frames(self) -> int:
        """Frames the model looks at."""

    @property
    def logit_scale(self) -> float:
        """Factor on cosines before a softmax."""

    def encode_video(self, videos: UInt8[np.ndarray, "b t h w 3"]) -> Float[np.ndarray, "b d"]:
        """Clips to embeddings."""

    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "b d"]:
        """Texts to embeddings."""

    def answer_logits(
        self, videos: UInt8[np.ndarray, "b t h w 3"], ids: Int[np.ndarray, "b l"], slot: Int[np.ndarray, " b"]
    ) -> Float[np.ndarray, "b vocab"]:
        """Logits over the vocabulary at one hidden position of each text."""


@dataclasses.dataclass(frozen=True)
class VideoEmbeddings:
    """One row a clip of the evaluation set, in its order.

    Attributes:
      values: float32; rows of missing clips are zero.
      missing: clips that could not be read.
      reasons: why, by clip number.
    """

    values: Float32[np.ndarray, "clips width"]
    missing: Bool[np.ndarray, " clips"]
    reasons: dict[int, str]


def silent(done: int, total: int) -> None:
    """No progress report."""


def batches(
    model: VideoTextModel,
    data: EvaluationSet,
    num_frames: int,
    batch_size: int,
    reasons: dict[int, str],
    report: Report = silent,
) -> Iterator[tuple[list[int], UInt8[np.ndarray, "b t s s 3"]]]:
    """Clip numbers and frames, `batch_size` at a time (the last batch is smaller); unreadable ones go to `reasons`.

    Their size and form are the model's (`config.video.image_size`, `config.preprocessing.resize`).
    """
    size, resize = model.config.video.image_size, model.config.preprocessing.resize
    numbers: list[int] = []
    frames: list[UInt8[np.ndarray, "t s s 3"]] = []
    for done, (number, clip) in enumerate(data.frames(num_frames, size, resize), start=1):
        if isinstance(clip, str):
            reasons[number] = clip
        else:
            numbers.append(number)
            frames.append(clip)
        report(done, len(data.clips))
        if len(numbers) == batch_size:
            yield numbers, np.stack(frames)
            numbers, frames = [], []
    if numbers:
        yield numbers, np.stack(frames)


def embed_videos(
    model: VideoTextModel, data: EvaluationSet, num_frames: int, batch_size: int, report: Report = silent
) -> VideoEmbeddings:
    """Embed every clip of the set.

    Args:
      model: asked for `encode_video` and what `batches` asks for.
      data: the set.
      num_frames: distinct frames of a clip, at most what the model takes (it repeats them).
      batch_size: clips a call.
      report: called after each clip.

    Raises:
      DataError: no clip could be read.
    """
    reasons: dict[int, str] = {}
    rows: dict[int, Float[np.ndarray, " width"]] = {}
    for numbers, frames in batches(model, data, num_frames, batch_size, reasons, report):
        rows.update(zip(numbers, np.asarray(model.encode_video(frames), np.float32), strict=True))
    require_some(data, reasons)
    missing = np.array([number not in rows for number in range(len(data.clips))])
    values = np.zeros((len(data.clips), len(next(iter(rows.values())))), np.float32)
    for number, row in rows.items():
        values[number] = row
    return VideoEmbeddings(values, missing, reasons)


def require_some(data: EvaluationSet, reasons: dict[int, str]) -> None:
    """Raise DataError if no clip at all could be read: a wrong root folder is no score of 0 %."""
    if len(reasons) == len(data.clips):
        number, reason = next(iter(reasons.items()))
        raise DataError(
            f"none of the {len(data.clips)} videos of {data.name} could be read; the first, "
            f"{data.clips[number].video}: {reason} (is data.root right?)"
        )


def embed_texts(model: VideoTextModel, texts: Sequence[str], batch_size: int) -> Float32[np.ndarray, "texts width"]:
    """Embed texts; equal ones once, so that they get equal embeddings whatever batch they would have come in."""
    distinct = list(dict.fromkeys(texts))
    parts = [
        np.asarray(model.encode_text(distinct[start : start + batch_size]), np.float32)
        for start in range(0, len(distinct), batch_size)
    ]
    number = {text: i for i, text in enumerate(distinct)}
    return np.concatenate(parts)[[number[text] for text in texts]]
