"""What a training step minimises, in the parts that a step in pieces needs; `train/step.py` puts them together.

The loss of a batch is the sum of two. One compares clips with each other and needs the embeddings of the whole batch;
an objective without it compares nothing. The other is a sum over clips, or over their words, and needs one piece of
the batch at a time.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array

from harvest_jax.config.run import RunConfig
from harvest_jax.train.freeze import Tree

Batch = dict[str, Array]
Metrics = dict[str, Array]
Inputs = dict[str, tuple[tuple[int, ...], Any]]  # shape behind the batch axis, and dtype, of an array


@runtime_checkable
class Objective(Protocol):
    """One objective of one run."""

    @property
    def compared(self) -> tuple[str, ...]:
        """The outputs [B, D] that are compared over the whole batch; () if none are."""

    @property
    def each_weight(self) -> float:
        """Factor of the mean over clips in the loss."""

    @staticmethod
    def inputs(run: RunConfig) -> Inputs:
        """The arrays of a batch that it reads besides patches and positions."""

    def outputs(self, params: Tree, batch: Batch) -> dict[str, Array]:
        """What the losses need of the model, a row for each clip."""

    def compare(self, params: Tree, compared: dict[str, Array]) -> tuple[Array, Array, Metrics]:
        """Over the whole batch: its part of the loss, the same before its weight (float32 []), and measurements."""

    def each(self, params: Tree, batch: Batch, outputs: dict[str, Array]) -> tuple[Array, Array]:
        """Summed over the clips of a batch or piece: loss, and how many are right; float32 [] both."""

    def count(self, batch: Batch) -> Array:
        """By how much the sums of `each` are divided, for the whole batch: float32 [], at least 1."""

    def total(
        self, params: Tree, batch: Batch, compared: tuple[Array, Metrics], each: tuple[Array, Array]
    ) -> tuple[Array, Metrics]:
        """The loss of the batch (float32 []), and measurements of the log, "loss" among them.

        Args:
          params: of the model.
          batch: the whole one.
          compared: of `compare`, before its weight, and its measurements.
          each: of `each`, summed over the pieces.
        """


Gather = Callable[[Any], Any]  # split arrays to whole ones on every device
