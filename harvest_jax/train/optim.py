"""AdamW as the ancestors use it: warm-up and cosine, decay on matrices only, a multiplier for each parameter."""

import re

import optax

from harvest_jax.config import TrainFields
from harvest_jax.train.freeze import Tree, map_with_path, multiplier

# Biases and norms of scanned layers have a leading layer axis, so "matrices only" goes by name, not by rank.
NO_DECAY = re.compile(r".*(bias|scale|embedding)$")


def schedule(train: TrainFields) -> optax.Schedule:
    """Learning rate over steps: linear from 0 to the peak, cosine to 0; then the same for the steps with all patches.

    Their warm-up takes a fifth of them (ViCLIP, InternVideo `run_freeze_unmask.sh`: 0.1 of 0.5 epochs).
    """
    dropping, last = train.steps - train.unmasked_steps, train.unmasked_steps
    first = _rise_and_fall(train.learning_rate, max(dropping, 1), train.warmup_steps)
    if not last:
        return first
    return optax.join_schedules([first, _rise_and_fall(train.unmasked_learning_rate, last, last // 5)], [dropping])


def _rise_and_fall(peak: float, steps: int, warmup: int) -> optax.Schedule:
    warmup = min(warmup, steps - 1)
    cosine = optax.cosine_decay_schedule(peak, steps - warmup)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(warmup, 1)), cosine], [warmup])


def decays(path: str) -> bool:
    """Whether weight decay applies: matrices; no biases, norms, tables of embeddings, no logit_scale (CoTrain)."""
    return not NO_DECAY.match(path)


def optimizer(train: TrainFields) -> optax.GradientTransformation:
    """Gradient to update, for the trained part of the parameters."""

    def scale_each(updates: Tree) -> Tree:
        return map_with_path(lambda path, leaf: leaf * multiplier(path, train.lr_multipliers), updates)

    return optax.chain(
        optax.clip_by_global_norm(train.clip_norm) if train.clip_norm else optax.identity(),
        optax.scale_by_adam(train.b1, train.b2, train.eps),
        optax.add_decayed_weights(train.weight_decay, lambda params: map_with_path(lambda p, _: decays(p), params)),
        optax.stateless(lambda updates, _: scale_each(updates)),
        optax.scale_by_learning_rate(schedule(train)),
    )
