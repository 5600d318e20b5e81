"""Frames to patches, and which of them are kept.

A clip is a grid of `num_frames x height x width` cells, numbered in that order; a patch is the pixels of one cell.
Dropping is a gather of pixels before the embedding, so that a dropped patch costs nothing after it.
The same functions serve the loader (numpy, so that only kept patches travel) and the device (jax, under jit).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int, Shaped

AnyArray = np.ndarray | jax.Array  # numpy in, numpy out; jax in, jax out


def patchify(video: Shaped[AnyArray, "*b t height width c"], patch_size: int) -> Shaped[AnyArray, "*b n p"]:
    """Cut frames into patches; a reshape and a transpose, for numpy and jax arrays alike.

    Rows of cells of all frames are one axis, and so are a cell's columns and channels, which stay side by side: some
    runtimes transpose no more than six axes.

    Args:
      video: [..., T, H, W, C] of any dtype; H and W are multiples of `patch_size`.
      patch_size: side of a patch in pixels.

    Returns:
      [..., T * h * w, patch_size * patch_size * C] of the same dtype; cells ordered by (frame, row, column), pixels
      within a cell by (row, column, channel).
    """
    *batch, frames, height, width, channels = video.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"frames of {height} x {width} cannot be cut into patches of {patch_size}")
    rows, columns = height // patch_size, width // patch_size
    cells = video.reshape(*batch, frames * rows, patch_size, columns, patch_size * channels)
    cells = cells.swapaxes(-3, -2)  # ... rows columns patch pixels
    return cells.reshape(*batch, frames * rows * columns, patch_size * patch_size * channels)


def num_dropped(total: int, keep_ratio: float) -> int:
    """int((1 - keep_ratio) * total), as in the ancestors' code; the 1e-9 undoes rounding such as (1 - 0.9) * 10 < 1."""
    return math.floor((1.0 - keep_ratio) * total + 1e-9)


def num_kept(num_frames: int, cells_per_frame: int, keep_ratio: float, scope: str = "clip") -> int:
    """How many patches of a clip are kept: a Python int, fixed by the shapes.

    Over the whole clip 1,568 patches at 0.1 keep 157 (InternVideo `viclip_vision.py`); per frame and for tubes each
    frame keeps the same number, 8 x 20 = 160 (CoTrain `clip_module.py`). At least one is kept (per frame, if scoped).
    """
    if scope in ("clip", "motion"):
        total = num_frames * cells_per_frame
        return max(1, total - num_dropped(total, keep_ratio))
    return num_frames * max(1, cells_per_frame - num_dropped(cells_per_frame, keep_ratio))


def keep_positions(
    rng: np.random.Generator,
    num_frames: int,
    cells_per_frame: int,
    keep_ratio: float,
    scope: str = "clip",
    weights: Float32[np.ndarray, " cells"] | None = None,
) -> Int[np.ndarray, " kept"]:
    """Draw the cells that one clip keeps, without replacement, with numpy, in the loader.

    Args:
      rng: numpy generator.
      num_frames, cells_per_frame: the grid.
      keep_ratio: share kept, in (0, 1]; at 1 every cell is kept and nothing is drawn.
      scope: "clip": over all cells together; "frame": as many in every frame, other ones in each; "tube": the same
        cells in every frame; "motion": over all cells together, by weight.
      weights: for "motion", how likely each cell is drawn first, relative to the others; above 0; None weighs evenly.

    Returns:
      int32 [num_kept], ascending.
    """
    kept = num_kept(num_frames, cells_per_frame, keep_ratio, scope)
    total = num_frames * cells_per_frame
    if kept == total:
        return np.arange(total, dtype=np.int32)
    if scope == "motion":
        # The `kept` smallest of exponential draws are a weighted sample without replacement (Efraimidis and Spirakis,
        # 2006).
        clocks = rng.standard_exponential(total, np.float32)
        return positions_from_noise(clocks if weights is None else clocks / weights, num_frames, kept, "clip")  # type: ignore[return-value]
    noise_shape = {"clip": (total,), "frame": (num_frames, cells_per_frame), "tube": (cells_per_frame,)}[scope]
    return positions_from_noise(rng.random(noise_shape, dtype=np.float32), num_frames, kept, scope)  # type: ignore[return-value]


def positions_from_noise(
    noise: Shaped[AnyArray, "..."], num_frames: int, kept: int, scope: str
) -> Int[AnyArray, "*b kept"]:
    """The cells with the smallest noise, ascending: numpy in, numpy out; jax in, jax out; equal for equal noise.

    Args:
      noise: float; [*b, T * cells] for "clip", [*b, T, cells] for "frame", [*b, cells] for "tube".
      num_frames: T.
      kept: number kept of the whole clip (a multiple of T unless the scope is "clip").
      scope: "clip", "frame" or "tube", drawn evenly; "motion" is "clip" drawn with weights.

    Returns:
      int32 [*b, kept].
    """
    xp = jnp if isinstance(noise, jax.Array) else np
    each = kept if scope == "clip" else kept // num_frames
    chosen = xp.sort(xp.argsort(noise, axis=-1)[..., :each], axis=-1)
    if scope == "clip":
        return chosen.astype(np.int32)
    if scope == "tube":
        chosen = xp.repeat(chosen[..., None, :], num_frames, axis=-2)
    cells = noise.shape[-1]
    chosen = chosen + (xp.arange(num_frames) * cells)[:, None]
    return chosen.reshape(*chosen.shape[:-2], kept).astype(np.int32)


def take_patches(
    patches: Shaped[AnyArray, "*b n p"], positions: Int[AnyArray, "*b kept"]
) -> Shaped[AnyArray, "*b kept p"]:
    """The patches at `positions`: [*b, N, P], int32 [*b, K] -> [*b, K, P], same dtype; numpy or jax."""
    xp = jnp if isinstance(patches, jax.Array) else np
    if patches.ndim == 2:
        return xp.take(patches, positions, axis=0)
    return xp.take_along_axis(patches, positions[..., None], axis=-2)
