"""Prediction of masked words from the video: cross-attention blocks and a masked-language-model head.

The architecture is that of InternVideo's `clip_decoders.py` (MaskedTextDecoder) and `heads.py` (MLMHead). Text
positions do not attend to each other: the logits of a position depend on that position and on the video alone, so that
computing the masked positions only gives the same as computing all.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from harvest_jax.model import blocks
from harvest_jax.model.blocks import CrossAttention, LayerNorm, Mlp
from harvest_jax.model.config import DecoderConfig


class DecoderBlock(nn.Module):
    """x += cross_attention(norm(x), norm(memory)); x += mlp(norm(x))."""

    config: DecoderConfig
    dtype: DTypeLike
    implementation: str

    @nn.compact
    def __call__(self, x: Float[Array, "b m d"], memory: Float[Array, "b n d"]) -> tuple[Float[Array, "b m d"], None]:
        attention = CrossAttention(self.config.heads, self.dtype, self.implementation, name="cross_attn")
        x = x + attention(LayerNorm(name="ln_1")(x), LayerNorm(name="ln_memory")(memory))
        x = x + Mlp(self.dtype, self.config.layers, name="mlp")(LayerNorm(name="ln_2")(x))
        return x, None


class MlmDecoder(nn.Module):
    """queries [B, M, W] (text at masked positions), memory [B, N, V] (video tokens) -> features and logits.

    features [B, M, W] is the output of the blocks after the final norm, logits float32 [B, M, vocab].
    """

    config: DecoderConfig
    dtype: DTypeLike = jnp.float32
    implementation: str = "xla"
    remat: str = "none"
    unroll: bool = False

    @nn.compact
    def __call__(self, queries: Float[Array, "b m w"], memory: Float[Array, "b n v"]) -> dict[str, Array]:
        width = self.config.width
        dense = lambda name: nn.Dense(  # noqa: E731 (one initialiser for three layers)
            width, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name=name
        )
        memory = dense("video_proj")(LayerNorm(name="ln_video")(memory))
        x = dense("text_proj")(LayerNorm(name="ln_text")(queries))
        layers = blocks.stack(DecoderBlock, self.config.layers, self.remat, self.unroll)
        x, _ = layers(self.config, self.dtype, self.implementation, name="blocks")(x, memory)
        features = LayerNorm(name="ln_final")(x)
        x = LayerNorm(name="ln_head")(nn.gelu(dense("head_dense")(features), approximate=False))
        logits = nn.Dense(
            self.config.vocab_size, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02), name="head_vocab"
        )(x)
        return {"features": features, "logits": logits.astype(jnp.float32)}
