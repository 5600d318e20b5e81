"""The losses, as functions of arrays, in float32.

The contrastive ones look at every pair of the global batch, some captions (`chunk`) at a time: similarities are made
piece by piece, in the forward and again in the backward pass, so that none is kept. Memory then grows with the batch
times the chunk, and with a chunk of fixed size linearly in the batch; the numbers do not depend on it.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from harvest_jax.model.harvest import unit

# SigLIP's start (arXiv 2303.15343, section 3.2), under which few pairs are taken for matches at first. CLIP's scale
# belongs to the softmax.
SIGMOID_LOGIT_SCALE, SIGMOID_LOGIT_BIAS = math.log(10.0), -10.0

Ranks = dict[str, Array]


def softmax_loss(
    video: Float[Array, "b d"], text: Float[Array, "b d"], logit_scale: Float[Array, ""], chunk: int = 0
) -> tuple[Float[Array, ""], Ranks]:
    """Symmetric InfoNCE over the whole batch: the mean of video-to-text and text-to-video cross entropy.

    Under jit the batch is the global batch, whatever the mesh; the caller decides how `text` is laid out.

    Args:
      video, text: row i of each belongs together; normalised here.
      logit_scale: natural logarithm of the inverse temperature, as CLIP stores it.
      chunk: captions looked at together; divides B; 0 for all of them.

    Returns:
      the loss in nats, and {"batch_R@1_v2t", "batch_R@1_t2v"} in 0..1: how often no other is more similar.
    """
    return _softmax(unit(video), unit(text), jnp.exp(logit_scale), chunk or len(text))


def sigmoid_loss(
    video: Float[Array, "b d"],
    text: Float[Array, "b d"],
    logit_scale: Float[Array, ""],
    logit_bias: Float[Array, ""],
    chunk: int = 0,
) -> tuple[Float[Array, ""], Ranks]:
    """SigLIP's: every pair is its own yes-or-no question (arXiv 2303.15343, algorithm 1), summed, over the batch size.

    Args and returns as `softmax_loss`; `logit_bias` is added to every scaled similarity.
    """
    video, text, scale, chunk = unit(video), unit(text), jnp.exp(logit_scale), chunk or len(text)

    # checkpointed: a piece of the matrix is made again in the backward pass, and only the sum is carried
    @jax.checkpoint
    def look(total: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        number, piece = inputs
        logits = _logits(video, piece, scale) + logit_bias
        return total + jax.nn.softplus(jnp.where(_own(len(video), chunk, number), -logits, logits)).sum(), None

    pieces = _pieces(text, chunk)
    total, _ = jax.lax.scan(look, jnp.zeros(()), (jnp.arange(len(pieces)), pieces))
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


def _pieces(text: Float[Array, "b d"], chunk: int) -> Float[Array, "n c d"]:
    return text.reshape(-1, chunk, text.shape[-1])


def _logits(video: Float[Array, "b d"], piece: Float[Array, "c d"], scale: Float[Array, ""]) -> Float[Array, "b c"]:
    return scale * jnp.matmul(video, piece.T, precision=jax.lax.Precision.HIGHEST)


def _own(rows: int, chunk: int, number: Array) -> Bool[Array, "b c"]:
    """True where a video meets its own caption, in piece `number`."""
    return jnp.arange(rows)[:, None] == number * chunk + jnp.arange(chunk)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _softmax(video: Array, text: Array, scale: Array, chunk: int) -> tuple[Array, Ranks]:
    """`softmax_loss` of unit vectors; the ranks have no gradient."""
    return _softmax_forward(video, text, scale, chunk)[0]


def _softmax_forward(video: Array, text: Array, scale: Array, chunk: int) -> tuple[Any, Any]:
    rows = len(video)

    def look(carry: tuple[Array, Array, Array], inputs: tuple[Array, Array]) -> tuple[Any, Any]:
        top, total, best = carry  # of each row so far: largest logit, sum of exponentials relative to it, best other
        number, piece = inputs
        logits, own = _logits(video, piece, scale), _own(rows, chunk, number)
        higher = jnp.maximum(top, logits.max(axis=1))
        total = total * jnp.exp(top - higher) + jnp.exp(logits - higher[:, None]).sum(axis=1)
        others = jnp.where(own, -jnp.inf, logits)
        column_top = logits.max(axis=0)
        column_total = jnp.exp(logits - column_top).sum(axis=0)
        found = column_top, column_total, others.max(axis=0), jnp.where(own, logits, 0).sum(axis=0)
        return (higher, total, jnp.maximum(best, others.max(axis=1))), found

    pieces = _pieces(text, chunk)
    lowest = jnp.full(rows, -jnp.inf)
    (top, total, best_text), (*columns, best_video, own) = jax.lax.scan(
        look, (lowest, jnp.zeros(rows), lowest), (jnp.arange(len(pieces)), pieces)
    )
    column_top, column_total, best_video, own = (part.reshape(-1) for part in (*columns, best_video, own))
    ranks = {"batch_R@1_v2t": jnp.mean(own >= best_text), "batch_R@1_t2v": jnp.mean(own >= best_video)}
    to_text, to_video = top - own + jnp.log(total), column_top - own + jnp.log(column_total)
    return ((to_text.mean() + to_video.mean()) / 2, ranks), (video, text, scale, top, total, *columns)


def _softmax_backward(chunk: int, kept: Any, cotangents: Any) -> tuple[Array, Array, Array]:
    # Largest logit and sum apart, not the logarithm of both: that would lose digits of a probability near one.
    video, text, scale, top, total, *columns = kept
    weight = cotangents[0] / (2 * len(video))

    def look(carry: tuple[Array, Array], inputs: tuple[Array, Array, Array, Array]) -> tuple[Any, Array]:
        to_video, to_scale = carry
        number, piece, column_top, column_total = inputs
        logits, own = _logits(video, piece, scale), _own(len(video), chunk, number)
        of_row = jnp.exp(logits - top[:, None]) / total[:, None]
        of_column = jnp.exp(logits - column_top) / column_total
        to_logits = weight * ((of_row - own) + (of_column - own))
        to_piece = scale * jnp.matmul(to_logits.T, video, precision=jax.lax.Precision.HIGHEST)
        to_video += scale * jnp.matmul(to_logits, piece, precision=jax.lax.Precision.HIGHEST)
        return (to_video, to_scale + (to_logits * logits).sum() / scale), to_piece

    start = jnp.zeros_like(video), jnp.zeros_like(scale)
    pieces = _pieces(text, chunk)
    (to_video, to_scale), to_text = jax.lax.scan(look, start, (jnp.arange(len(pieces)), pieces, *columns))
    return to_video, to_text.reshape(text.shape), to_scale


_softmax.defvjp(_softmax_forward, _softmax_backward)
