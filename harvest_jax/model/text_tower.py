"""CLIP's causal text transformer; a caption's embedding is that of its end token."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from harvest_jax.model.blocks import LayerNorm, Transformer
from harvest_jax.model.config import TextConfig


class TextTower(nn.Module):
    """ids [B, L] -> tokens [B, L, W], pooled [B, W], embedding [B, D] (not normalised)."""

    config: TextConfig
    dtype: DTypeLike = jnp.float32
    implementation: str = "xla"
    remat: str = "none"
    unroll: bool = False

    @nn.compact
    def __call__(
        self,
        ids: Int[Array, "b l"],
        masked: Bool[Array, "b l"] | None = None,
        mask_embedding: Float[Array, " w"] | None = None,
    ) -> dict[str, Array]:
        """Embed captions, with the embeddings of masked positions replaced by one vector.

        The tower is causal: what follows the end token changes nothing, so that L may be any length up to CLIP's 77.
        The vector replaces the token embedding before the position is added (InternVideo CoTrain `encode_text`).

        Args:
          ids: int32, start token, words, end token, padding; the end token has the largest id of all.
          masked: True where the word is masked; None: no word is.
          mask_embedding: float32 [W], needed if `masked` is given.

        Returns:
          tokens [B, L, W] after the final norm; pooled [B, W], of them the end token; embedding float32
          [B, D], pooled and projected.
        """
        config = self.config
        tokens = nn.Embed(
            config.vocab_size, config.width, embedding_init=nn.initializers.normal(0.02), name="token_embedding"
        )(ids)
        if masked is not None and mask_embedding is not None:
            tokens = jnp.where(masked[..., None], mask_embedding, tokens)
        positional = self.param(
            "positional_embedding", nn.initializers.normal(0.01), (config.context_length, config.width)
        )
        x = (tokens + positional[: ids.shape[1]]).astype(self.dtype)
        x = Transformer(
            config.layers,
            config.heads,
            self.dtype,
            causal=True,
            implementation=self.implementation,
            remat=self.remat,
            unroll=self.unroll,
            activation=config.activation,
            name="transformer",
        )(x)
        x = LayerNorm(name="ln_final")(x)
        end = jnp.argmax(ids, axis=1)
        pooled = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        projection = nn.Dense(
            config.embed_dim,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(config.width**-0.5),
            name="text_projection",
        )
        return {"tokens": x, "pooled": pooled, "embedding": projection(pooled).astype(jnp.float32)}
