"""One training step: a pure function of (state, frozen parameters, batch). `program.py` compiles it."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from harvest_jax.config.run import RunConfig
from harvest_jax.model.harvest import Harvest
from harvest_jax.train.freeze import Tree, merge
from harvest_jax.train.objectives import Objective, objective_of
from harvest_jax.train.objectives.objective import Batch, Metrics
from harvest_jax.train.optim import optimizer, schedule

MAX_LOGIT_SCALE = math.log(100.0)  # CLIP's; InternVideo's CoTrain clamps to [0, ln 100]


@flax.struct.dataclass
class TrainState:
    """What training changes, or as a tree of the same shape its ShapeDtypeStructs or shardings."""

    step: Any  # int32 []
    params: Tree  # the trained part only
    opt_state: Any
    first_bad_step: Any  # int32 [], -1 while every loss and gradient was finite


@dataclasses.dataclass(frozen=True)
class Step:
    """The parts of a step that are fixed for a run."""

    model: Harvest
    run: RunConfig
    pieces: int = 1  # in which a batch is computed; divides the batch size
    gather: Callable[[Any], Any] = lambda tree: tree  # split arrays to whole ones on every device
    scatter: Callable[[Tree], Tree] = lambda tree: tree  # gradients, split as their parameters are

    def init_state(self, trained: Tree) -> TrainState:
        """State at step 0."""
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=trained,
            opt_state=optimizer(self.run.train).init(trained),
            first_bad_step=jnp.full((), -1, jnp.int32),
        )

    def __call__(self, state: TrainState, frozen: Tree, batch: Batch) -> tuple[TrainState, Metrics]:
        """Loss, gradient, update. A step with a non-finite loss or gradient changes nothing but `first_bad_step`.

        Args:
          state: of the trained parameters.
          frozen: the other parameters.
          batch: patches uint8 [B, K, P], positions int32 [B, K], and what the objective reads besides
            (`Objective.inputs`).

        Returns:
          the next state, and measurements: float32 [] each.
        """
        # Gathered here, once. Without this XLA leaves split weights where they are and sends the activations (tensor
        # parallelism), which costs many times the network traffic of fsdp. docs/decisions.md
        metrics, grads = self.gradient(self.gather(state.params), self.gather(frozen), batch)
        grads = self.scatter(grads)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        keep_count = lambda new, old: keep(new, old) if new.ndim == 0 else new  # noqa: E731 (adam keeps its moments)
        updates, opt_state = optimizer(self.run.train).update(grads, state.opt_state, state.params, finite=finite)
        params = optax.apply_updates(state.params, updates)
        if "logit_scale" in params:
            most = None if self.model.config.logit_bias else MAX_LOGIT_SCALE  # a trained SigLIP's scale is above CLIP's
            params = params | {"logit_scale": jnp.clip(params["logit_scale"], 0.0, most)}
        bad = jnp.where(finite | (state.first_bad_step >= 0), state.first_bad_step, state.step)
        metrics |= {"grad_norm": grad_norm, "learning_rate": jnp.asarray(schedule(self.run.train)(state.step))}
        state = TrainState(
            step=state.step + 1,
            params=jax.tree.map(keep, params, state.params),
            opt_state=jax.tree.map(keep_count, opt_state, state.opt_state),
            first_bad_step=bad,
        )
        return state, metrics

    @property
    def objective(self) -> Objective:
        """What is minimized."""
        return objective_of(self.model, self.run, self.gather)

    def loss(self, trained: Tree, frozen: Tree, batch: Batch) -> tuple[Array, Metrics]:
        """The objective on one global batch: the loss (float32 []), and measurements."""
        params, objective = merge(trained, frozen), self.objective
        outputs = objective.outputs(params, batch)
        _, loss, ranks = objective.compare(params, {name: outputs[name] for name in objective.compared})
        return objective.total(params, batch, (loss, ranks), objective.each(params, batch, outputs))

    def gradient(self, trained: Tree, frozen: Tree, batch: Batch) -> tuple[Metrics, Tree]:
        """Measurements, and the gradient of `loss` with respect to the trained parameters."""
        if self.pieces > 1:
            return self._gradient_in_pieces(trained, frozen, batch)
        (_, metrics), grads = jax.value_and_grad(self.loss, has_aux=True)(trained, frozen, batch)
        return metrics, grads

    def _gradient_in_pieces(self, trained: Tree, frozen: Tree, batch: Batch) -> tuple[Metrics, Tree]:
        """The same gradient with the activations of one piece in memory (GradCache, arXiv 2101.06983).

        First every piece is embedded. The loss that compares all embeddings gives the gradient of each embedding. Then
        every piece is embedded again, and that gradient is propagated to the parameters, with that of each clip's loss.
        An objective that compares nothing goes through the pieces once.
        """
        params, objective = merge(trained, frozen), self.objective
        pieces = jax.tree.map(self._split, batch)

        def embed(_: None, piece: Batch) -> tuple[None, dict[str, Array]]:
            outputs = objective.outputs(params, piece)
            return None, {name: outputs[name] for name in objective.compared}

        embeddings = jax.tree.map(_join, jax.lax.scan(embed, None, pieces)[1] if objective.compared else {})

        def compare(trained: Tree, embeddings: dict[str, Array]) -> tuple[Array, tuple[Array, Metrics]]:
            weighted, loss, ranks = objective.compare(merge(trained, frozen), embeddings)
            return weighted, (loss, ranks)

        gradient = jax.grad(compare, (0, 1), has_aux=True)
        (compared_grads, embedding_grads), compared = gradient(trained, embeddings)
        count = objective.count(batch)

        def surrogate(trained: Tree, piece: Batch, embedding_grads: dict[str, Array]) -> tuple[Array, Any]:
            """A loss of one piece whose gradient is that of the whole batch's loss through this piece."""
            params = merge(trained, frozen)
            outputs = objective.outputs(params, piece)
            summed, right = objective.each(params, piece, outputs)
            loss = objective.each_weight * summed / count
            for name in objective.compared:
                loss += jnp.sum(outputs[name] * embedding_grads[name])
            return loss, (summed, right)

        def add(carry: Any, inputs: Any) -> tuple[Any, None]:
            grads_and_sums = jax.grad(surrogate, has_aux=True)(trained, *inputs)
            return jax.tree.map(jnp.add, carry, grads_and_sums), None

        start = compared_grads, (jnp.zeros(()), jnp.zeros(()))
        (grads, each), _ = jax.lax.scan(add, start, (pieces, jax.tree.map(self._split, embedding_grads)))
        return objective.total(params, batch, compared, each)[1], grads

    def _split(self, rows: Array) -> Array:
        """[B, ...] to [pieces, B / pieces, ...]. Row i goes to piece i % pieces, so that no row changes its device."""
        return rows.reshape(-1, self.pieces, *rows.shape[1:]).swapaxes(0, 1)


def _join(pieces: Array) -> Array:
    """Inverse of `Step._split`."""
    return pieces.swapaxes(0, 1).reshape(-1, *pieces.shape[2:])
