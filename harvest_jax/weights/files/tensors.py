"""Named tensors in a file of any kind, read one at a time: what every importer works on."""

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_dtypes  # comes with jax: numpy has no bfloat16 of its own
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor that has not been read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclasses.dataclass(frozen=True)
class Tensors:
    """The tensors of one checkpoint.

    `kind` names the file's kind for messages ("TorchScript archive", "safetensors", ...); `where` is its path;
    `entries` are the tensors by name; `read(name)` gives one as a numpy array of its entry's shape and dtype, and
    raises DataError where the file is damaged there. `details` are plain values found beside the tensors: "config",
    "preprocessor_config" and "open_clip_config" (the JSON files of those names in a folder), "metadata" (the header's
    text values of a safetensors file) and others that `sources.open_checkpoint` names.
    """

    kind: str
    where: str
    entries: dict[str, Entry]
    read: Callable[[str], np.ndarray]
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def renamed(self, names: dict[str, str]) -> "Tensors":
        """The same tensors under other names ({old: new}); those not mentioned are left out."""
        old = {new: name for name, new in names.items()}
        entries = {new: self.entries[name] for new, name in old.items()}
        return dataclasses.replace(self, entries=entries, read=lambda name: self.read(old[name]))
