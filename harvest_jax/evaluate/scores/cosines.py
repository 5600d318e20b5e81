"""Cosines of videos and texts, a tile at a time, with values that do not depend on the tiles.

A matrix product in float64 rounds the same pair differently in different places of a matrix. Rounded to float32 the
difference almost always disappears; where it could remain, `Cosines` sums that pair again in a fixed order. So a cosine
is a function of its two embeddings alone: equal embeddings tie wherever they stand, and scores in tiles are bit for bit
those of the whole matrix.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from harvest_jax.errors import NonFiniteError

TILE = (1024, 4096)  # videos and texts of one product: 32 MB in float64


@dataclasses.dataclass(frozen=True)
class Cosines:
    """Two sets of unit vectors.

    Attributes:
      videos: float64, each row of length 1.
      texts: the same.
    """

    videos: Float64[np.ndarray, "videos width"]
    texts: Float64[np.ndarray, "texts width"]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of videos, number of texts."""
        return len(self.videos), len(self.texts)

    def block(self, videos: slice, texts: slice) -> Float32[np.ndarray, "some_videos some_texts"]:
        """The cosines of some videos with some texts."""
        rows, columns = self.videos[videos], self.texts[texts]
        exact = rows @ columns.T
        # Any order of summing K products of unit vectors is within K * 2^-53 of the true value (Higham, Accuracy and
        # Stability of Numerical Algorithms, section 3.1), so two orders are within twice that of each other.
        reach = 2.1 * (rows.shape[1] + 2) * 2.0**-53
        result = exact.astype(np.float32)
        open_ones = (exact - reach).astype(np.float32) != (exact + reach).astype(np.float32)
        row, column = np.divmod(np.flatnonzero(open_ones), result.shape[1])
        result[row, column] = _pairs(rows, columns, row, column)
        return result

    def pairs(self, videos: Int[np.ndarray, " n"], texts: Int[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
        """The cosine of each video with the text at the same place of the other list; equal to those of `block`."""
        return _pairs(self.videos, self.texts, videos, texts)


def _pairs(
    rows: Float64[np.ndarray, "rows width"],
    columns: Float64[np.ndarray, "columns width"],
    row: Int[np.ndarray, " n"],
    column: Int[np.ndarray, " n"],
) -> Float32[np.ndarray, " n"]:
    result = np.empty(len(row), np.float32)
    for start in range(0, len(row), 4096):  # bounds the gathered rows
        part = slice(start, start + 4096)
        # numpy adds up each row of a contiguous array in the same order
        result[part] = (rows[row[part]] * columns[column[part]]).sum(axis=1)
    return result


def unit_cosines(video: Float[np.ndarray, "videos width"], text: Float[np.ndarray, "texts width"]) -> Cosines:
    """From embeddings of any norm except zero; they are rounded to float32 first.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
    """
    return Cosines(unit_vectors(video, "video"), unit_vectors(text, "text"))


def unit_vectors(embeddings: Float[np.ndarray, "n width"], name: str) -> Float64[np.ndarray, "n width"]:
    """The directions of embeddings; `name` is a word for an error message.

    Raises:
      NonFiniteError: an embedding is zero or not finite.
    """
    embeddings = embeddings.astype(np.float32).astype(np.float64)
    norm = np.linalg.norm(embeddings, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norm) & (norm > 0)))
    if len(bad):
        raise NonFiniteError(
            f"{len(bad)} of {len(norm)} {name} embeddings are zero or not finite (the first: number {bad[0]}): "
            "the model's weights are damaged or its training diverged"
        )
    embeddings /= norm
    return embeddings


def spans(length: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` that cover 0..length."""
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
