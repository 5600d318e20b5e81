"""The tensors of a checkpoint of any kind, by name; each is read when it is asked for."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes  # comes with jax: numpy itself has no bfloat16
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a tensor that has not been read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclasses.dataclass(frozen=True)
class Tensors:
    """The tensors of one checkpoint.

    `read(name)` gives an array of the shape and dtype that `entries` says; it raises DataError where the file is
    damaged there. `details` are what `open_checkpoint.open_checkpoint` found beside the tensors.
    """

    kind: str  # of the file, for messages: "TorchScript archive", "safetensors"
    where: str  # path, for messages
    entries: dict[str, TensorSpec]
    read: Callable[[str], np.ndarray]
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Numbers in all tensors together."""
        return sum(math.prod(entry.shape) for entry in self.entries.values())

    @property
    def dtypes(self) -> list[str]:
        """Names of the dtypes in which they are stored, sorted."""
        return sorted({str(entry.dtype) for entry in self.entries.values()})

    def renamed(self, names: dict[str, str]) -> "Tensors":
        """The same tensors under other names ({old: new}); those not mentioned are left out."""
        old = {new: name for name, new in names.items()}
        entries = {new: self.entries[name] for new, name in old.items()}
        return dataclasses.replace(self, entries=entries, read=lambda name: self.read(old[name]))
