"""Use of a trained model: `load` a model folder, embed videos and texts, answer at a masked word."""

import contextlib
import functools
import hashlib
import itertools
import json
import math
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from harvest_jax.arguments_of_videos import Array, Videos, described, each_video, is_clips, items_of
from harvest_jax.checkpoint.tree_digest import tree_digest
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.input.file_tokenizer import TextTokenizer
from harvest_jax.input.patches import keep_positions
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.machine import available_cores
from harvest_jax.model.batches import InBatches, place, text_lengths
from harvest_jax.model.config import IMAGE_MODEL_FRAMES, HarvestConfig
from harvest_jax.model.cpu_attention import attention_of
from harvest_jax.model.harvest import Harvest, Params
from harvest_jax.model.inference import (
    answer_logits,
    class_attention,
    class_logits,
    head_answer_logits,
    text_embedding,
    video_embedding,
)
from harvest_jax.pixels.square import prepare_clip
from harvest_jax.weights.workdir_model import load_any_model


class Model:
    """A model ready for use. All patches are kept unless it is told otherwise; everything is computed in float32.

    Args:
      config: the towers' description.
      params: nested dict of arrays.
      name: for error messages, such as the folder.
      device: where the parameters lie and everything is computed; None is JAX's default device. Several devices of this
        process each hold all parameters, and divide among them calls with more than 16 rows.
      origin: JSON values that say where the parameters come from, such as run and step.
      keep_ratio, seed: see `keeping`.
      tokenizer: the model's; None: CLIP's.
    """

    def __init__(
        self,
        config: HarvestConfig,
        params: Params,
        name: str,
        device: jax.Device | Sequence[jax.Device] | None = None,
        origin: Mapping[str, Any] | None = None,
        keep_ratio: float = 1.0,
        seed: int = 0,
        tokenizer: TextTokenizer | None = None,
    ) -> None:
        if tokenizer is None and config.text.tokenizer:
            raise DataError(f"{name} has a tokenizer of its own: load the model from its folder")
        self.config = config
        self.name = name
        self.origin = dict(origin or {})
        self.tokenizer: TextTokenizer = tokenizer or Tokenizer(config.text.vocab_size)
        devices = device if device is None or isinstance(device, Sequence) else (device,)
        self.num_devices = 1 if devices is None else len(devices)
        self.params = place(params, devices)
        self._over: dict[tuple[jax.Device, ...], Model] = {}
        self._keeping: dict[tuple[float, int], Model] = {}
        self._devices, self._kept = devices, (keep_ratio, seed)
        video = config.video
        grid = (video.num_frames, (video.image_size // video.patch_size) ** 2)
        cells = None if keep_ratio == 1.0 else keep_positions(np.random.default_rng(seed), *grid, keep_ratio)
        platform = devices[0].platform if devices else jax.default_backend()
        harvest = Harvest(config, attention=attention_of(platform))
        self._video = InBatches(functools.partial(video_embedding, harvest, cells=cells), devices)
        self._attention = InBatches(functools.partial(class_attention, harvest, cells=cells), devices)
        self._text = InBatches(functools.partial(text_embedding, harvest), devices)
        self._answer = InBatches(functools.partial(answer_logits, harvest, cells=cells), devices)
        self._classes = InBatches(functools.partial(class_logits, harvest, cells=cells), devices)
        self._head_answer = InBatches(functools.partial(head_answer_logits, harvest, cells=cells), devices)

    def over(self, devices: Sequence[jax.Device]) -> "Model":
        """The same model on these devices of this process; its results are the same in every bit.

        A second call with the same devices gives the same object, whose programs are compiled.
        """
        asked = tuple(devices)
        if asked not in self._over:
            self._over[asked] = Model(
                self.config, self.params, self.name, asked, self.origin, *self._kept, self.tokenizer
            )
        return self._over[asked]

    def keeping(self, keep_ratio: float, seed: int = 0) -> "Model":
        """The same model, which looks at this share of the patches of a clip: faster, and less exact.

        Which patches is drawn once by the seed, over the whole clip as in training, and is the same for every clip; an
        image model looks at the same patches of each frame. Our choice: what a clip's embedding is depends on nothing
        but the clip. A second call gives the same object, whose programs are compiled.

        Raises:
          ConfigError: `keep_ratio` is not within (0, 1], or the seed is negative.
        """
        if not 0 < keep_ratio <= 1:
            raise ConfigError(f"keep_ratio={keep_ratio}: must be above 0, and 1 at most (all patches)")
        if seed < 0:
            raise ConfigError(f"seed={seed}: must not be negative")
        asked = keep_ratio, seed
        if asked not in self._keeping:
            self._keeping[asked] = Model(
                self.config, self.params, self.name, self._devices, self.origin, *asked, self.tokenizer
            )
        return self._keeping[asked]

    @property
    def num_frames(self) -> int:
        """Frames taken of a clip: as many as in the model's training; 8 for an image model."""
        return self.config.video.num_frames if self.config.video.num_frames > 1 else IMAGE_MODEL_FRAMES

    @property
    def logit_scale(self) -> float:
        """exp of the learned scale: the factor on cosines before a softmax."""
        return float(np.exp(np.asarray(self.params["logit_scale"])))

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the description and the parameters in float32, wherever they lie."""
        # Not over the file: safetensors writes its header in another order each time.
        parts = [self.config.to_dict(), tree_digest(self.params)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def encode_video(self, videos: Videos) -> Float[np.ndarray, "b d"]:
        """Embed clips.

        An image model (trained on single frames) embeds each frame and averages the normalised embeddings.

        Clips are decoded, prepared and embedded 16 at a time. Apart from the result and what the caller holds, memory
        is that of the parameters, one batch of 16, and the prepared clips that the decoding processes have finished
        (at most 16 for each core); it does not grow with the number of videos. A generator is read as far as needed.

        Args:
          videos: one clip: a path, or an array uint8 RGB [T, H, W, 3]. Many clips: an array [B, T, H, W, 3], or a
            sequence or generator of paths, or of arrays [T, H, W, 3] of any sizes. Arrays may be NumPy's or JAX's.
            The middle frames of `num_frames` equal segments are taken and made squares as in the model's training
            (`config.preprocessing.resize`).

        Returns:
          float32 [B, D], L2-normalised; B is 1 for one clip.

        Raises:
          DataError: an argument of another kind, or a file that cannot be read: its name and the reason.
        """
        with contextlib.closing(self._prepared(videos)) as clips:
            return self._video(self.params, ((clip,) for clip in clips), self.config.video.embed_dim)

    def prepare(self, videos: Videos) -> UInt8[np.ndarray, "b t s s 3"]:
        """The frames that the model sees: uint8 [B, num_frames, image_size, image_size, 3], all in memory.

        Args:
          videos: as for `encode_video`.

        Raises:
          DataError: as for `encode_video`.
        """
        with contextlib.closing(self._prepared(videos)) as prepared:
            clips = list(prepared)
        size = self.config.video.image_size
        return np.stack(clips) if clips else np.zeros((0, self.num_frames, size, size, 3), np.uint8)

    def encode_clips(self, clips: UInt8[Array, "b t s s 3"]) -> Float[np.ndarray, "b d"]:
        """As `encode_video`, of clips already prepared.

        Args:
          clips: uint8 [B, T, image_size, image_size, 3]; T is `num_frames`, for an image model any number.

        Raises:
          DataError: another dtype or shape.
        """
        size, frames = self.config.video.image_size, self.config.video.num_frames
        wanted = (frames if frames > 1 else "T", size, size, 3)
        if not is_clips(clips, 5) or clips.shape[2:] != wanted[1:] or (frames > 1 and clips.shape[1] != frames):
            shape = ", ".join(map(str, wanted))
            raise DataError(
                f"prepared clips must be uint8 [B, {shape}], not {described(clips)}; encode_video takes any size"
            )
        return self._video(self.params, ((clip,) for clip in np.asarray(clips)), self.config.video.embed_dim)

    def attention(self, videos: Videos) -> Float[np.ndarray, "b layers t h w"]:
        """Where the class token, from which the embedding is computed, looks in each frame.

        Attention is no explanation: it says which patches are mixed in, not what follows from them.

        Args:
          videos: as for `encode_video`.

        Returns:
          float32 [B, layers, num_frames, h, w]: in each layer the weight on each patch, mean over the heads. The
          weights of a layer sum to 1 less the class token's weight on itself; an image model's do so in each frame.

        Raises:
          DataError: as for `encode_video`.
        """
        video = self.config.video
        rows = video.image_size // video.patch_size
        grid = (video.layers, self.num_frames, rows, rows)
        with contextlib.closing(self._prepared(videos)) as clips:
            weights = self._attention(self.params, ((clip,) for clip in clips), math.prod(grid))
        return weights.reshape(-1, *grid)

    def encode_text(self, texts: str | Iterable[str]) -> Float[np.ndarray, "b d"]:
        """Embed texts; what exceeds the text tower's context is cut.

        Short texts cost less: each is computed up to the next of a few lengths (`batches.TEXT_LENGTHS`).

        Args:
          texts: one text, or a sequence or generator of texts.

        Returns:
          float32 [B, D], L2-normalised; B is 1 for one text.

        Raises:
          DataError: an argument of another kind.
        """
        rows = (
            [texts] if isinstance(texts, str) else list(items_of(texts, "texts", "a string or a sequence of strings"))
        )
        for number, text in enumerate(rows):
            if not isinstance(text, str):
                raise DataError(f"texts[{number}] must be a string, not {described(text)}")
        ids = self.tokenizer(rows, self.config.text.context_length)
        lengths, width = text_lengths(ids, self.config.text.fixed_length), self.config.text.embed_dim
        embedded = np.zeros((len(rows), width), np.float32)
        for length in np.unique(lengths):
            own = lengths == length
            embedded[own] = self._text(self.params, ((row,) for row in ids[own, :length]), width)
        return embedded

    def answer_logits(
        self, videos: Videos, ids: Int[np.ndarray, "b l"], slot: Int[np.ndarray, " b"]
    ) -> Float[np.ndarray, "b vocab"]:
        """The decoder's logits for one hidden token of each text, given its clip.

        Args:
          videos: as for `encode_video`, one clip for each text.
          ids: int32 token ids as the tokenizer gives them; the id at `slot` is hidden.
          slot: int32, position in the text.

        Returns:
          float32 logits over the vocabulary.

        Raises:
          DataError: the model has no decoder, numbers of rows differ, or as for `encode_video`.
        """
        if self.config.decoder is None:
            raise DataError(f"{self.name} has no decoder for masked words: it can embed but not answer")
        return self._answer(self.params, self._asked(videos, ids, slot), self.config.text.vocab_size)

    @property
    def classes(self) -> tuple[str, ...]:
        """What the fine-tuned head chooses from: class names or answers, in the order of its logits; () without one."""
        return self.config.head.classes if self.config.head else ()

    def class_logits(self, videos: Videos) -> Float[np.ndarray, "b classes"]:
        """The scores of `classes` by a head that was fine-tuned to classify videos.

        Args:
          videos: as for `encode_video`.

        Returns:
          float32 logits.

        Raises:
          DataError: the model has no such head, or as for `encode_video`.
        """
        self._check_head("classification", answers=False)
        with contextlib.closing(self._prepared(videos)) as clips:
            return self._classes(self.params, ((clip,) for clip in clips), len(self.classes))

    def head_answer_logits(
        self, videos: Videos, ids: Int[np.ndarray, "b l"], slot: Int[np.ndarray, " b"]
    ) -> Float[np.ndarray, "b classes"]:
        """The scores of `classes` by a head that was fine-tuned to answer questions.

        Args:
          videos, ids, slot: as for `answer_logits`; the text should be prompted as in the fine-tuning.

        Returns:
          float32 logits.

        Raises:
          DataError: the model has no such head, or as for `answer_logits`.
        """
        self._check_head("videoqa", answers=True)
        return self._head_answer(self.params, self._asked(videos, ids, slot), len(self.classes))

    def _check_head(self, objective: str, answers: bool) -> None:
        if self.config.head is None or (self.config.head.kind == "answers") != answers:
            found = f"a head for {'classes' if answers else 'answers'}" if self.config.head else "no head"
            raise DataError(f"{self.name} has {found}: `harvest train --config finetune/{objective}` makes one")

    def _asked(
        self, videos: Videos, ids: Int[np.ndarray, "b l"], slot: Int[np.ndarray, " b"]
    ) -> Iterator[tuple[np.ndarray, ...]]:
        clips = self.prepare(videos)
        if not len(clips) == len(ids) == len(slot):
            raise DataError(f"{len(clips)} videos, {len(ids)} rows of ids and {len(slot)} slots: give equal numbers")
        return zip(clips, ids, slot, strict=True)

    def _prepared(self, videos: Videos) -> Generator[UInt8[np.ndarray, "t s s 3"]]:
        """Clips as the model sees them, one by one."""
        size, resize = self.config.video.image_size, self.config.preprocessing.resize
        items = each_video(videos)
        first = next(items, None)
        if first is None:
            return
        items = itertools.chain([first], items)
        clips = self._decoded(items) if isinstance(first, str) else items
        del first  # an array would stay in memory
        for frames in clips:
            yield prepare_clip(frames, self.num_frames, size, resize)

    def _decoded(self, paths: Iterator[Any]) -> Iterator[UInt8[np.ndarray, "t h w 3"]]:
        from data_pipeline.decode.pool import VideoDecoder
        from data_pipeline.media_paths import VideoRejected

        size, resize = self.config.video.image_size, self.config.preprocessing.resize
        with VideoDecoder(self.num_frames, size, available_cores(), fit=resize) as decoder:
            for frames in decoder.decode_all((path, None, None) for path in paths):
                if isinstance(frames, VideoRejected):
                    raise DataError(str(frames))
                yield frames


def load(folder: str | os.PathLike[str], device: str | jax.Device | None = None) -> Model:
    """Load a model folder written by `harvest train` (its `export`), `harvest weights import` or `harvest demo`.

    Args:
      folder: its path.
      device: where to compute: a `jax.Device`, or "cpu", "gpu", "tpu" with the number of the device where there are
        several ("gpu:1"). None is JAX's default device.

    A training folder can be given, too, finished or not: `WORKDIR` is its newest good checkpoint, `WORKDIR@STEP`
    another, `WORKDIR@best` the one with the best score (docs/training.md).
    The name of the model says which one it is.

    Raises:
      DataError: the folder or its content cannot be used: the reason.
      CheckpointError: the checkpoint is missing or damaged.
      ConfigError: no such device.
    """
    if not isinstance(folder, str | os.PathLike):
        raise DataError(f"a model folder is given as a path, not {described(folder)}")
    found = _device(device)
    model = load_any_model(folder)
    return Model(model.config, model.params, model.name, found, model.origin, tokenizer=model.tokenizer)


def _device(device: str | jax.Device | None) -> jax.Device | None:
    if device is None or isinstance(device, jax.Device):
        return device
    platform, _, number = str(device).partition(":")
    with contextlib.suppress(RuntimeError, IndexError):  # no such platform, no such number
        if number.isdecimal() or ":" not in str(device):
            return jax.local_devices(backend=platform)[int(number or 0)]
    there = dict.fromkeys([*jax.local_devices(), *jax.local_devices(backend="cpu")])
    names = ", ".join(sorted({f"{one.platform}:{one.local_hardware_id or 0}" for one in there}))
    raise ConfigError(f"device {device!r} is not on this machine, which has {names}")
