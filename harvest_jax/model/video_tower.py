"""A vision transformer, CLIP's, SigLIP's, EVA-02-CLIP's or Perception Encoder's, over the kept space-time patches.

Joint space-time attention over one sequence, of CLIP with one class token, as ViCLIP (InternVideo `viclip_vision.py`);
with one frame and a temporal table of zeros it computes the same as the image tower, bit for bit. Rotary positions are
those of a patch in its own frame: what tells frames apart is the temporal table.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from harvest_jax.model.blocks import AttentionPooling, LayerNorm, Transformer, Turn
from harvest_jax.model.config import VideoConfig

RAMP_SCALE = 2.0  # of the ramp, in units of the spatial table's usual size (width**-0.5); docs/decisions.md
ROTARY_BASE = 10000.0  # of the rotary frequencies, as in all published models


def temporal_ramp(num_frames: int, width: int) -> Float[Array, "t d"]:
    """Smooth initial values of the temporal table: half-cosines of time with four frequencies over the channels.

    The mean over the frames is zero, so that a single frame gets exactly zero.

    Returns:
      float32 [num_frames, width].
    """
    time = (jnp.arange(num_frames) + 0.5) / num_frames  # 0..1
    order = jnp.arange(width) % 4 + 1  # four frequencies, slowest first
    waves = jnp.cos(jnp.pi * time[:, None] * order[None, :])
    sign = jnp.where((jnp.arange(width) // 4) % 2 == 0, 1.0, -1.0)
    table = RAMP_SCALE * width**-0.5 * sign * waves
    return table - table.mean(axis=0, keepdims=True)


def rotary_angles(config: VideoConfig) -> Float[np.ndarray, "cells a"]:
    """The angles of each cell of a frame, by which the pairs of a head's channels are turned.

    The first half of a head's pairs turns with the row, the second with the column, each with frequencies that fall
    from 1 to nearly 1 / ROTARY_BASE.

    Returns:
      float32 [cells_per_frame, head_dim / 2].
    """
    side, count = config.image_size // config.patch_size, config.width // config.heads // 4
    frequencies = 1 / ROTARY_BASE ** (np.arange(count, dtype=np.float32) / count)
    places = np.arange(side, dtype=np.float32) + config.rotary_start
    if config.rotary_grid:
        places = np.asarray(places / side * config.rotary_grid, np.float32)
    angles = places[:, None] * frequencies
    rows = np.broadcast_to(angles[:, None], (side, side, count))
    columns = np.broadcast_to(angles[None], (side, side, count))
    return np.concatenate([rows, columns], axis=-1).reshape(side * side, 2 * count).astype(np.float32)


class VideoTower(nn.Module):
    """patches [B, K, P], positions [B, K] -> tokens [B, N, W], pooled [B, W], embedding [B, D] (not normalised).

    N is 1 + K with a class token, else K.
    """

    config: VideoConfig
    dtype: DTypeLike = jnp.float32
    implementation: str = "xla"
    remat: str = "none"
    unroll: bool = False

    @nn.compact
    def __call__(self, patches: Float[Array, "b k p"], positions: Int[Array, "b k"]) -> dict[str, Array]:
        """Embed the kept patches of each clip.

        Args:
          patches: normalised pixels, cells as in `patches.patchify`.
          positions: cell of each patch in the (frame, row, column) grid, in any order.

        Returns:
          tokens [B, N, W]: output of the last block, class token first, before the final norm (the decoder's memory);
          pooled [B, W]: the class token after the final norm, or what attention pooling makes of all tokens after it;
          embedding float32 [B, D]: pooled, projected if there is a projection.
        """
        config = self.config
        scale = config.width**-0.5
        if config.class_token:
            class_embedding = self.param("class_embedding", nn.initializers.normal(scale), (config.width,))
        spatial = self.param("spatial_embedding", nn.initializers.normal(scale), (config.positions, config.width))
        temporal = self.param("temporal_embedding", nn.initializers.zeros, (config.num_frames, config.width))
        embed = nn.Dense(
            config.width,
            use_bias=config.patch_bias,
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(config.patch_dim**-0.5),
            name="patch_embedding",
        )
        x = embed(patches.astype(self.dtype))
        frame, cell = positions // config.cells_per_frame, positions % config.cells_per_frame
        x = x + spatial[config.tokens_beside :][cell].astype(self.dtype) + temporal[frame].astype(self.dtype)
        if config.class_token:
            class_token = (class_embedding + spatial[0]).astype(self.dtype)  # row 0 of its table is the class token's
            x = jnp.concatenate([jnp.broadcast_to(class_token, (x.shape[0], 1, config.width)), x], axis=1)
        if config.pre_norm:
            x = LayerNorm(config.norm_eps, name="ln_pre")(x)
        tokens = Transformer(
            config.layers,
            config.heads,
            self.dtype,
            implementation=self.implementation,
            remat=self.remat,
            unroll=self.unroll,
            activation=config.activation,
            mlp_width=config.mlp_width,
            eps=config.norm_eps,
            inner_norms=config.inner_norms,
            name="transformer",
        )(x, self._turn(cell))
        ln_post = LayerNorm(config.norm_eps, name="ln_post")
        if config.pooling == "class":
            pooled = ln_post(tokens[:, 0])
        else:
            pooled = AttentionPooling(
                config.pooling_heads or config.heads,
                self.dtype,
                self.implementation,
                config.activation,
                config.pooling_mlp_width or config.mlp_width,
                config.norm_eps,
                name="pooling",
            )(ln_post(tokens))
        if not config.projection:
            return {"tokens": tokens, "pooled": pooled, "embedding": pooled.astype(jnp.float32)}
        projection = nn.Dense(
            config.embed_dim,
            use_bias=config.projection_bias,
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(scale),
            name="proj",
        )
        return {"tokens": tokens, "pooled": pooled, "embedding": projection(pooled).astype(jnp.float32)}

    def _turn(self, cell: Int[Array, "b k"]) -> Turn:
        """Of each token, from its cell in the frame; a class token is not turned."""
        if not self.config.rotary:
            return None
        angles, beside = rotary_angles(self.config), self.config.tokens_beside
        still = (*cell.shape[:1], beside, angles.shape[1])
        cos = jnp.concatenate([jnp.ones(still), jnp.asarray(np.cos(angles))[cell]], axis=1)
        sin = jnp.concatenate([jnp.zeros(still), jnp.asarray(np.sin(angles))[cell]], axis=1)
        return cos[:, :, None], sin[:, :, None]
