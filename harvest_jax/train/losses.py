"""The losses, as functions of arrays, in float32.

The contrastive losses use every pair of the global batch. They compute the similarities of some captions (`chunk`) at
a time, in the forward pass and again in the backward pass, and keep none. Memory then grows with batch times chunk:
linearly in the batch for a chunk of fixed size. The numbers do not depend on the chunk.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from harvest_jax.model.harvest import l2_normalise

# SigLIP's start (arXiv 2303.15343, section 3.2): at first nearly all pairs are predicted not to match. The softmax loss
# starts from CLIP's scale.
SIGMOID_LOGIT_SCALE, SIGMOID_LOGIT_BIAS = math.log(10.0), -10.0

Ranks = dict[str, Array]


def softmax_loss(
    video: Float[Array, "b d"], text: Float[Array, "b d"], logit_scale: Float[Array, ""], chunk: int = 0
) -> tuple[Float[Array, ""], Ranks]:
    """Symmetric InfoNCE over the whole batch: the mean of video-to-text and text-to-video cross entropy.

    Under jit the batch is the global batch, on any mesh; the caller decides how `text` is sharded.

    Args:
      video, text: row i of each belongs together; normalised here.
      logit_scale: natural logarithm of the inverse temperature, as CLIP stores it.
      chunk: captions at a time; divides B; 0 for all of them.

    Returns:
      the loss in nats, and {"batch_R@1_v2t", "batch_R@1_t2v"} in 0..1: the share of rows whose own pair is the most
      similar one.
    """
    return _softmax(l2_normalise(video), l2_normalise(text), jnp.exp(logit_scale), chunk or len(text))


def sigmoid_loss(
    video: Float[Array, "b d"],
    text: Float[Array, "b d"],
    logit_scale: Float[Array, ""],
    logit_bias: Float[Array, ""],
    chunk: int = 0,
) -> tuple[Float[Array, ""], Ranks]:
    """SigLIP's loss: binary cross entropy of every pair, summed, divided by B (arXiv 2303.15343, algorithm 1).

    Args and returns as `softmax_loss`; `logit_bias` is added to every scaled similarity.
    """
    video, text, scale, chunk = l2_normalise(video), l2_normalise(text), jnp.exp(logit_scale), chunk or len(text)

    @jax.checkpoint  # the backward pass computes the logits of a chunk again; only the sum is kept
    def add_chunk(total: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        number, captions = inputs
        logits = _logits(video, captions, scale) + logit_bias
        return total + jax.nn.softplus(jnp.where(_positives(len(video), chunk, number), -logits, logits)).sum(), None

    chunks = _chunks(text, chunk)
    total, _ = jax.lax.scan(add_chunk, jnp.zeros(()), (jnp.arange(len(chunks)), chunks))
    _, ranks = _softmax(*jax.lax.stop_gradient((video, text, scale)), chunk)
    return total / len(text), ranks


def masked_word_loss(
    logits: Float[Array, "b m vocab"], targets: Int[Array, "b m"], weights: Float[Array, "b m"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross entropy over the masked slots, summed; the caller divides by the slots in use of the whole batch.

    Args:
      logits: float32, one row for each slot.
      targets: id of the hidden token.
      weights: 1 for a slot in use, 0 for an empty one.

    Returns:
      the sum in nats, and how many of the slots in use have their best token right.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    right = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
    return (losses * weights).sum(), (right * weights).sum()


def masked_positions(slots: Array, weights: Array, length: int) -> Array:
    """Slots int32 [B, M] with weights [B, M] to bool [B, L]: True where a word is hidden."""
    hits = jax.nn.one_hot(slots, length, dtype=jnp.float32) * weights[..., None]
    return hits.sum(axis=1) > 0


def _chunks(text: Float[Array, "b d"], chunk: int) -> Float[Array, "n c d"]:
    return text.reshape(-1, chunk, text.shape[-1])


def _logits(video: Float[Array, "b d"], captions: Float[Array, "c d"], scale: Float[Array, ""]) -> Float[Array, "b c"]:
    return scale * jnp.matmul(video, captions.T, precision=jax.lax.Precision.HIGHEST)


def _positives(rows: int, chunk: int, number: Array) -> Bool[Array, "b c"]:
    """True where row and column are the same pair, in chunk `number`."""
    return jnp.arange(rows)[:, None] == number * chunk + jnp.arange(chunk)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _softmax(video: Array, text: Array, scale: Array, chunk: int) -> tuple[Array, Ranks]:
    """`softmax_loss` of unit vectors; the ranks have no gradient."""
    return _softmax_forward(video, text, scale, chunk)[0]


def _softmax_forward(video: Array, text: Array, scale: Array, chunk: int) -> tuple[Any, Any]:
    """Log-sum-exp of rows is carried from chunk to chunk; that of columns is complete within a chunk."""
    rows = len(video)

    def add_chunk(carry: tuple[Array, Array, Array], inputs: tuple[Array, Array]) -> tuple[Any, Any]:
        row_max, row_sum, row_best = carry  # so far: largest logit, sum of exp(logit - row_max), largest negative
        number, captions = inputs
        logits, positives = _logits(video, captions, scale), _positives(rows, chunk, number)
        new_max = jnp.maximum(row_max, logits.max(axis=1))
        row_sum = row_sum * jnp.exp(row_max - new_max) + jnp.exp(logits - new_max[:, None]).sum(axis=1)
        negatives = jnp.where(positives, -jnp.inf, logits)
        column_max = logits.max(axis=0)
        column_sum = jnp.exp(logits - column_max).sum(axis=0)
        of_columns = column_max, column_sum, negatives.max(axis=0), jnp.where(positives, logits, 0).sum(axis=0)
        return (new_max, row_sum, jnp.maximum(row_best, negatives.max(axis=1))), of_columns

    chunks = _chunks(text, chunk)
    lowest = jnp.full(rows, -jnp.inf)
    (row_max, row_sum, row_best), of_columns = jax.lax.scan(
        add_chunk, (lowest, jnp.zeros(rows), lowest), (jnp.arange(len(chunks)), chunks)
    )
    column_max, column_sum, column_best, positive = (part.reshape(-1) for part in of_columns)
    ranks = {"batch_R@1_v2t": jnp.mean(positive >= row_best), "batch_R@1_t2v": jnp.mean(positive >= column_best)}
    v2t, t2v = row_max - positive + jnp.log(row_sum), column_max - positive + jnp.log(column_sum)
    # For the backward pass the maximum and the sum stay apart: their logarithm would lose digits of a probability
    # near one. Those of the columns stay cut into chunks.
    saved = video, text, scale, row_max, row_sum, *of_columns[:2]
    return ((v2t.mean() + t2v.mean()) / 2, ranks), saved


def _softmax_backward(chunk: int, saved: Any, cotangents: Any) -> tuple[Array, Array, Array]:
    video, text, scale, row_max, row_sum, *of_columns = saved
    weight = cotangents[0] / (2 * len(video))

    def add_chunk(carry: tuple[Array, Array], inputs: tuple[Array, Array, Array, Array]) -> tuple[Any, Array]:
        video_grad, scale_grad = carry
        number, captions, column_max, column_sum = inputs
        logits, positives = _logits(video, captions, scale), _positives(len(video), chunk, number)
        row_softmax = jnp.exp(logits - row_max[:, None]) / row_sum[:, None]
        column_softmax = jnp.exp(logits - column_max) / column_sum
        logits_grad = weight * ((row_softmax - positives) + (column_softmax - positives))
        text_grad = scale * jnp.matmul(logits_grad.T, video, precision=jax.lax.Precision.HIGHEST)
        video_grad += scale * jnp.matmul(logits_grad, captions, precision=jax.lax.Precision.HIGHEST)
        return (video_grad, scale_grad + (logits_grad * logits).sum() / scale), text_grad

    start = jnp.zeros_like(video), jnp.zeros_like(scale)
    chunks = _chunks(text, chunk)
    (video_grad, scale_grad), text_grad = jax.lax.scan(add_chunk, start, (jnp.arange(len(chunks)), chunks, *of_columns))
    return video_grad, text_grad.reshape(text.shape), scale_grad


_softmax.defvjp(_softmax_forward, _softmax_backward)
