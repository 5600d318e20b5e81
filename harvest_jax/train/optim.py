"""AdamW as in CLIP and InternVideo: warm-up and fall of the rate, decay of matrices, a multiplier per parameter."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from harvest_jax.config.run import TrainFields
from harvest_jax.train.freeze import Tree, map_with_path, multiplier

# Biases and norms of scanned layers have a leading layer axis, so "matrices only" goes by name, not by rank.
NO_DECAY = re.compile(r".*(bias|scale|embedding)$")


def schedule(train: TrainFields) -> optax.Schedule:
    """Learning rate over steps: linear from 0 to the peak, `decay` to 0; then the same for the steps with all patches.

    The warm-up of the latter takes a fifth of them (InternVideo's ViCLIP, `run_freeze_unmask.sh`: 0.1 of 0.5 epochs).
    """
    dropping, last = train.steps - train.unmasked_steps, train.unmasked_steps
    first = _rise_and_fall(train.learning_rate, max(dropping, 1), train.warmup_steps, train.decay)
    if not last:
        return first
    final = _rise_and_fall(train.unmasked_learning_rate, last, last // 5, train.decay)
    return optax.join_schedules([first, final], [dropping])


def _rise_and_fall(peak: float, steps: int, warmup: int, decay: str) -> optax.Schedule:
    warmup = min(warmup, steps - 1)
    left = steps - warmup
    fall = optax.linear_schedule(peak, 0.0, left) if decay == "linear" else optax.cosine_decay_schedule(peak, left)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(warmup, 1)), fall], [warmup])


def decays(path: str) -> bool:
    """Whether weight decay applies: matrices; no biases, norms, tables of embeddings, no logit_scale (CoTrain)."""
    return not NO_DECAY.match(path)


def optimizer(train: TrainFields) -> optax.GradientTransformation:
    """The optimizer of the trained parameters."""

    def scale_each(updates: Tree) -> Tree:
        return map_with_path(lambda path, leaf: leaf * multiplier(path, train.lr_multipliers), updates)

    return optax.chain(
        optax.clip_by_global_norm(train.clip_norm) if train.clip_norm else optax.identity(),
        adam(train.b1, train.b2, train.eps),
        optax.add_decayed_weights(train.weight_decay, lambda params: map_with_path(lambda p, _: decays(p), params)),
        optax.stateless(lambda updates, _: scale_each(updates)),
        optax.scale_by_learning_rate(schedule(train)),
    )


def adam(b1: float, b2: float, eps: float) -> optax.GradientTransformationExtraArgs:
    """`optax.scale_by_adam`, whose moments stay as they are if `finite` is False.

    A barrier makes XLA compute the moments before the update. Without it XLA on a CPU computes them a second time
    inside the update, from the old ones, which it therefore has to copy: that takes three times as long.
    """

    def update(grads: Tree, state: optax.ScaleByAdamState, params: Any = None, *, finite: Any = True) -> Any:
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        grads = jax.lax.optimization_barrier(grads)  # else the squares for the norm are kept for this
        mu = jax.tree.map(keep, optax.tree.update_moment(grads, state.mu, b1, 1), state.mu)
        nu = jax.tree.map(keep, optax.tree.update_moment_per_elem_norm(grads, state.nu, b2, 2), state.nu)
        count = state.count + 1
        mu, nu = jax.lax.optimization_barrier((mu, nu))
        mu_hat, nu_hat = (optax.tree.bias_correction(m, b, count) for m, b in ((mu, b1), (nu, b2)))
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu_hat, nu_hat)
        return updates, optax.ScaleByAdamState(count=keep(count, state.count), mu=mu, nu=nu)

    return optax.GradientTransformationExtraArgs(optax.scale_by_adam(b1, b2, eps).init, update)
