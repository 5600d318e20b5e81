"""What a search needs of a model."""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8


@runtime_checkable
class SearchModel(Protocol):
    """A model that embeds clips and texts; `harvest_jax.load` returns one."""

    config: Any
    tokenizer: Any

    @property
    def num_frames(self) -> int:
        """Frames taken of a clip."""

    @property
    def digest(self) -> str:
        """Of its description and parameters."""

    def encode_clips(self, clips: UInt8[np.ndarray, "b t s s 3"]) -> Float[np.ndarray, "b d"]:
        """Embeddings, L2-normalised."""

    def encode_text(self, texts: str | Iterable[str]) -> Float[np.ndarray, "b d"]:
        """Embeddings, L2-normalised."""
