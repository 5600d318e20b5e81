"""One training step: a pure function of (state, frozen parameters, batch), and the jitted shell around it."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from harvest_jax.config import RunConfig
from harvest_jax.model.harvest import Harvest
from harvest_jax.train.freeze import Tree, merge
from harvest_jax.train.losses import contrastive_loss, masked_word_loss
from harvest_jax.train.optim import optimizer, schedule

MAX_LOGIT_SCALE = math.log(100.0)  # CLIP's; InternVideo CoTrain clamps to [0, ln 100]

Batch = dict[str, Array]
Metrics = dict[str, Array]


@flax.struct.dataclass
class TrainState:
    """What training changes, or as a tree of the same shape its ShapeDtypeStructs or shardings."""

    step: Any  # int32 []
    params: Tree  # the trained part only
    opt_state: Any
    first_bad_step: Any  # int32 [], -1 while every loss and gradient was finite


@dataclasses.dataclass(frozen=True)
class Step:
    """The parts a step is made of, fixed for a run."""

    model: Harvest
    run: RunConfig
    replicate: Callable[[Array], Array] = lambda x: x  # lays a batch-sharded array out on every device

    def init_state(self, trained: Tree) -> TrainState:
        """State at step 0."""
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=trained,
            opt_state=optimizer(self.run.train).init(trained),
            first_bad_step=jnp.full((), -1, jnp.int32),
        )

    def loss(self, trained: Tree, frozen: Tree, batch: Batch) -> tuple[Array, Metrics]:
        """The objective on one global batch.

        Args:
          trained, frozen: the two parts of the parameters.
          batch: patches uint8 [B, K, P], positions int32 [B, K], ids int32 [B, L], slots int32 [B, M],
            slot_weights float32 [B, M].

        Returns:
          the weighted sum of the losses (float32 []), and measurements.
        """
        model, train = self.model, self.run.train
        params = merge(trained, frozen)
        video = model.encode_video(params, batch["patches"], batch["positions"])
        ids, slots, weights = batch["ids"], batch["slots"], batch["slot_weights"]
        words = train.mlm_weight > 0 and slots.shape[1] > 0 and model.config.decoder is not None
        # One pass through the text tower serves both losses, as the ancestors do, unless the contrastive text is clean.
        text = model.encode_text(params, ids, masked_positions(slots, weights, ids.shape[1]) if words else None)
        seen = model.encode_text(params, ids) if words and self.run.text.contrastive == "clean" else text

        total = jnp.zeros(())
        metrics: Metrics = {}
        if train.contrastive_weight > 0:
            loss, ranks = contrastive_loss(video["embedding"], self.replicate(seen["embedding"]), params["logit_scale"])
            total += train.contrastive_weight * loss
            metrics |= {"contrastive_loss": loss, **ranks}
        if words:
            hidden = jnp.take_along_axis(text["tokens"], slots[..., None], axis=1)
            logits = model.decode(params, hidden, video["tokens"])
            loss, accuracy = masked_word_loss(logits, jnp.take_along_axis(ids, slots, axis=1), weights)
            total += train.mlm_weight * loss
            metrics |= {"mlm_loss": loss, "mlm_accuracy": accuracy}
        return total, {"loss": total, "logit_scale": params["logit_scale"], **metrics}

    def __call__(self, state: TrainState, frozen: Tree, batch: Batch) -> tuple[TrainState, Metrics]:
        """Loss, gradient, update. A step with a non-finite loss or gradient changes nothing but `first_bad_step`."""
        (loss, metrics), grads = jax.value_and_grad(self.loss, has_aux=True)(state.params, frozen, batch)
        grad_norm = optax.tree.norm(grads)
        updates, opt_state = optimizer(self.run.train).update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if "logit_scale" in params:
            params = params | {"logit_scale": jnp.clip(params["logit_scale"], 0.0, MAX_LOGIT_SCALE)}
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        bad = jnp.where(finite | (state.first_bad_step >= 0), state.first_bad_step, state.step)
        metrics |= {"grad_norm": grad_norm, "learning_rate": jnp.asarray(schedule(self.run.train)(state.step))}
        state = TrainState(
            step=state.step + 1,
            params=jax.tree.map(keep, params, state.params),
            opt_state=jax.tree.map(keep, opt_state, state.opt_state),
            first_bad_step=bad,
        )
        return state, metrics


def masked_positions(slots: Array, weights: Array, length: int) -> Array:
    """Slots int32 [B, M] with weights [B, M] to bool [B, L]: True where a word is hidden."""
    hits = jax.nn.one_hot(slots, length, dtype=jnp.float32) * weights[..., None]
    return hits.sum(axis=1) > 0
