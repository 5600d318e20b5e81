"""The transformer block that all towers share: CLIP's pre-norm block, scanned over the layers.

Parameters are float32; matrices are multiplied in `dtype`; layer norms and the softmax run in float32 (design).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

LAYER_NORM_EPS = 1e-5  # CLIP's
UNROLLED = 4  # layers up to which the scan is unrolled: a fifth less time for the demo's backward pass on a CPU
# What the backward pass finds in memory of a block, besides its input: nothing, or what the four matrices gave (then
# norms, the softmax with its two products, and the activation are computed again).
REMAT = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}


def quick_gelu(x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
    """x * sigmoid(1.702 x), CLIP's activation."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
    """The exact one, with the error function, as torch's default."""
    return jax.nn.gelu(x, approximate=False)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, computed in float32, returned in the input's dtype."""

    @nn.compact
    def __call__(self, x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
        norm = nn.LayerNorm(epsilon=LAYER_NORM_EPS, dtype=jnp.float32, name="norm")
        nn.share_scope(self, norm)
        return norm(x.astype(jnp.float32)).astype(x.dtype)


class Projection(nn.Module):
    """`nn.DenseGeneral` over the last axes, as one product of two matrices with one place for the bias.

    DenseGeneral multiplies tensors of more axes, whose gradients XLA lays out anew on a CPU before they are of use:
    a tenth of the video tower's seconds. Parameters have its names, shapes and start.
    """

    features: tuple[int, ...]
    dtype: DTypeLike
    kernel_init: nn.initializers.Initializer
    inputs: int = 1  # axes of x that are multiplied away

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        rest, inner = x.shape[: -self.inputs], x.shape[-self.inputs :]
        flat = math.prod(inner), math.prod(self.features)
        start = lambda key, shape: self.kernel_init(key, flat, jnp.float32).reshape(shape)  # noqa: E731
        kernel = self.param("kernel", start, (*inner, *self.features))
        bias = self.param("bias", nn.initializers.zeros, self.features)
        x, kernel, bias = (array.astype(self.dtype) for array in (x, kernel, bias))
        y = x.reshape(-1, flat[0]) @ kernel.reshape(flat) + bias.reshape(-1)
        return y.reshape(*rest, *self.features)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused query-key-value product."""

    heads: int
    dtype: DTypeLike
    causal: bool = False
    implementation: str = "xla"

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        width = x.shape[-1]
        init = nn.initializers.normal(width**-0.5)
        qkv = Projection((3, self.heads, width // self.heads), self.dtype, init, name="qkv")(x)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]  # b n heads head_dim
        mixed = jax.nn.dot_product_attention(
            query,
            key,
            value,
            is_causal=self.causal,
            implementation=self.implementation,  # type: ignore[call-overload]
        )
        return Projection((width,), self.dtype, init, inputs=2, name="out")(mixed)


class CrossAttention(nn.Module):
    """Multi-head attention from text positions to video tokens."""

    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b m d"], memory: Float[Array, "b n d"]) -> Float[Array, "b m d"]:
        width = x.shape[-1]
        init = nn.initializers.xavier_uniform()
        shape = (self.heads, width // self.heads)
        query = Projection(shape, self.dtype, init, name="query")(x)
        key = Projection(shape, self.dtype, init, name="key")(memory)
        value = Projection(shape, self.dtype, init, name="value")(memory)
        mixed = jax.nn.dot_product_attention(query, key, value)
        return Projection((width,), self.dtype, init, inputs=2, name="out")(mixed)


class Mlp(nn.Module):
    """Two layers with the activation between; four times as wide inside."""

    dtype: DTypeLike
    depth: int = 1  # residual layers of the tower, for CLIP's scale of the last matrix
    activation: str = "quick_gelu"

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        width = x.shape[-1]
        wide = nn.initializers.normal((2 * width) ** -0.5)
        back = nn.initializers.normal(width**-0.5 * (2 * self.depth) ** -0.5)
        hidden = Projection((4 * width,), self.dtype, wide, name="c_fc")(x)
        hidden = gelu(hidden) if self.activation == "gelu" else quick_gelu(hidden)
        return Projection((width,), self.dtype, back, name="c_proj")(hidden)


class Block(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x)). Returns (x, None), the form `nn.scan` wants."""

    heads: int
    layers: int
    dtype: DTypeLike
    causal: bool
    implementation: str
    activation: str

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], _: None) -> tuple[Float[Array, "b n d"], None]:
        attention = SelfAttention(self.heads, self.dtype, self.causal, self.implementation, name="attn")
        x = x + attention(LayerNorm(name="ln_1")(x))
        x = x + Mlp(self.dtype, self.layers, self.activation, name="mlp")(LayerNorm(name="ln_2")(x))
        return x, None


class Transformer(nn.Module):
    """`layers` blocks, compiled once: parameters carry a leading axis of that length."""

    layers: int
    heads: int
    dtype: DTypeLike
    causal: bool = False
    implementation: str = "xla"
    remat: str = "none"
    activation: str = "quick_gelu"

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        unrolled = self.layers <= UNROLLED  # a loop keeps XLA from merging what is computed again with the first time
        block = Block if self.remat == "none" else nn.remat(Block, prevent_cse=unrolled, policy=REMAT[self.remat])
        scanned = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.layers,
            in_axes=nn.broadcast,
            unroll=self.layers if unrolled else 1,
        )
        x, _ = scanned(
            self.heads, self.layers, self.dtype, self.causal, self.implementation, self.activation, name="blocks"
        )(x, None)
        return x
