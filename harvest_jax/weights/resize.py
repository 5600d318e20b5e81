"""Position tables for another resolution and for another number of frames; numpy alone.

A table is a function of position (or time), sampled at the centres of equal parts: cell i of n is at (i + 1/2)/n of the
picture's side, frame i of n at the same share of the clip (`frame_sampling.segment_indices`). It is resampled at the
centres of the new parts.
"""

import numpy as np
from jaxtyping import Float

from harvest_jax.pixels.resample import cubic

Grid = tuple[int, int]  # rows, columns


def resize_spatial(
    table: Float[np.ndarray, "positions width"], before: Grid, after: Grid, beside: int = 1
) -> Float[np.ndarray, "positions_after width"]:
    """The table of patch positions for another grid of patches; a first row of the class token is not changed.

    Bicubic with antialiasing, as OpenCLIP loads checkpoints (its `resize_pos_embed`: torch's `interpolate` with mode
    "bicubic", antialias, align_corners=False): Keys' cubic with a = -1/2, stretched if the grid becomes coarser; at the
    border it is cut off and normalised to a sum of one. Without antialiasing torch uses a = -3/4, so that ViCLIP's own
    loading and Hugging Face's `interpolate_pos_encoding` differ from this in both directions.

    Args:
      table: [beside + rows * columns, width], positions row by row.
      before: its grid.
      after: the new grid.
      beside: 1 with a row of the class token, 0 without one.

    Returns:
      [beside + rows * columns, width] of the same dtype, computed in float64; `table` itself if the grids are equal.

    Raises:
      ValueError: the table has another number of rows than its grid.
    """
    rows, columns = before
    if len(table) != beside + rows * columns:
        class_token = " and a class token" if beside else ""
        raise ValueError(
            f"expected {beside + rows * columns} rows for {rows} x {columns} patches{class_token}, got {len(table)}"
        )
    if before == after:
        return table
    patches = table[beside:].reshape(rows, columns, -1).astype(np.float64)
    down, across = cubic_weights(rows, after[0]), cubic_weights(columns, after[1])
    resized = np.einsum("ri,ijw,cj->rcw", down, patches, across, optimize=True)
    return np.concatenate([table[:beside], resized.reshape(after[0] * after[1], -1).astype(table.dtype)])


def resize_temporal(table: Float[np.ndarray, "before width"], frames: int) -> Float[np.ndarray, "after width"]:
    """The table of frames for another number of frames.

    To more than one frame: linear interpolation in time, constant before the first centre and after the last (torch's
    `interpolate` with mode "linear", align_corners=False). ViCLIP does the same for more frames. For fewer it keeps the
    first rows of its table; here they are interpolated, because the frames chosen still span the whole clip.

    To one frame: the mean, which ViCLIP's tower adds to a single frame. A table that is centred on zero over its frames
    (`video_tower.temporal_ramp`) gives zero up to rounding, so that the image tower is not changed.

    Args:
      table: [frames, width].
      frames: the new number of frames.

    Returns:
      [frames, width] of the same dtype, computed in float64; `table` itself if the number of frames is the same.

    Raises:
      ValueError: one of the numbers is below 1.
    """
    before = len(table)
    if frames < 1 or before < 1:
        raise ValueError(f"cannot resize a table of {before} frames to {frames}")
    if frames == before:
        return table
    known = table.astype(np.float64)
    if frames == 1:
        return known.mean(axis=0, keepdims=True).astype(table.dtype)
    return (linear_weights(before, frames) @ known).astype(table.dtype)


def linear_weights(before: int, after: int) -> Float[np.ndarray, "{after} {before}"]:
    """The weight of each old row in each new one: of its two neighbours, or of the outermost row."""
    times = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    return np.clip(1 - np.abs(times[:, None] - np.arange(before)), 0, None)


def cubic_weights(before: int, after: int) -> Float[np.ndarray, "{after} {before}"]:
    """The same for the antialiased cubic filter; each row sums to one."""
    stretch = max(before / after, 1.0)
    middles = (np.arange(after) + 0.5) * before / after
    weights = cubic((np.arange(before) + 0.5 - middles[:, None]) / stretch)
    return weights / weights.sum(axis=1, keepdims=True)
