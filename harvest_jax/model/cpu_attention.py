"""Attention for a CPU: plain products of matrices, and blocks of heads whose scores stay in the CPU's caches.

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
    batch, queries, heads, width = query.shape
    rows, keys = batch * heads, key.shape[1]
    arrays = [jnp.swapaxes(array, 1, 2).reshape(rows, -1, width) for array in (query, key, value)]
    most = max(1, SCORES // (4 * queries * keys))
    block = next(size for size in range(min(rows, most), 0, -1) if rows % size == 0)
    one = functools.partial(_attend, causal=causal)
    if block == rows:
        mixed = one(*arrays)
    else:
        again = jax.checkpoint(one)
        split = [array.reshape(rows // block, block, -1, width) for array in arrays]
        mixed = jax.lax.map(lambda part: again(*part), split)
    return jnp.swapaxes(mixed.reshape(batch, heads, queries, width), 1, 2)


def _attend(
    query: Float[Array, "x m d"], key: Float[Array, "x n d"], value: Float[Array, "x n d"], causal: bool
) -> Float[Array, "x m d"]:
    """One head of one clip in each row."""
    scores = jnp.einsum("xmd,xnd->xmn", query, key, preferred_element_type=jnp.float32) * query.shape[-1] ** -0.5
    if causal:
        seen = jnp.tril(jnp.ones(scores.shape[1:], bool))
        scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
    return jnp.einsum("xmn,xnd->xmd", jax.nn.softmax(scores).astype(value.dtype), value)
