"""Position tables for another resolution and for another number of frames; numpy alone.

Both tables are functions of a place (or a time) known at the middles of equal parts: cell i of n stands for (i + 1/2)/n
of the picture's side, frame i of n for the same share of the clip (`input.frames.segment_indices`). They are read off
at the middles of the new parts.
"""

import numpy as np
from jaxtyping import Float

from harvest_jax.pixels.resample import cubic

Grid = tuple[int, int]  # rows, columns


def resize_spatial(
    table: Float[np.ndarray, "places width"], before: Grid, after: Grid
) -> Float[np.ndarray, "places_after width"]:
    """The table of places for another grid of patches; the first row (the class token's) stays as it is.

    Bicubic with antialiasing, as OpenCLIP loads checkpoints (its `resize_pos_embed`: torch's `interpolate` with mode
    "bicubic", antialias, align_corners=False): Keys' cubic with a = -1/2, stretched where the grid becomes coarser, cut
    off and made to sum to one at the border. Without antialiasing torch uses a = -3/4, so that ViCLIP's own loading and
    Hugging Face's `interpolate_pos_encoding` differ from this in both directions.

    Args:
      table: [1 + rows * columns, width], places row by row.
      before: the grid that it is for.
      after: the grid wanted.

    Returns:
      [1 + rows * columns, width] of the same dtype, computed in float64; equal to `table` where the grids are equal.
    """
    rows, columns = before
    if len(table) != 1 + rows * columns:
        raise ValueError(f"a table of {len(table)} rows is not for {rows} x {columns} patches and a class token")
    if before == after:
        return table
    places = table[1:].reshape(rows, columns, -1).astype(np.float64)
    down, across = cubic_weights(rows, after[0]), cubic_weights(columns, after[1])
    resized = np.einsum("ri,ijw,cj->rcw", down, places, across, optimize=True)
    return np.concatenate([table[:1], resized.reshape(after[0] * after[1], -1).astype(table.dtype)])


def resize_temporal(table: Float[np.ndarray, "before width"], frames: int) -> Float[np.ndarray, "after width"]:
    """The table of frames for another number of frames.

    To more than one frame: linear interpolation in time, level beyond the middles of the first and the last part
    (torch's `interpolate` with mode "linear", align_corners=False). ViCLIP does so to more frames. To fewer it keeps
    the first ones of its table; that is not followed, since the frames chosen still span the whole clip.

    To one frame: the mean. ViCLIP's tower adds the mean to a single frame; a table that is centred on zero over its
    frames (`video_tower.temporal_ramp`) gives exactly zero or nearly so, and the image tower is left as it was.

    Args:
      table: [frames, width].
      frames: wanted.

    Returns:
      [frames, width] of the same dtype, computed in float64; equal to `table` where the numbers are equal.
    """
    before = len(table)
    if frames < 1 or before < 1:
        raise ValueError(f"cannot make a table of {frames} frames from one of {before}")
    if frames == before:
        return table
    known = table.astype(np.float64)
    if frames == 1:
        return known.mean(axis=0, keepdims=True).astype(table.dtype)
    return (linear_weights(before, frames) @ known).astype(table.dtype)


def linear_weights(before: int, after: int) -> Float[np.ndarray, "{after} {before}"]:
    """What each new place takes of the old ones: its two neighbours, or the outermost one."""
    times = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    return np.clip(1 - np.abs(times[:, None] - np.arange(before)), 0, None)


def cubic_weights(before: int, after: int) -> Float[np.ndarray, "{after} {before}"]:
    """The same with the antialiased cubic filter; rows sum to one."""
    stretch = max(before / after, 1.0)
    middles = (np.arange(after) + 0.5) * before / after
    weights = cubic((np.arange(before) + 0.5 - middles[:, None]) / stretch)
    return weights / weights.sum(axis=1, keepdims=True)
