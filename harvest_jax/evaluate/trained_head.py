"""Evaluations that take their scores from a classifier that was fine-tuned, not from class names or masked words."""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8

from harvest_jax.errors import DataError
from harvest_jax.evaluate.clips.embeddings import ModelWithStore, VideoTextModel


@runtime_checkable
class HeadModel(Protocol):
    """The parts of a fine-tuned model that evaluations use besides those of `VideoTextModel`."""

    @property
    def classes(self) -> Sequence[str]:
        """What the head chooses from; empty without a head."""

    def class_logits(self, videos: UInt8[np.ndarray, "b t h w 3"]) -> Float[np.ndarray, "b classes"]:
        """Scores of the classes of each clip."""

    def head_answer_logits(
        self, videos: UInt8[np.ndarray, "b t h w 3"], ids: Int[np.ndarray, "b l"], slot: Int[np.ndarray, " b"]
    ) -> Float[np.ndarray, "b classes"]:
        """Scores of the answers to each question."""


def head_of(model: VideoTextModel, objective: Literal["classification", "videoqa"]) -> HeadModel:
    """The model, if it has the head that this objective trains.

    Raises:
      DataError: it has none, or another.
    """
    if isinstance(model, ModelWithStore):
        model = model.model
    head = getattr(model.config, "head", None)
    if not isinstance(model, HeadModel) or head is None or (head.kind == "answers") != (objective == "videoqa"):
        raise DataError(
            f"{model.name} has no head of {objective}, which answer_from=head needs: "
            f"`harvest train --config finetune/{objective}` makes one"
        )
    return model
