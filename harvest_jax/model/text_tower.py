"""A text transformer: CLIP's, which is causal and embeds a caption as its end token, or SigLIP's."""

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

        CLIP's tower is causal: what follows the end token changes nothing, so that L may be any length up to its 77.
        Of a tower with `fixed_length` L is always its whole context.
        The vector replaces the token embedding before the position is added (InternVideo CoTrain `encode_text`).

        Args:
          ids: int32, words between what the tokenizer puts around them, padding; where the end token is pooled, it
            has the largest id of all.
          masked: True where the word is masked; None: no word is.
          mask_embedding: float32 [W], needed if `masked` is given.

        Returns:
          tokens [B, L, W] after the final norm; pooled [B, W], of them the end token or the last; embedding float32
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
            causal=config.causal,
            implementation=self.implementation,
            remat=self.remat,
            unroll=self.unroll,
            activation=config.activation,
            mlp_width=config.mlp_width,
            eps=config.norm_eps,
            name="transformer",
        )(x)
        x = LayerNorm(config.norm_eps, name="ln_final")(x)
        if config.pooling == "end":
            end = jnp.argmax(ids, axis=1)
            pooled = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        else:
            pooled = x[:, -1]
        projection = nn.Dense(
            config.embed_dim,
            use_bias=config.projection_bias,
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(config.width**-0.5),
            name="text_projection",
        )
        return {"tokens": x, "pooled": pooled, "embedding": projection(pooled).astype(jnp.float32)}
