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
from harvest_jax.train.losses import masked_word_loss, sigmoid_loss, softmax_loss
from harvest_jax.train.optim import optimizer, schedule

MAX_LOGIT_SCALE = math.log(100.0)  # CLIP's; InternVideo's CoTrain clamps to [0, ln 100]

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
          batch: patches uint8 [B, K, P], positions int32 [B, K], ids int32 [B, L], slots int32 [B, M],
            slot_weights float32 [B, M].

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
            params = params | {"logit_scale": jnp.clip(params["logit_scale"], 0.0, MAX_LOGIT_SCALE)}
        bad = jnp.where(finite | (state.first_bad_step >= 0), state.first_bad_step, state.step)
        metrics |= {"grad_norm": grad_norm, "learning_rate": jnp.asarray(schedule(self.run.train)(state.step))}
        state = TrainState(
            step=state.step + 1,
            params=jax.tree.map(keep, params, state.params),
            opt_state=jax.tree.map(keep_count, opt_state, state.opt_state),
            first_bad_step=bad,
        )
        return state, metrics

    def loss(self, trained: Tree, frozen: Tree, batch: Batch) -> tuple[Array, Metrics]:
        """The objective on one global batch: the weighted sum of the losses (float32 []), and measurements."""
        params = merge(trained, frozen)
        outputs = self._towers(params, batch)
        contrastive, ranks = self._contrastive(params, outputs["video"], outputs["text"])
        words, right = self._words(params, batch, outputs)
        return self._total(params, contrastive, ranks, words, right, batch)

    def gradient(self, trained: Tree, frozen: Tree, batch: Batch) -> tuple[Metrics, Tree]:
        """Measurements, and the gradient of `loss` with respect to the trained parameters."""
        if self.pieces > 1:
            return self._gradient_in_pieces(trained, frozen, batch)
        (_, metrics), grads = jax.value_and_grad(self.loss, has_aux=True)(trained, frozen, batch)
        return metrics, grads

    def _gradient_in_pieces(self, trained: Tree, frozen: Tree, batch: Batch) -> tuple[Metrics, Tree]:
        """The same gradient with the activations of one piece in memory (GradCache, arXiv 2101.06983).

        First every piece is embedded. The contrastive loss over all embeddings gives the gradient of each embedding.
        Then every piece is embedded again, and that gradient is propagated to the parameters, with the masked words'.
        """
        params = merge(trained, frozen)
        pieces = jax.tree.map(self._split, batch)

        def embed(_: None, piece: Batch) -> tuple[None, tuple[Array, Array]]:
            outputs = self._towers(params, piece)
            return None, (outputs["video"], outputs["text"])

        _, embeddings = jax.lax.scan(embed, None, pieces)
        video, text = jax.tree.map(_join, embeddings)

        def contrast(trained: Tree, video: Array, text: Array) -> tuple[Array, Metrics]:
            loss, ranks = self._contrastive(merge(trained, frozen), video, text)
            return self.run.train.contrastive_weight * loss, {"loss": loss, **ranks}

        gradient = jax.grad(contrast, (0, 1, 2), has_aux=True)
        (contrastive_grads, *embedding_grads), ranks = gradient(trained, video, text)
        used = _used(batch)

        def surrogate(trained: Tree, piece: Batch, video_grad: Array, text_grad: Array) -> tuple[Array, Any]:
            """A loss of one piece whose gradient is that of the whole batch's loss through this piece."""
            params = merge(trained, frozen)
            outputs = self._towers(params, piece)
            words, right = self._words(params, piece, outputs)
            contrastive = jnp.sum(outputs["video"] * video_grad) + jnp.sum(outputs["text"] * text_grad)
            return contrastive + self.run.train.mlm_weight * words / used, (words, right)

        def add(carry: Any, inputs: Any) -> tuple[Any, None]:
            grads_and_words = jax.grad(surrogate, has_aux=True)(trained, *inputs)
            return jax.tree.map(jnp.add, carry, grads_and_words), None

        start = contrastive_grads, (jnp.zeros(()), jnp.zeros(()))
        (grads, (words, right)), _ = jax.lax.scan(add, start, (pieces, *map(self._split, embedding_grads)))
        contrastive = ranks.pop("loss")
        _, metrics = self._total(params, contrastive, ranks, words, right, batch)
        return metrics, grads

    def _towers(self, params: Tree, batch: Batch) -> dict[str, Array]:
        """The towers' outputs.

        Returns:
          video, text: float32 [B, D], for the contrastive loss; where words are masked also hidden [B, M, W] (the text
          tower's tokens at the slots) and memory [B, N, V] (the video tower's tokens).
        """
        video = self.model.encode_video(params, batch["patches"], batch["positions"])
        ids, slots = batch["ids"], batch["slots"]
        if not self._has_words(batch):
            return {"video": video["embedding"], "text": self.model.encode_text(params, ids)["embedding"]}
        # One pass through the text tower serves both losses (as in InternVideo), unless the contrastive text is clean.
        masked = masked_positions(slots, batch["slot_weights"], ids.shape[1])
        text = self.model.encode_text(params, ids, masked)
        seen = self.model.encode_text(params, ids) if self.run.text.contrastive == "clean" else text
        hidden = jnp.take_along_axis(text["tokens"], slots[..., None], axis=1)
        return {
            "video": video["embedding"],
            "text": seen["embedding"],
            "memory": video["tokens"],
            "hidden": hidden,
        }

    def _contrastive(self, params: Tree, video: Array, text: Array) -> tuple[Array, Metrics]:
        train = self.run.train
        if not train.contrastive_weight:
            return jnp.zeros(()), {}
        text = self.gather(text)
        if train.contrastive_loss == "sigmoid":
            return sigmoid_loss(video, text, params["logit_scale"], params["logit_bias"], train.loss_chunk)
        return softmax_loss(video, text, params["logit_scale"], train.loss_chunk)

    def _words(self, params: Tree, batch: Batch, outputs: dict[str, Array]) -> tuple[Array, Array]:
        """Summed loss of the masked words, and how many of them are predicted correctly."""
        if not self._has_words(batch):
            return jnp.zeros(()), jnp.zeros(())
        logits = self.model.decode(params, outputs["hidden"], outputs["memory"])
        targets = jnp.take_along_axis(batch["ids"], batch["slots"], axis=1)
        return masked_word_loss(logits, targets, batch["slot_weights"])

    def _total(
        self, params: Tree, contrastive: Array, ranks: Metrics, words: Array, right: Array, batch: Batch
    ) -> tuple[Array, Metrics]:
        train, total = self.run.train, jnp.zeros(())
        metrics: Metrics = {}
        if train.contrastive_weight:
            total += train.contrastive_weight * contrastive
            metrics |= {"contrastive_loss": contrastive, **ranks}
        if self._has_words(batch):
            used = _used(batch)
            total += train.mlm_weight * words / used
            metrics |= {"mlm_loss": words / used, "mlm_accuracy": right / used}
        return total, {"loss": total, "logit_scale": params["logit_scale"], **metrics}

    def _has_words(self, batch: Batch) -> bool:
        return self.run.train.mlm_weight > 0 and batch["slots"].shape[1] > 0 and self.model.config.decoder is not None

    def _split(self, rows: Array) -> Array:
        """[B, ...] to [pieces, B / pieces, ...]. Row i goes to piece i % pieces, so that no row changes its device."""
        return rows.reshape(-1, self.pieces, *rows.shape[1:]).swapaxes(0, 1)


def _join(pieces: Array) -> Array:
    """Inverse of `Step._split`."""
    return pieces.swapaxes(0, 1).reshape(-1, *pieces.shape[2:])


def _used(batch: Batch) -> Array:
    """The number of slots in use in the whole batch, 1 if there is none."""
    return jnp.maximum(batch["slot_weights"].sum(), 1.0)


def masked_positions(slots: Array, weights: Array, length: int) -> Array:
    """Slots int32 [B, M] with weights [B, M] to bool [B, L]: True where a word is hidden."""
    hits = jax.nn.one_hot(slots, length, dtype=jnp.float32) * weights[..., None]
    return hits.sum(axis=1) > 0
