"""The two losses, as functions of arrays, in float32."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from harvest_jax.model.harvest import unit


def contrastive_loss(
    video: Float[Array, "b d"], text: Float[Array, "b d"], logit_scale: Float[Array, ""]
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Symmetric InfoNCE over the whole batch: the mean of video-to-text and text-to-video cross entropy.

    Under jit the batch is the global batch, whatever the mesh; the caller decides how `text` is laid out.

    Args:
      video, text: row i of each belongs together; normalised here.
      logit_scale: natural logarithm of the inverse temperature, as CLIP stores it.

    Returns:
      the loss in nats, and {"batch_R@1_v2t", "batch_R@1_t2v"} in 0..1.
    """
    logits = jnp.exp(logit_scale) * jnp.matmul(
        unit(video), unit(text).T, precision=jax.lax.Precision.HIGHEST
    )  # b_video b_text
    own = jnp.arange(logits.shape[0])
    v2t = optax.softmax_cross_entropy_with_integer_labels(logits, own)
    t2v = optax.softmax_cross_entropy_with_integer_labels(logits.T, own)
    accuracy = {
        "batch_R@1_v2t": jnp.mean(jnp.argmax(logits, axis=1) == own),
        "batch_R@1_t2v": jnp.mean(jnp.argmax(logits, axis=0) == own),
    }
    return (v2t.mean() + t2v.mean()) / 2, accuracy


def masked_word_loss(
    logits: Float[Array, "b m vocab"], targets: Int[Array, "b m"], weights: Float[Array, "b m"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean cross entropy over the masked slots of the whole batch, 0 if there is none.

    Args:
      logits: float32, one row for each slot.
      targets: id of the hidden token.
      weights: 1 for a slot in use, 0 for an empty one.

    Returns:
      loss in nats, and the share of slots whose best token is right.
    """
    total = jnp.maximum(weights.sum(), 1.0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    right = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
    return (losses * weights).sum() / total, (right * weights).sum() / total
