"""Embeddings of the clips and texts of an evaluation set."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from harvest_jax.errors import DataError
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.result.results import TextFacts
from harvest_jax.evaluate.scores.cosines import unit_vectors
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.terminal import Progress

_WAITING = 2  # batches; more clips than in so many do not wait for others with as many frames

# Prepared clips to embeddings, one row for each: of `clip_encoder`, or another way to look at a clip.
VideoEncoder = Callable[[UInt8[np.ndarray, "b t h w 3"]], Float[np.ndarray, "b d"]]


@runtime_checkable
class VideoTextModel(Protocol):
    """The parts of a model that evaluations use; `harvest_jax.load` returns one."""

    config: Any
    name: str

    @property
    def origin(self) -> Mapping[str, Any]:
        """Where the parameters come from, as JSON."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the description and the parameters."""

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""

    @property
    def num_frames(self) -> int:
        """Frames of a clip that the model takes."""

    @property
    def logit_scale(self) -> float:
        """Factor on cosines before a softmax."""

    def encode_video(self, videos: UInt8[np.ndarray, "b t h w 3"]) -> Float[np.ndarray, "b d"]:
        """Clips to embeddings."""

    def encode_clips(self, clips: UInt8[np.ndarray, "b t s s 3"]) -> Float[np.ndarray, "b d"]:
        """Clips of exactly the frames that the model takes to embeddings; an image model takes any number."""

    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "b d"]:
        """Texts to embeddings."""

    def answer_logits(
        self, videos: UInt8[np.ndarray, "b t h w 3"], ids: Int[np.ndarray, "b l"], slot: Int[np.ndarray, " b"]
    ) -> Float[np.ndarray, "b vocab"]:
        """Logits over the vocabulary at one masked position of each text."""


@dataclasses.dataclass(frozen=True)
class VideoEmbeddings:
    """One row for each clip of the evaluation set, in its order.

    Attributes:
      values: float32; rows of missing clips are zero.
      missing: clips that could not be read.
      reasons: why, by clip number.
    """

    values: Float32[np.ndarray, "clips width"]
    missing: Bool[np.ndarray, " clips"]
    reasons: dict[int, str]


def is_image_model(model: VideoTextModel) -> bool:
    """Whether the model averages the embeddings of single frames, of which it takes any number."""
    return bool(model.config.video.num_frames == 1)


def clip_encoder(model: VideoTextModel) -> VideoEncoder:
    """How the model embeds prepared clips of any number of frames.

    Frames that are fewer than a video model takes are repeated evenly. An image model sees each once, so that all have
    the same weight in its average: as CLIP4Clip, which fills short clips with zeros and leaves these out of its mean.
    """
    return model.encode_clips if is_image_model(model) else model.encode_video


def frame_batches(
    model: VideoTextModel, data: EvaluationSet, settings: TaskSettings, unreadable: dict[int, str], progress: Progress
) -> Iterator[tuple[list[int], UInt8[np.ndarray, "b t s s 3"]]]:
    """Clip numbers and frames as the model needs them, `settings.batch_size` at a time (the last batch is smaller).

    A clip of several views or crops occurs once for each, one after the other. At a rate (`settings.sampling` "fps")
    clips with other numbers of frames come in other batches, which are smaller if too many of them wait.

    Clips that cannot be read are added to `unreadable`: clip number -> reason.

    Raises:
      DataError: no clip could be read; a wrong root folder is not a score of 0 %.
    """
    size, resize = model.config.video.image_size, settings.resize or model.config.preprocessing.resize
    waiting: dict[int, list[tuple[int, UInt8[np.ndarray, "t s s 3"]]]] = {}  # by number of frames
    clips = data.frames(settings.frames, size, resize, settings.frame_sampling)
    for done, (number, clip) in enumerate(clips, start=1):
        if isinstance(clip, str):
            unreadable[number] = clip
        for view in () if isinstance(clip, str) else clip.views:
            batch = waiting.setdefault(len(view), [])
            batch.append((number, view))
            if len(batch) == settings.batch_size or sum(map(len, waiting.values())) > _WAITING * settings.batch_size:
                yield _batch(waiting.pop(max(waiting, key=lambda frames: len(waiting[frames]))))
        progress(done, len(data.clips), "")
    while waiting:
        yield _batch(waiting.pop(next(iter(waiting))))
    if len(unreadable) == len(data.clips):
        number, reason = next(iter(unreadable.items()))
        raise DataError(
            f"none of the {len(data.clips)} videos of {data.name} could be read; the first, "
            f"{data.clips[number].video}: {reason} (is {data.folder_field} right?)"
        )


