"""Embeddings of the clips and texts of an evaluation set."""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from harvest_jax.evaluate.clips.embedding_store import EmbeddingStore
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet
from harvest_jax.evaluate.clips.frame_batches import frame_batches
from harvest_jax.evaluate.clips.known_clips import KnownClip
from harvest_jax.evaluate.clips.stored_clips import StoredClips
from harvest_jax.evaluate.result.results import TextFacts
from harvest_jax.evaluate.scores.cosines import unit_vectors
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.model.batches import BATCH_SIZES, TEXT_LENGTHS, text_lengths
from harvest_jax.model.inference import PRECISION
from harvest_jax.terminal import Progress

FORWARD = "forward"  # name of the way to look at a clip as it is

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


class ModelWithStore:
    """A model whose embeddings are taken from a store where it has them, and are stored where it has not."""

    def __init__(self, model: VideoTextModel, store: EmbeddingStore) -> None:
        self.model, self.store = model, store
        self.config, self.name = model.config, model.name

    @property
    def origin(self) -> Mapping[str, Any]:
        """The model's."""
        return self.model.origin

    @property
    def digest(self) -> str:
        """The model's."""
        return self.model.digest

    @property
    def tokenizer(self) -> Any:
        """The model's."""
        return self.model.tokenizer

    @property
    def num_frames(self) -> int:
        """The model's."""
        return self.model.num_frames

    @property
    def logit_scale(self) -> float:
        """The model's."""
        return self.model.logit_scale

    def encode_video(self, videos: UInt8[np.ndarray, "b t h w 3"]) -> Float[np.ndarray, "b d"]:
        """The model's: without the store, which knows clips by their files and not by their frames."""
        return self.model.encode_video(videos)

    def encode_clips(self, clips: UInt8[np.ndarray, "b t s s 3"]) -> Float[np.ndarray, "b d"]:
        """The model's, as `encode_video`."""
        return self.model.encode_clips(clips)

    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "b d"]:
        """The model's; `embed_texts` uses the store."""
        return self.model.encode_text(texts)

    def answer_logits(
        self, videos: UInt8[np.ndarray, "b t h w 3"], ids: Int[np.ndarray, "b l"], slot: Int[np.ndarray, " b"]
    ) -> Float[np.ndarray, "b vocab"]:
        """The model's: logits are not stored."""
        return self.model.answer_logits(videos, ids, slot)


def is_image_model(model: VideoTextModel) -> bool:
    """Whether the model averages the embeddings of single frames, of which it takes any number."""
    return bool(model.config.video.num_frames == 1)


def clip_encoder(model: VideoTextModel) -> VideoEncoder:
    """How the model embeds prepared clips of any number of frames.

    Frames that are fewer than a video model takes are repeated evenly. An image model sees each once, so that all have
    the same weight in its average: as CLIP4Clip, which fills short clips with zeros and leaves these out of its mean.
    """
    return model.encode_clips if is_image_model(model) else model.encode_video


def embed_videos(
    model: VideoTextModel, data: EvaluationSet, settings: TaskSettings, progress: Progress
) -> VideoEmbeddings:
    """Embed every clip of the set, `settings.batch_size` clips a call; errors as `frame_batches`."""
    return embed_in_ways(model, data, settings, progress, {FORWARD: clip_encoder(model)})[0]


def embed_in_ways(
    model: VideoTextModel,
    data: EvaluationSet,
    settings: TaskSettings,
    progress: Progress,
    encoders: Mapping[str, VideoEncoder],
) -> list[VideoEmbeddings]:
    """Embed every clip once by each of several encoders; each clip is read once, or not at all if a store knows it.

    The embedding of a clip of several views and crops is the mean of their unit embeddings, as a unit vector.

    Args:
      model, data, settings, progress: as for `embed_videos`.
      encoders: by name. One that is changed gets another name, or `embeddings_file.METHOD` is raised: the store knows
        embeddings by the name.

    Returns:
      one for each encoder, in their order.

    Raises:
      DataError: as `frame_batches`.
      NonFiniteError: the embedding of one of several views is zero or not finite.
    """
    unreadable: dict[int, str] = {}
    rows: dict[str, dict[int, Float[np.ndarray, " width"]]] = {way: {} for way in encoders}
    known = None
    if isinstance(model, ModelWithStore):
        known = StoredClips(model.store, encoders, _clips_made_by(model, data, settings))
        rows = known.rows
    parts = {way: _Parts(settings.views * settings.crops) for way in encoders}
    for batch in frame_batches(model.config, data, settings, unreadable, progress, known):
        for way, encode in encoders.items():
            lacking = [i for i, number in enumerate(batch.numbers) if number not in rows[way]]
            if not lacking:
                continue
            padding = np.zeros((-len(lacking) % call_rows(settings.batch_size), *batch.frames.shape[1:]), np.uint8)
            embedded = np.asarray(encode(np.concatenate([batch.frames[lacking], padding])), np.float32)
            whole = parts[way].add([(batch.numbers[i], batch.views[i]) for i in lacking], embedded[: len(lacking)])
            rows[way] |= whole
            if known is not None and whole:
                about = map(KnownClip, batch.distinct, batch.converted)
                facts = dict(zip(batch.numbers, about, strict=True))
                known.add(way, list(whole), np.stack(list(whole.values())), [facts[number] for number in whole])
        if known is not None:
            known.write_if_due()
    return [_in_order(own, len(data.clips), unreadable) for own in rows.values()]


