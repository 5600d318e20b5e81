"""The videos of an index that fit words best."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from harvest_jax.search.index import SearchIndex


class Result(NamedTuple):
    """One video found: `score` is the cosine of words and video."""

    rank: int
    score: float
    path: str


def rank(index: SearchIndex, text: Float32[np.ndarray, " d"], folder: Path, top: int) -> list[Result]:
    """The `top` videos with the highest cosine; equal ones in the order of their names.

    Args:
      index: with at least one video that could be read.
      text: float32 [D], the embedded words, L2-normalised.
      folder: put before the names in the index.
      top: how many.
    """
    rows = [(name, entry.embedding) for name, entry in sorted(index.entries.items()) if entry.embedding is not None]
    scores = np.stack([embedding for _, embedding in rows]) @ text
    best = np.argsort(-scores, kind="stable")[:top]
    return [
        Result(number, float(scores[i]), os.path.join(folder, rows[i][0])) for number, i in enumerate(best, start=1)
    ]
