"""A linear classifier on frozen embeddings: logistic regression over all classes.

As CLIP's linear probes (arXiv 2103.00020, appendix A.3): L-BFGS on the whole training set, with the weight decay
chosen on held-out training clips. The grid of decays, the share that is held out, and the scaling of embeddings are our
choice.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float32, Int

from harvest_jax.evaluate.scores.cosines import unit_vectors
from harvest_jax.model.inference import PRECISION

HELD_OUT = 0.2  # share of each class's training clips, at least one where there are two
MAX_STEPS = 500
TOLERANCE = 1e-5  # norm of the gradient at which it ends


@dataclasses.dataclass(frozen=True)
class Probe:
    """A classifier of embeddings.

    Attributes:
      mean: of the training set's unit embeddings.
      scale: factor after which a coordinate of them has the variance 1, on average over coordinates.
      weights: of each coordinate and class.
      bias: of each class.
    """

    mean: Float[np.ndarray, " width"]
    scale: float
    weights: Float[np.ndarray, "width classes"]
    bias: Float[np.ndarray, " classes"]

    def scores(self, embeddings: Float[np.ndarray, "n width"]) -> Float32[np.ndarray, "n classes"]:
        """Logits.

        Raises:
          NonFiniteError: an embedding is zero or not finite.
        """
        features = (unit_vectors(embeddings, "video") - self.mean) * self.scale
        return (features @ self.weights + self.bias).astype(np.float32)


def fit(
    embeddings: Float[np.ndarray, "n width"],
    labels: Int[np.ndarray, " n"],
    classes: int,
    weight_decay: float,
    used: Bool[np.ndarray, " n"] | None = None,
) -> Probe:
    """The classifier with the least mean cross entropy + weight_decay / 2 * sum of squared weights (not of the bias).

    The minimum is unique but for the common level of all biases, so that it does not depend on how it is found.

    Args:
      embeddings: of any norm except zero.
      labels: class numbers.
      classes: how many there are.
      weight_decay: above 0.
      used: the clips to train on; None: all. The others are left out by a weight of 0, so that one program is compiled.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
    """
    unit = unit_vectors(embeddings, "video")
    chosen = np.ones(len(unit), bool) if used is None else used
    mean = unit[chosen].mean(axis=0)
    spread = float(np.sqrt(np.mean((unit[chosen] - mean) ** 2)))
    scale = 1 / spread if spread > 0 else 1.0
    with jax.default_matmul_precision(PRECISION):
        found = _minimum(
            jnp.asarray((unit - mean) * scale, jnp.float32),
            jnp.asarray(labels),
            jnp.asarray(chosen / chosen.sum(), jnp.float32),
            jnp.float32(weight_decay),
            jnp.zeros((unit.shape[1], classes)),
        )
    return Probe(mean, scale, np.asarray(found["weights"], np.float64), np.asarray(found["bias"], np.float64))


@jax.jit
def _minimum(
    features: Float[Array, "n width"],
    labels: Int[Array, " n"],
    shares: Float[Array, " n"],
    decay: Float[Array, ""],
    start: Float[Array, "width classes"],
) -> dict[str, Array]:
    def loss(params: dict[str, Array]) -> Array:
        logits = features @ params["weights"] + params["bias"]
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.sum(shares * entropy) + decay / 2 * jnp.sum(params["weights"] ** 2)

    solver = optax.lbfgs()
    value_and_gradient = optax.value_and_grad_from_state(loss)

    def step(carry: tuple[dict[str, Array], Any, Array, Array]) -> tuple[dict[str, Array], Any, Array, Array]:
        params, state, _, done = carry
        value, gradient = value_and_gradient(params, state=state)
        updates, state = solver.update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
        params = optax.apply_updates(params, updates)
        return params, state, optax.tree.norm(optax.tree.get(state, "grad")), done + 1

    def goes_on(carry: tuple[dict[str, Array], Any, Array, Array]) -> Array:
        return (carry[2] > TOLERANCE) & (carry[3] < MAX_STEPS)

    first = {"weights": start, "bias": jnp.zeros(start.shape[1])}
    begin = (first, solver.init(first), jnp.float32(jnp.inf), jnp.int32(0))
    found: dict[str, Array] = jax.lax.while_loop(goes_on, step, begin)[0]
    return found


def held_out(labels: Int[np.ndarray, " n"], order: Sequence[str]) -> Bool[np.ndarray, " n"]:
    """Which training clips are held out: of each class the first of them in some order.

    Args:
      labels: class numbers.
      order: a text for each clip; the clips of a class are taken in the order of these.
    """
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        clips = sorted(np.flatnonzero(labels == label), key=lambda clip: order[int(clip)])
        chosen[clips[: max(1, round(HELD_OUT * len(clips))) if len(clips) > 1 else 0]] = True
    return chosen


def choose_decay(
    embeddings: Float[np.ndarray, "n width"],
    labels: Int[np.ndarray, " n"],
    classes: int,
    decays: Sequence[float],
    held: Bool[np.ndarray, " n"],
) -> tuple[float, float]:
    """The decay with the best accuracy on the clips held out, and this accuracy (percent); of equal ones the largest.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
    """
    accuracies = []
    for decay in decays:
        probe = fit(embeddings, labels, classes, decay, ~held)
        right = probe.scores(embeddings[held]).argmax(axis=1) == labels[held]
        accuracies.append((100 * float(right.mean()), decay))
    accuracy, decay = max(accuracies)
    return decay, accuracy
