"""Attention for a CPU: plain products of matrices, and blocks of clips whose scores stay in the CPU's caches.

XLA computes `jax.nn.dot_product_attention` on a CPU with the heads between tokens and channels, which it multiplies
slowly, and writes the scores of the whole batch to memory several times. Here the heads come first, and the scores of a
block are recomputed in the backward pass while they are near. benchmarks/cpu_attention.py measures both.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SCORES = 8 * 2**20  # bytes of float32 scores of a block


def attention_of(platform: str) -> str:
    """`Harvest.attention` of a program that runs on one device of a platform, or on each of several by itself."""
    return "cpu" if platform == "cpu" else "xla"


def attend_on_cpu(
    query: Float[Array, "b m h d"], key: Float[Array, "b n h d"], value: Float[Array, "b n h d"], causal: bool
) -> Float[Array, "b m h d"]:
    """Scaled dot-product attention with scores and softmax in float32; see `blocks.attend`."""
    batch, queries, heads, _ = query.shape
    most = max(1, SCORES // (4 * heads * queries * key.shape[1]))
    block = next(size for size in range(min(batch, most), 0, -1) if batch % size == 0)
    one = functools.partial(_attend, causal=causal)
    if block == batch:
        return one(query, key, value)
    again = jax.checkpoint(one)
    split = [array.reshape(batch // block, block, *array.shape[1:]) for array in (query, key, value)]
    return jax.lax.map(lambda arrays: again(*arrays), split).reshape(query.shape)


def _attend(
    query: Float[Array, "b m h d"], key: Float[Array, "b n h d"], value: Float[Array, "b n h d"], causal: bool
) -> Float[Array, "b m h d"]:
    """All clips at once, as products over (clip, head)."""
    batch, queries, heads, width = query.shape
    keys = key.shape[1]
    query, key, value = (jnp.swapaxes(array, 1, 2).reshape(batch * heads, -1, width) for array in (query, key, value))
    scores = jnp.einsum("xmd,xnd->xmn", query, key, preferred_element_type=jnp.float32) * width**-0.5
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones((queries, keys), bool)), scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores).astype(value.dtype)
    mixed = jnp.einsum("xmn,xnd->xmd", weights, value)
    return jnp.swapaxes(mixed.reshape(batch, heads, queries, width), 1, 2)
