"""The transformer block that all towers share: CLIP's pre-norm block, scanned over the layers.

Parameters are float32; matrices are multiplied in `dtype`; layer norms and the softmax run in float32 (design).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

LAYER_NORM_EPS = 1e-5  # CLIP's
UNROLLED = 4  # layers up to which the scan is unrolled: a fifth less time for the demo's backward pass on a CPU
PRODUCT = "product"  # what a matrix gave, bias included
_products = jax.checkpoint_policies.save_only_these_names(PRODUCT)


def _keep_products(primitive: Any, *arrays: Any, **parameters: Any) -> bool:
    """What `remat=dots` leaves in memory: products with matrices, and attention where it is one kernel.

    The bias is in it, because a GPU adds it where the product is made: kept without, the sum is a pass of its own.
    """
    return primitive.name.startswith("dot_product_attention_fwd") or _products(primitive, *arrays, **parameters)


# What the backward pass finds in memory of a block, besides its input: nothing, or what the matrices gave (then norms,
# the activation and, without a fused kernel, attention's two products with the softmax are computed again).
REMAT = {"full": None, "dots": _keep_products}


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

    With `split` the first axis of `features` makes so many products, returned as a list: one product of them all would
    have to be cut into pieces by copies, forward and backward.
    """

    features: tuple[int, ...]
    dtype: DTypeLike
    kernel_init: nn.initializers.Initializer
    inputs: int = 1  # axes of x that are multiplied away
    split: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Any:
        rest, inner = x.shape[: -self.inputs], x.shape[-self.inputs :]
        flat = math.prod(inner), math.prod(self.features)
        start = lambda key, shape: self.kernel_init(key, flat, jnp.float32).reshape(shape)  # noqa: E731
        kernel = self.param("kernel", start, (*inner, *self.features))
        bias = self.param("bias", nn.initializers.zeros, self.features)
        x, kernel, bias = (array.astype(self.dtype) for array in (x, kernel, bias))
        x, parts = x.reshape(-1, flat[0]), self.features[0] if self.split else 1
        kernel, bias = kernel.reshape(flat[0], parts, -1), bias.reshape(parts, -1)
        shape = (*rest, *self.features[self.split :])
        made = [checkpoint_name(x @ kernel[:, i] + bias[i], PRODUCT).reshape(shape) for i in range(parts)]
        return made if self.split else made[0]


def attend(
    query: Float[Array, "b m h d"],
    key: Float[Array, "b n h d"],
    value: Float[Array, "b n h d"],
    implementation: str = "xla",
    causal: bool = False,
) -> Float[Array, "b m h d"]:
    """Softmax attention in float32 over scaled products, through XLA or cuDNN's fused kernel.

    The kernel's backward pass wants even numbers of queries and keys: a row of zeros is added where they are odd, and
    keys that were added are left out of the softmax. (Up to its version 0.10 at least, JAX refuses all odd numbers in
    training, though cuDNN does so with a bias only; there is none here.)
    """
    queries, keys = query.shape[1], key.shape[1]
    lengths: dict[str, Any] = {}
    if implementation == "cudnn" and (queries % 2 or keys % 2):
        query, key, value = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (query, key, value))
        lengths["key_value_seq_lengths"] = jnp.full(query.shape[:1], keys, jnp.int32)
    mixed = jax.nn.dot_product_attention(
        query,
        key,
        value,
        is_causal=causal,
        implementation=implementation,  # type: ignore[call-overload]
        **lengths,
    )
    return mixed[:, :queries]


class SelfAttention(nn.Module):
    """Multi-head self-attention; queries, keys and values have one parameter."""

    heads: int
    dtype: DTypeLike
    causal: bool = False
    implementation: str = "xla"

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        width = x.shape[-1]
        init = nn.initializers.normal(width**-0.5)
        shape = (3, self.heads, width // self.heads)
        query, key, value = Projection(shape, self.dtype, init, split=True, name="qkv")(x)  # b n heads head_dim each
        mixed = attend(query, key, value, self.implementation, self.causal)
        return Projection((width,), self.dtype, init, inputs=2, name="out")(mixed)


class CrossAttention(nn.Module):
    """Multi-head attention from text positions to video tokens."""

    heads: int
    dtype: DTypeLike
    implementation: str = "xla"

    @nn.compact
    def __call__(self, x: Float[Array, "b m d"], memory: Float[Array, "b n d"]) -> Float[Array, "b m d"]:
        width = x.shape[-1]
        init = nn.initializers.xavier_uniform()
        shape = (self.heads, width // self.heads)
        query = Projection(shape, self.dtype, init, name="query")(x)
        key = Projection(shape, self.dtype, init, name="key")(memory)
        value = Projection(shape, self.dtype, init, name="value")(memory)
        mixed = attend(query, key, value, self.implementation)
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


def stack(block: type[nn.Module], layers: int, remat: str, unroll: bool) -> Any:
    """A module of `layers` blocks, one after another; parameters carry a leading axis of that length.

    Args:
      block: of `(x, fixed) -> (x, None)`.
      layers: how many.
      remat: "none", or a key of `REMAT`.
      unroll: compile every block by itself. Otherwise one is compiled, in a loop, which writes what the backward pass
        needs into arrays of all layers: passes over memory of their own. `UNROLLED` and fewer always are.
    """
    unroll = unroll or layers <= UNROLLED
    if remat != "none":  # a loop keeps XLA from merging what is computed again with the first time
        block = nn.remat(block, prevent_cse=unroll, policy=REMAT[remat])
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=layers,
        in_axes=nn.broadcast,
        unroll=layers if unroll else 1,
    )


class Transformer(nn.Module):
    """`layers` blocks; see `stack`."""

    layers: int
    heads: int
    dtype: DTypeLike
    causal: bool = False
    implementation: str = "xla"
    remat: str = "none"
    unroll: bool = False
    activation: str = "quick_gelu"

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        blocks = stack(Block, self.layers, self.remat, self.unroll)
        x, _ = blocks(
            self.heads, self.layers, self.dtype, self.causal, self.implementation, self.activation, name="blocks"
        )(x, None)
        return x