def call_rows(batch_size: int) -> int:
    """Rows of the program that a call of so many runs: a call is filled up to a multiple of them.

    A compiled program rounds otherwise for another number of rows, but alike for each row wherever it stands. So the
    embedding of a clip does not depend on the clips beside it, nor on how many of them a store knew already.
    """
    return min(size for size in BATCH_SIZES if size >= min(batch_size, BATCH_SIZES[-1]))


class _Parts:
    """The unit embeddings of views and crops, until all of a clip are there.

    They are added in their order, and not as they come, which depends on the clips beside them.
    """

    def __init__(self, views: int) -> None:
        self._views = views
        self._rows: dict[int, dict[int, Float[np.ndarray, " width"]]] = collections.defaultdict(dict)

    def add(
        self, views: Sequence[tuple[int, int]], embedded: Float32[np.ndarray, "rows width"]
    ) -> dict[int, Float32[np.ndarray, " width"]]:
        """The embeddings of the clips that these rows, of (clip, view), make whole."""
        if self._views == 1:
            return {number: row for (number, _), row in zip(views, embedded, strict=True)}
        whole = {}
        for (number, view), row in zip(views, unit_vectors(embedded, "video"), strict=True):
            self._rows[number][view] = row
            if len(self._rows[number]) == self._views:
                own = self._rows.pop(number)
                total = np.sum(np.stack([own[one] for one in range(self._views)]), axis=0)
                whole[number] = unit_vectors(total[None], "video")[0].astype(np.float32)
        return whole


def _clips_made_by(model: VideoTextModel, data: EvaluationSet, settings: TaskSettings) -> dict[str, Any]:
    """All that decides about the embedding of a clip besides the model, its content and the way to look at it."""
    several = settings.views * settings.crops > 1
    return {
        "frames": settings.frames,
        **settings.frame_sampling.described(),
        **({"average": "unit vector of the mean of the unit embeddings of views and crops"} if several else {}),
        "image_size": model.config.video.image_size,
        "resize": settings.resize or model.config.preprocessing.resize,
        "frame_source": data.reader.preparation(),
        **settings.dropping,
        "matmul_precision": PRECISION,
        "rows_of_a_call": call_rows(settings.batch_size),
    }


def _in_order(rows: dict[int, Float[np.ndarray, " width"]], count: int, unreadable: dict[int, str]) -> VideoEmbeddings:
    missing = np.array([number not in rows for number in range(count)])
    values = np.zeros((count, len(next(iter(rows.values())))), np.float32)
    for number, row in rows.items():
        values[number] = row
    return VideoEmbeddings(values, missing, unreadable)


def text_facts(model: VideoTextModel, texts: Sequence[str]) -> TextFacts:
    """How many of the texts are longer than the model's text tower takes; equal texts count each time."""
    length = model.config.text.context_length
    longer = {text for text in set(texts) if len(model.tokenizer.encode(text)) + model.tokenizer.around > length}
    return TextFacts(len(texts), length, sum(text in longer for text in texts))


def embed_texts(model: VideoTextModel, texts: Sequence[str], batch_size: int) -> Float32[np.ndarray, "texts width"]:
    """Embed texts, or take them from the store. Equal ones are embedded once, and so are equal in every bit.

    A call has texts whose programs compute the same number of tokens: so it runs one program, with all of its rows.
    """
    distinct = list(dict.fromkeys(texts))
    ids = model.tokenizer(distinct, model.config.text.context_length)
    rows: dict[str, Float[np.ndarray, " width"]] = {}
    store = model.store if isinstance(model, ModelWithStore) else None
    if store is not None:
        made_by = {
            "matmul_precision": PRECISION,
            "rows_of_a_call": call_rows(batch_size),
            "tokens_of_a_call": list(TEXT_LENGTHS),
        }
        folder = store.folder("text", made_by)
        keys = {text: hashlib.sha256(row.tobytes()).hexdigest() for text, row in zip(distinct, ids, strict=True)}
        rows = {text: stored.embedding for text in distinct if (stored := folder.find(keys[text])) is not None}
    alike: dict[int, list[str]] = collections.defaultdict(list)
    for text, length in zip(distinct, text_lengths(ids, model.config.text.fixed_length), strict=True):
        alike[int(length)] += [] if text in rows else [text]
    for lacking in alike.values():
        for start in range(0, len(lacking), batch_size):
            batch = lacking[start : start + batch_size]
            padding = batch[-1:] * (-len(batch) % call_rows(batch_size))
            embedded = np.asarray(model.encode_text(batch + padding), np.float32)[: len(batch)]
            rows.update(zip(batch, embedded, strict=True))
            if store is not None:
                folder.add([keys[text] for text in batch], embedded, batch)
                store.write_if_due()
    return np.stack([rows[text] for text in texts])