def _batch(
    rows: Sequence[tuple[int, UInt8[np.ndarray, "t s s 3"]]],
) -> tuple[list[int], UInt8[np.ndarray, "b t s s 3"]]:
    return [number for number, _ in rows], np.stack([frames for _, frames in rows])


def embed_videos(
    model: VideoTextModel, data: EvaluationSet, settings: TaskSettings, progress: Progress
) -> VideoEmbeddings:
    """Embed every clip of the set, `settings.batch_size` clips a call; errors as `frame_batches`."""
    return embed_in_ways(model, data, settings, progress, [clip_encoder(model)])[0]


def embed_in_ways(
    model: VideoTextModel,
    data: EvaluationSet,
    settings: TaskSettings,
    progress: Progress,
    encoders: Sequence[VideoEncoder],
) -> list[VideoEmbeddings]:
    """Embed every clip once by each of several encoders; each clip is read once.

    The embedding of a clip of several views and crops is the mean of their unit embeddings, as a unit vector.

    Raises:
      DataError: as `frame_batches`.
      NonFiniteError: the embedding of one of several views is zero or not finite.
    """
    unreadable: dict[int, str] = {}
    rows: list[dict[int, Float[np.ndarray, " width"]]] = [{} for _ in encoders]
    averaged = settings.views * settings.crops > 1
    for numbers, frames in frame_batches(model, data, settings, unreadable, progress):
        for encode, own in zip(encoders, rows, strict=True):
            embedded = np.asarray(encode(frames), np.float32)
            if not averaged:
                own.update(zip(numbers, embedded, strict=True))
                continue
            for number, row in zip(numbers, unit_vectors(embedded, "video"), strict=True):
                own[number] = own[number] + row if number in own else row
    if averaged:
        rows = [dict(zip(own, unit_vectors(np.stack(list(own.values())), "video"), strict=True)) for own in rows]
    return [_in_order(own, len(data.clips), unreadable) for own in rows]


def _in_order(rows: dict[int, Float[np.ndarray, " width"]], count: int, unreadable: dict[int, str]) -> VideoEmbeddings:
    missing = np.array([number not in rows for number in range(count)])
    values = np.zeros((count, len(next(iter(rows.values())))), np.float32)
    for number, row in rows.items():
        values[number] = row
    return VideoEmbeddings(values, missing, unreadable)


def text_facts(model: VideoTextModel, texts: Sequence[str]) -> TextFacts:
    """How many of the texts are longer than the model's text tower takes; equal texts count each time."""
    length = model.config.text.context_length
    longer = {text for text in set(texts) if len(model.tokenizer.encode(text)) + 2 > length}  # with start and end
    return TextFacts(len(texts), length, sum(text in longer for text in texts))


def embed_texts(model: VideoTextModel, texts: Sequence[str], batch_size: int) -> Float32[np.ndarray, "texts width"]:
    """Embed texts. Equal ones are embedded once, so that their embeddings are equal whatever batch they are in."""
    distinct = list(dict.fromkeys(texts))
    parts = [
        np.asarray(model.encode_text(distinct[start : start + batch_size]), np.float32)
        for start in range(0, len(distinct), batch_size)
    ]
    number = {text: i for i, text in enumerate(distinct)}
    return np.concatenate(parts)[[number[text] for text in texts]]
