"""How far two implementations are apart."""

from collections.abc import Sequence

import numpy as np

EMBEDDING_BOUND = 1e-5  # largest difference of a component of L2-normalised embeddings
BLOCK_BOUND = 1e-4  # of a token of a block's output, relative to its length
GRADIENT_BOUND = 1e-4  # relative, see `relative`


def unit(embeddings: np.ndarray) -> np.ndarray:
    """L2-normalised rows, in float64."""
    embeddings = embeddings.astype(np.float64)
    return embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)


def embedding_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference of a component, both L2-normalised."""
    assert ours.shape == theirs.shape
    return float(np.abs(unit(ours) - unit(theirs)).max())


def cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The smallest cosine of a row with its counterpart."""
    return float((unit(ours) * unit(theirs)).sum(axis=-1).min())


def block_differences(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> list[float]:
    """Per layer, of the token that is farthest off: length of the difference by the length of the token."""
    return [
        float((np.linalg.norm(a - b, axis=-1) / np.linalg.norm(b, axis=-1)).max())
        for a, b in zip(ours, theirs, strict=True)
    ]


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The larger of two: length of the difference by length, largest difference by largest number."""
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 0
    difference = np.abs(ours.astype(np.float64) - theirs)
    length = np.linalg.norm(difference) / np.linalg.norm(theirs.astype(np.float64))
    return float(max(length, difference.max() / np.abs(theirs).max()))
