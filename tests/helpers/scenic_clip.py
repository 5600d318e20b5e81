"""Scenic's CLIP, its layers written out in Flax from `scenic/projects/baselines/clip/layers.py`."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from harvest_jax.model.config import HarvestConfig, TextConfig, VideoConfig


class Attention(nn.Module):
    """Query, key and value of all heads by a matrix each; `allowed` is [b, query, key], or None for all."""

    heads: int

    @nn.compact
    def __call__(self, x, allowed):
        split = (self.heads, x.shape[-1] // self.heads)
        query, key, value = (nn.DenseGeneral(split, name=part)(x) for part in ("query", "key", "value"))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(split[1])
        if allowed is not None:
            scores = jnp.where(allowed[:, None], scores, -1e10)
        return nn.DenseGeneral(x.shape[-1], axis=(-2, -1), name="out")(
            jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(scores), value)
        )


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        wide = nn.Dense(4 * x.shape[-1], name="c_fc")(x)
        return nn.Dense(x.shape[-1], name="c_proj")(wide * nn.sigmoid(1.702 * wide))


class Block(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x, allowed):
        x = x + Attention(self.heads, name="attn")(nn.LayerNorm(epsilon=1e-5, name="ln_1")(x), allowed)
        return x + Mlp(name="mlp")(nn.LayerNorm(epsilon=1e-5, name="ln_2")(x))


class Blocks(nn.Module):
    layers: int
    heads: int
    joint: str

    @nn.compact
    def __call__(self, x, allowed=None):
        for layer in range(self.layers):
            x = Block(self.heads, name=f"resblocks{self.joint}{layer}")(x, allowed)
        return x


class Visual(nn.Module):
    config: VideoConfig
    joint: str

    @nn.compact
    def __call__(self, images):
        side, width = self.config.patch_size, self.config.width
        x = nn.Conv(width, (side, side), (side, side), use_bias=False, name="conv1")(images)
        x = x.reshape(len(x), -1, width)
        first = self.param("class_embedding", nn.initializers.normal(), (width,))
        x = jnp.concatenate([jnp.tile(first, (len(x), 1, 1)), x], axis=1)
        x = x + self.param("positional_embedding", nn.initializers.normal(), (x.shape[1], width))
        x = nn.LayerNorm(epsilon=1e-5, name="ln_pre")(x)
        x = Blocks(self.config.layers, self.config.heads, self.joint, name="transformer")(x)
        return nn.Dense(self.config.embed_dim, use_bias=False, name="proj")(
            nn.LayerNorm(epsilon=1e-5, name="ln_post")(x[:, 0])
        )


class Text(nn.Module):
    config: TextConfig
    joint: str

    @nn.compact
    def __call__(self, ids):
        length = ids.shape[1]
        real = ids > 0  # as Scenic: token 0 is hidden
        allowed = jnp.tril(jnp.ones((length, length), bool)) & real[:, :, None] & real[:, None, :]
        x = nn.Embed(self.config.vocab_size, self.config.width, name="token_embedding")(ids)
        x = x + self.param("positional_embedding", nn.initializers.normal(), (length, self.config.width))
        x = Blocks(self.config.layers, self.config.heads, self.joint, name="transformer")(x, allowed)
        x = nn.LayerNorm(epsilon=1e-5, name="ln_final")(x)
        return nn.Dense(self.config.embed_dim, use_bias=False, name="text_projection")(
            x[jnp.arange(len(x)), ids.argmax(axis=1)]
        )


class ScenicClip(nn.Module):
    """Images [B, H, W, 3], normalised, and ids [B, context] -> embeddings, not normalised."""

    config: HarvestConfig
    joint: str = "."

    def setup(self):
        self.visual = Visual(self.config.video, self.joint)
        self.text = Text(self.config.text, self.joint)
        self.logit_scale = self.param("logit_scale", nn.initializers.ones, ())

    def __call__(self, images, ids):
        return self.visual(images), self.text(ids)
