"""Use of a trained model: `load` a model folder, embed videos and texts, answer at a masked word."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from harvest_jax.errors import DataError
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import Harvest, Params
from harvest_jax.model.inference import PRECISION, all_patches, text_embedding, video_embedding
from harvest_jax.pixels.square import prepare_clip
from harvest_jax.weights.folder import load_model

BATCH = 16  # clips or captions a call of the compiled functions; the last batch is padded
IMAGE_MODEL_FRAMES = 8  # frames that an image model looks at, one by one


class Model:
    """A model ready for use. All patches are kept and everything is computed in float32."""

    def __init__(self, config: HarvestConfig, params: Params, name: str) -> None:
        self.config = config
        self.name = name
        self.tokenizer = Tokenizer(config.text.vocab_size)
        self.params = jax.device_put(params)
        self._harvest = Harvest(config)
        self._video = jax.jit(functools.partial(video_embedding, self._harvest))
        self._text = jax.jit(functools.partial(text_embedding, self._harvest))
        self._answer = jax.jit(self._answer_logits)

    @property
    def num_frames(self) -> int:
        """Frames taken of a clip: what the model was trained with, 8 one by one for an image model."""
        return self.config.video.num_frames if self.config.video.num_frames > 1 else IMAGE_MODEL_FRAMES

    @property
    def logit_scale(self) -> float:
        """exp of the learned scale: what cosines are multiplied by before a softmax."""
        return float(np.exp(np.asarray(self.params["logit_scale"])))

    def encode_video(self, videos: Sequence[str | Path] | np.ndarray) -> Float[np.ndarray, "b d"]:
        """Embed clips.

        An image model (trained on single frames) embeds each frame and averages the normalised embeddings.

        Args:
          videos: paths of video files, or uint8 RGB [B, T, H, W, 3] of any size and number of frames. The middle frames
            of equal segments are taken and made squares as in the model's training (`config.preprocessing.resize`).

        Returns:
          float32 [B, D], L2-normalised.

        Raises:
          DataError: a file cannot be read, naming it and the reason.
        """
        return self.encode_clips(self.prepare(videos))

    def prepare(self, videos: Sequence[str | Path] | np.ndarray) -> UInt8[np.ndarray, "b t s s 3"]:
        """The frames that the model sees: uint8 [B, num_frames, image_size, image_size, 3]."""
        size, resize = self.config.video.image_size, self.config.preprocessing.resize
        if isinstance(videos, np.ndarray):
            if videos.dtype != np.uint8 or videos.ndim != 5 or videos.shape[-1] != 3:
                raise DataError(f"videos must be uint8 [B, T, H, W, 3], not {videos.dtype} {list(videos.shape)}")
            clips = [prepare_clip(video, self.num_frames, size, resize) for video in videos]
        else:
            clips = [prepare_clip(frames, self.num_frames, size, resize) for frames in self._decode(videos)]
        return np.stack(clips) if clips else np.zeros((0, self.num_frames, size, size, 3), np.uint8)

    def _decode(self, paths: Sequence[str | Path]) -> Iterator[UInt8[np.ndarray, "t h w 3"]]:
        from data_pipeline.decode.pool import VideoDecoder
        from data_pipeline.decode.video_file import VideoRejected

        workers = max(1, min(len(paths), len(os.sched_getaffinity(0))))
        size, resize = self.config.video.image_size, self.config.preprocessing.resize
        with VideoDecoder(self.num_frames, size, workers, fit=resize) as decoder:
            for frames in decoder.decode_all((path, None, None) for path in paths):
                if isinstance(frames, VideoRejected):
                    raise DataError(str(frames))
                yield frames

    def encode_clips(self, clips: UInt8[np.ndarray, "b t s s 3"]) -> Float[np.ndarray, "b d"]:
        """As `encode_video`, of frames already prepared."""
        return self._in_batches(functools.partial(self._video, self.params), clips, self.config.video.embed_dim)

    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "b d"]:
        """Embed texts; what exceeds the text tower's context is cut.

        Returns:
          float32 [B, D], L2-normalised.
        """
        ids = self.tokenizer(list(texts), self.config.text.context_length)
        return self._in_batches(functools.partial(self._text, self.params), ids, self.config.text.embed_dim)

    def answer_logits(
        self, videos: UInt8[np.ndarray, "b t h w 3"], ids: Int[np.ndarray, "b l"], slot: Int[np.ndarray, " b"]
    ) -> Float[np.ndarray, "b vocab"]:
        """What the decoder would put at one hidden position of each text, having seen the clip.

        Args:
          videos: uint8 frames, as for `encode_video`.
          ids: int32 token ids as the tokenizer gives them; the id at `slot` is hidden.
          slot: int32, position in the text.

        Returns:
          float32 logits over the vocabulary.

        Raises:
          DataError: the model has no decoder.
        """
        if self.config.decoder is None:
            raise DataError(f"{self.name} has no decoder for masked words: it can embed but not answer")
        rows = (self.prepare(videos), ids, slot)
        return self._in_batches(functools.partial(self._answer, self.params), rows, self.config.text.vocab_size)

    def _answer_logits(self, params: Params, clips: jax.Array, ids: jax.Array, slot: jax.Array) -> jax.Array:
        with jax.default_matmul_precision(PRECISION):
            patches, cells = all_patches(clips, self.config.video.patch_size)
            memory = self._harvest.encode_video(params, patches, cells)["tokens"]
            masked = jnp.arange(ids.shape[1])[None, :] == slot[:, None]
            tokens = self._harvest.encode_text(params, ids, masked)["tokens"]
            query = jnp.take_along_axis(tokens, slot[:, None, None], axis=1)
            return self._harvest.decode(params, query, memory)[:, 0]

    @staticmethod
    def _in_batches(function: Callable[..., jax.Array], rows: Any, width: int) -> Float[np.ndarray, "b width"]:
        """`function` over arrays cut into batches of one size, so that it compiles once; the padding is dropped."""
        arrays = rows if isinstance(rows, tuple) else (rows,)
        outputs = [np.zeros((0, width), np.float32)]
        for start in range(0, len(arrays[0]), BATCH):
            parts = [array[start : start + BATCH] for array in arrays]
            count = len(parts[0])
            padded = [np.concatenate([part, np.repeat(part[-1:], BATCH - count, axis=0)]) for part in parts]
            outputs.append(np.asarray(function(*padded))[:count])
        return np.concatenate(outputs)


def load(folder: str | Path) -> Model:
    """Load a model folder written by `harvest train` (its `export`), `harvest demo` or `save_model`.

    Raises:
      DataError: the folder or what it holds cannot be used, and why.
    """
    config, params = load_model(Path(folder))
    return Model(config, params, str(folder))
