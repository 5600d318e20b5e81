"""The method's own objective: videos and captions are contrasted, and masked words are predicted from the video.

With `mlm_weight=0` and all patches it is the fine-tuning of retrieval (configs/finetune/retrieval.py).
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from harvest_jax.config.run import RunConfig
from harvest_jax.input.text_masking import num_slots
from harvest_jax.model.harvest import Harvest
from harvest_jax.train.freeze import Tree
from harvest_jax.train.losses import masked_positions, masked_word_loss, sigmoid_loss, softmax_loss
from harvest_jax.train.objectives.objective import Batch, Gather, Inputs, Metrics


@dataclasses.dataclass(frozen=True)
class PostPretraining:
    """The weighted sum of the contrastive loss and the masked words'."""

    model: Harvest
    run: RunConfig
    gather: Gather

    @property
    def compared(self) -> tuple[str, ...]:
        """The embeddings of videos and captions."""
        return ("video", "text")

    @property
    def each_weight(self) -> float:
        """That of the masked words."""
        return self.run.train.mlm_weight

    @staticmethod
    def inputs(run: RunConfig) -> Inputs:
        """ids [B, L] of captions, and slots, slot_weights [B, M] of masked words."""
        slots = num_slots(run.text.length, run.text.mask_ratio)
        return {
            "ids": ((run.text.length,), np.int32),
            "slots": ((slots,), np.int32),
            "slot_weights": ((slots,), np.float32),
        }

    def outputs(self, params: Tree, batch: Batch) -> dict[str, Array]:
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

    def compare(self, params: Tree, compared: dict[str, Array]) -> tuple[Array, Array, Metrics]:
        """The contrastive loss."""
        train, video = self.run.train, compared["video"]
        if not train.contrastive_weight:
            return jnp.zeros(()), jnp.zeros(()), {}
        text = self.gather(compared["text"])
        if train.contrastive_loss == "sigmoid":
            loss, ranks = sigmoid_loss(video, text, params["logit_scale"], params["logit_bias"], train.loss_chunk)
        else:
            loss, ranks = softmax_loss(video, text, params["logit_scale"], train.loss_chunk)
        return train.contrastive_weight * loss, loss, ranks

    def each(self, params: Tree, batch: Batch, outputs: dict[str, Array]) -> tuple[Array, Array]:
        """Summed loss of the masked words, and how many of them are predicted correctly."""
        if not self._has_words(batch):
            return jnp.zeros(()), jnp.zeros(())
        logits = self.model.decode(params, outputs["hidden"], outputs["memory"])
        targets = jnp.take_along_axis(batch["ids"], batch["slots"], axis=1)
        return masked_word_loss(logits, targets, batch["slot_weights"])

    def count(self, batch: Batch) -> Array:
        """The number of slots in use in the whole batch, 1 if there is none."""
        return jnp.maximum(batch["slot_weights"].sum(), 1.0)

    def total(
        self, params: Tree, batch: Batch, compared: tuple[Array, Metrics], each: tuple[Array, Array]
    ) -> tuple[Array, Metrics]:
        """The weighted sum; both losses by themselves, and what of the batch was right."""
        train, total = self.run.train, jnp.zeros(())
        (contrastive, ranks), (words, right) = compared, each
        metrics: Metrics = {}
        if train.contrastive_weight:
            total += train.contrastive_weight * contrastive
            metrics |= {"contrastive_loss": contrastive, **ranks}
        if self._has_words(batch):
            used = self.count(batch)
            total += train.mlm_weight * words / used
            metrics |= {"mlm_loss": words / used, "mlm_accuracy": right / used}
        return total, {"loss": total, "logit_scale": params["logit_scale"], **metrics}

    def _has_words(self, batch: Batch) -> bool:
        return self.run.train.mlm_weight > 0 and batch["slots"].shape[1] > 0 and self.model.config.decoder is not None
