"""Weights that keep more patches where consecutive frames differ. An extension; not in the paper."""

import numpy as np
from jaxtyping import Float32, UInt8

from harvest_jax.pixels.square import Crop

EVEN = 0.5  # share of the weight that is equal for all cells, so that cells without motion are kept too


def motion_weights(frames: UInt8[np.ndarray, "T H W 3"], crop: Crop, cells: int) -> Float32[np.ndarray, " n"]:
    """How likely each cell of a clip is kept, relative to the others.

    A cell's motion is the mean absolute difference of its pixels (green channel, most of the brightness) from the frame
    before; for the first frame, from the second. Half of the weight is the same for all cells and half is in
    proportion to the motion, so that the mean is one.

    Args:
      frames: decoded, T of them.
      crop: the square that is shown.
      cells: of a row, and of a column.

    Returns:
      float32 [T * cells * cells], above 0, by (frame, row, column) of the clip as shown (mirrored where the crop is).
    """
    square = frames[:, crop.top : crop.top + crop.side, crop.left : crop.left + crop.side, 1].astype(np.int16)
    if crop.flip:
        square = square[:, :, ::-1]
    if len(square) == 1:
        return np.ones(cells * cells, np.float32)
    moved = np.abs(np.diff(square, axis=0)).astype(np.float32)
    moved = np.concatenate([moved[:1], moved])
    edges = np.arange(cells) * crop.side // cells
    sums = np.add.reduceat(np.add.reduceat(moved, edges, axis=1), edges, axis=2)
    pixels = np.diff(np.append(edges, crop.side)).clip(1).astype(np.float32)
    motion = sums / (pixels[:, None] * pixels)
    mean = motion.mean()
    if mean == 0:
        return np.ones(motion.size, np.float32)
    return (EVEN + (1 - EVEN) * motion / mean).ravel()
