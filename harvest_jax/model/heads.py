"""Classifiers on the towers' outputs, which fine-tuning adds; all layers' kernels start from N(0, 0.02)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from harvest_jax.model.blocks import LayerNorm
from harvest_jax.model.config import DecoderConfig
from harvest_jax.model.mlm_decoder import DecoderBlock


def _dense(features: int, dtype: DTypeLike, name: str) -> nn.Dense:
    return nn.Dense(features, dtype=dtype, kernel_init=nn.initializers.normal(0.02), name=name)


class VideoHead(nn.Module):
    """pooled [B, V], tokens [B, N, V] of the video tower -> logits float32 [B, classes].

    "linear" is one layer on the class token after its norm. "attentive" reads all tokens: a learned query attends to
    them in one block of the decoder's kind, then a norm and one layer (the attentive probe of V-JEPA, arXiv 2404.08471,
    section 4, has the same parts).
    """

    kind: str
    classes: int
    heads: int
    dtype: DTypeLike = jnp.float32
    implementation: str = "xla"

    @nn.compact
    def __call__(self, pooled: Float[Array, "b v"], tokens: Float[Array, "b n v"]) -> Float[Array, "b classes"]:
        x = pooled
        if self.kind == "attentive":
            width = tokens.shape[-1]
            query = self.param("query_embedding", nn.initializers.normal(0.02), (width,))
            x = jnp.broadcast_to(query.astype(self.dtype), (len(tokens), 1, width))
            shape = DecoderConfig(layers=1, width=width, heads=self.heads, memory_width=width, vocab_size=1)
            x, _ = DecoderBlock(shape, self.dtype, self.implementation, name="block")(x, tokens)
            x = LayerNorm(name="ln_final")(x)[:, 0]
        return _dense(self.classes, self.dtype, "classifier")(x).astype(jnp.float32)


class AnswerHead(nn.Module):
    """Decoder's feature at the mask [B, W], video [B, V], question [B, W] -> logits float32 [B, answers].

    InternVideo's head for questions (docs/method.md): the three side by side, dropout, a layer of twice that width,
    norm, GELU, dropout, a layer over the answers. Video and question are the pooled outputs before their projections.
    """

    classes: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        decoded: Float[Array, "b w"],
        video: Float[Array, "b v"],
        text: Float[Array, "b w"],
        dropout: float = 0.0,
        noise: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b classes"]:
        x = jnp.concatenate([decoded, video, text], axis=-1)
        width = 2 * x.shape[-1]
        x = dropped(x, dropout, noise, 0)
        x = LayerNorm(name="ln_hidden")(_dense(width, self.dtype, "hidden")(x))
        x = dropped(nn.gelu(x, approximate=False), dropout, noise, 1)
        return _dense(self.classes, self.dtype, "classifier")(x).astype(jnp.float32)


def dropped(x: Float[Array, "b d"], rate: float, noise: Int[Array, " b"] | None, layer: int) -> Float[Array, "b d"]:
    """Dropout whose choice follows from a number of each row: the same in any split of a batch.

    Args:
      x: numbers of which a share of `rate` becomes zero; the others are divided by 1 - rate.
      rate: 0..1.
      noise: a random number for each row; None: nothing is dropped.
      layer: which of a module's dropouts this is.
    """
    if noise is None or not rate:
        return x

    def keep(number: Array) -> Bool[Array, " d"]:
        return jax.random.bernoulli(jax.random.fold_in(jax.random.key(number), layer), 1 - rate, x.shape[1:])

    return jnp.where(jax.vmap(keep)(noise), x / (1 - rate), 0).astype(x.dtype)
