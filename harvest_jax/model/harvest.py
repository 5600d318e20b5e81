"""The two towers, the decoder and the head as functions of one dict of parameters.

params = {"video", "text", "decoder" (optional), "mask_embedding" [W] (with the decoder), "head" (optional),
"logit_scale" [], "logit_bias" [] (of the sigmoid loss, optional)}: plain nested dicts, so that trained and frozen
parameters are two dicts.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt8

from harvest_jax.errors import DataError
from harvest_jax.model.blocks import ATTENTION
from harvest_jax.model.config import HarvestConfig, Preprocessing
from harvest_jax.model.heads import AnswerHead, VideoHead
from harvest_jax.model.mlm_decoder import MlmDecoder
from harvest_jax.model.text_tower import TextTower
from harvest_jax.model.video_tower import VideoTower, temporal_ramp

Params = dict[str, Any]
INITIAL_LOGIT_SCALE = math.log(1 / 0.07)  # CLIP's


@dataclasses.dataclass(frozen=True)
class Harvest:
    """The model's functions; holds no parameters."""

    config: HarvestConfig
    dtype: DTypeLike = jnp.float32
    attention: str = "xla"
    remat: str = "none"
    unroll: bool = False  # see `blocks.stack`

    @property
    def _video(self) -> VideoTower:
        return VideoTower(self.config.video, self.dtype, self.attention, self.remat, self.unroll)

    @property
    def _text(self) -> TextTower:
        return TextTower(self.config.text, self.dtype, self.attention, self.remat, self.unroll)

    @property
    def _decoder(self) -> MlmDecoder:
        if self.config.decoder is None:
            raise ValueError("this model has no decoder")
        return MlmDecoder(self.config.decoder, self.dtype, self.attention, self.remat, self.unroll)

    @property
    def _video_head(self) -> VideoHead:
        head = self.config.head
        if head is None or head.kind == "answers":
            raise ValueError("this model has no head on the video tower")
        return VideoHead(head.kind, len(head.classes), self.config.video.heads, self.dtype, self.attention)

    @property
    def _answer_head(self) -> AnswerHead:
        if self.config.head is None or self.config.head.kind != "answers":
            raise ValueError("this model has no head for answers")
        return AnswerHead(len(self.config.head.classes), self.dtype)

    def init(self, key: jax.Array, temporal_init: str = "zeros") -> Params:
        """Random float32 parameters; usable under jit and `jax.eval_shape`.

        Args:
          key: jax PRNG key.
          temporal_init: "zeros", or "ramp" (`video_tower.temporal_ramp`).
        """
        config = self.config
        video_key, text_key, decoder_key, mask_key = jax.random.split(key, 4)
        patches = jnp.zeros((1, 1, config.video.patch_dim))
        cells = jnp.zeros((1, 1), jnp.int32)
        params: Params = {
            "video": self._video.init(video_key, patches, cells)["params"],
            "text": self._text.init(text_key, jnp.zeros((1, 2), jnp.int32))["params"],
            "logit_scale": jnp.asarray(INITIAL_LOGIT_SCALE, jnp.float32),
        }
        if config.logit_bias:
            params["logit_bias"] = jnp.zeros((), jnp.float32)
        if temporal_init == "ramp":
            params["video"]["temporal_embedding"] = temporal_ramp(config.video.num_frames, config.video.width)
        if config.decoder is not None:
            queries = jnp.zeros((1, 1, config.text.width))
            memory = jnp.zeros((1, 1, config.video.width))
            params["decoder"] = self._decoder.init(decoder_key, queries, memory)["params"]
            params["mask_embedding"] = 0.02 * jax.random.normal(mask_key, (config.text.width,))
        if config.head is not None:
            params["head"] = self._init_head(jax.random.fold_in(key, 4))  # the keys above stay as they were
        return params

    def _init_head(self, key: jax.Array) -> Params:
        video, text = self.config.video.width, self.config.text.width
        pooled = jnp.zeros((1, video))
        if self.config.head is not None and self.config.head.kind == "answers":
            return self._answer_head.init(key, jnp.zeros((1, text)), pooled, jnp.zeros((1, text)))["params"]
        return self._video_head.init(key, pooled, jnp.zeros((1, 1, video)))["params"]

    def encode_video(
        self, params: Params, patches: UInt8[Array, "b k p"], positions: Int[Array, "b k"]
    ) -> dict[str, Array]:
        """Raw pixels of the kept patches to the video tower's outputs; see `VideoTower`."""
        pixels = normalise(patches, self.config.preprocessing).astype(self.dtype)
        return self._video.apply({"params": params["video"]}, pixels, positions)  # type: ignore[return-value]

    def class_attention(
        self, params: Params, patches: UInt8[Array, "b k p"], positions: Int[Array, "b k"]
    ) -> Float[Array, "b layers k"]:
        """Where the class token looks: its attention weights over the kept patches, float32, mean over the heads.

        What is missing from a sum of 1 is its weight on itself. Arguments as for `encode_video`.

        Raises:
          DataError: the tower has no class token.
        """
        if not self.config.video.class_token:
            raise DataError(f"{self.config.name} has no class token, whose attention could be shown")
        pixels = normalise(patches, self.config.preprocessing).astype(self.dtype)
        variables = {"params": params["video"]}
        stored: Any = self._video.apply(variables, pixels, positions, mutable=[ATTENTION])[1]
        weights = stored[ATTENTION]["transformer"]["blocks"]["attn"]["first_token"]  # layers b heads 1+k
        return weights.mean(axis=2)[:, :, 1:].swapaxes(0, 1)

    def encode_text(
        self, params: Params, ids: Int[Array, "b l"], masked: Bool[Array, "b l"] | None = None
    ) -> dict[str, Array]:
        """Token ids to the text tower's outputs; see `TextTower`."""
        mask_embedding = None if masked is None else params["mask_embedding"]
        return self._text.apply({"params": params["text"]}, ids, masked, mask_embedding)  # type: ignore[return-value]

    def decode(
        self, params: Params, queries: Float[Array, "b m w"], memory: Float[Array, "b n v"]
    ) -> Float[Array, "b m vocab"]:
        """Text tokens at the masked slots and video tokens to float32 vocabulary logits; see `MlmDecoder`."""
        return self._decoder.apply({"params": params["decoder"]}, queries, memory)["logits"]  # type: ignore[return-value, call-overload]

    def classify(self, params: Params, video: dict[str, Array]) -> Float[Array, "b classes"]:
        """The video tower's outputs to float32 logits of the head's classes; see `VideoHead`."""
        return self._video_head.apply({"params": params["head"]}, video["pooled"], video["tokens"])  # type: ignore[return-value]

    def answer(
        self,
        params: Params,
        video: dict[str, Array],
        text: dict[str, Array],
        slot: Int[Array, " b"],
        dropout: float = 0.0,
        noise: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b classes"]:
        """Float32 logits of the head's answers; see `AnswerHead`.

        Args:
          params: all parameters.
          video, text: the towers' outputs; the text is a question in a prompt whose token at `slot` is masked.
          slot: position of the mask in each text.
          dropout: share of the head's inputs that are zeroed in training.
          noise: a random number for each row, from which the zeroed inputs follow; None: none are zeroed.
        """
        query = jnp.take_along_axis(text["tokens"], slot[:, None, None], axis=1)
        decoded: Any = self._decoder.apply({"params": params["decoder"]}, query, video["tokens"])
        parts = decoded["features"][:, 0], video["pooled"], text["pooled"]
        return self._answer_head.apply({"params": params["head"]}, *parts, dropout, noise)  # type: ignore[return-value]


def normalise(patches: UInt8[Array, "b k p"], preprocessing: Preprocessing) -> Float[Array, "b k p"]:
    """uint8 RGB patches to float32, with the model's mean and standard deviation."""
    pixels = patches.shape[-1] // 3  # the channel is the fastest axis of a patch
    mean = jnp.tile(jnp.asarray(preprocessing.mean, jnp.float32), pixels)
    std = jnp.tile(jnp.asarray(preprocessing.std, jnp.float32), pixels)
    return (patches.astype(jnp.float32) / 255.0 - mean) / std


def l2_normalise(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """L2-normalised along the last axis, in float32."""
    x = x.astype(jnp.float32)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


@functools.lru_cache(maxsize=32)
def parameter_shapes(config: HarvestConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of a model, by its path ("video/proj/kernel"); nothing is computed.

    Raises:
      DataError: the config is impossible.
    """
    try:
        shapes = jax.eval_shape(Harvest(config).init, jax.random.key(0))
    except (ValueError, TypeError, ArithmeticError) as error:  # a negative size, heads that do not divide the width
        raise DataError(f"{config.name}: no model has this config: {str(error).splitlines()[0]}") from error
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(shapes, sep="/").items()}
