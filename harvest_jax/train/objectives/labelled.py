"""Objectives with one right class for each clip: action recognition, and questions about videos."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from harvest_jax.config.run import RunConfig
from harvest_jax.model.harvest import Harvest
from harvest_jax.train.freeze import Tree
from harvest_jax.train.losses import masked_positions, masked_word_loss
from harvest_jax.train.objectives.objective import Batch, Gather, Inputs, Metrics


@dataclasses.dataclass(frozen=True)
class _Labelled:
    """The mean cross entropy over the clips whose label is a class; nothing is compared between clips."""

    model: Harvest
    run: RunConfig
    gather: Gather

    @property
    def compared(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    @property
    def each_weight(self) -> float:
        """The whole loss."""
        return 1.0

    def compare(self, params: Tree, compared: dict[str, Array]) -> tuple[Array, Array, Metrics]:
        """Nothing."""
        del params, compared
        return jnp.zeros(()), jnp.zeros(()), {}

    def count(self, batch: Batch) -> Array:
        """The clips whose label is a class, 1 if there is none."""
        return jnp.maximum((batch["labels"] >= 0).astype(jnp.float32).sum(), 1.0)

    def total(
        self, params: Tree, batch: Batch, compared: tuple[Array, Metrics], each: tuple[Array, Array]
    ) -> tuple[Array, Metrics]:
        """The mean; with it the accuracy, and the share of clips that count."""
        del params, compared
        (summed, right), used = each, self.count(batch)
        loss = summed / used
        share = (batch["labels"] >= 0).mean(dtype=jnp.float32)
        return loss, {"loss": loss, "accuracy": right / used, "with_a_class": share}


@dataclasses.dataclass(frozen=True)
class Classification(_Labelled):
    """Labels by a head on the video tower; the text tower has no part in it."""

    @staticmethod
    def inputs(run: RunConfig) -> Inputs:
        """labels [B]: number of the class."""
        del run
        return {"labels": ((), np.int32)}

    def outputs(self, params: Tree, batch: Batch) -> dict[str, Array]:
        """The video tower's: pooled [B, V], tokens [B, N, V]."""
        return self.model.encode_video(params, batch["patches"], batch["positions"])

    def each(self, params: Tree, batch: Batch, outputs: dict[str, Array]) -> tuple[Array, Array]:
        """Summed cross entropy, and how many clips are right."""
        return label_loss(self.model.classify(params, outputs), batch["labels"])


@dataclasses.dataclass(frozen=True)
class VideoQuestions(_Labelled):
    """Answers by a head over a vocabulary of them, or by the decoder's word at the mask."""

    @staticmethod
    def inputs(run: RunConfig) -> Inputs:
        """ids [B, L] of the prompt, the answer's first token at slots [B, 1], labels [B]: number of the answer or -1,
        noise [B]: from which dropout follows.
        """
        return {
            "ids": ((run.text.length,), np.int32),
            "slots": ((1,), np.int32),
            "labels": ((), np.int32),
            "noise": ((), np.int32),
        }

    def outputs(self, params: Tree, batch: Batch) -> dict[str, Array]:
        """Of the video tower pooled [B, V] and tokens [B, N, V], of the text tower text_pooled [B, W] and text_tokens
        [B, L, W]; the answer is masked.
        """
        slots = batch["slots"]
        masked = masked_positions(slots, jnp.ones(slots.shape), batch["ids"].shape[1])
        text = self.model.encode_text(params, batch["ids"], masked)
        video = self.model.encode_video(params, batch["patches"], batch["positions"])
        return {
            "pooled": video["pooled"],
            "tokens": video["tokens"],
            "text_pooled": text["pooled"],
            "text_tokens": text["tokens"],
        }

    def each(self, params: Tree, batch: Batch, outputs: dict[str, Array]) -> tuple[Array, Array]:
        """Summed cross entropy over the answers (head) or over all words (mask), and how many are right."""
        slots = batch["slots"]
        if self.run.objective.answer_from == "mask":
            hidden = jnp.take_along_axis(outputs["text_tokens"], slots[..., None], axis=1)
            logits = self.model.decode(params, hidden, outputs["tokens"])
            targets = jnp.take_along_axis(batch["ids"], slots, axis=1)
            return masked_word_loss(logits, targets, (batch["labels"] >= 0).astype(jnp.float32)[:, None])
        text = {"pooled": outputs["text_pooled"], "tokens": outputs["text_tokens"]}
        dropout = self.run.objective.dropout
        logits = self.model.answer(params, outputs, text, slots[:, 0], dropout, batch["noise"])
        return label_loss(logits, batch["labels"])


def label_loss(
    logits: Float[Array, "b classes"], labels: Int[Array, " b"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross entropy, summed over the rows with a label.

    Args:
      logits: float32.
      labels: number of the right class; -1: the row does not count.

    Returns:
      the sum in nats, and in how many of these rows the right class has the highest logit.
    """
    weights = (labels >= 0).astype(jnp.float32)[:, None]
    return masked_word_loss(logits[:, None], jax.nn.relu(labels)[:, None], weights)
