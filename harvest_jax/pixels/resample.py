"""Crop, resize and patchify in one step, only for the patches that are kept.

Resizing whole frames takes several times as long as decoding them, and most of the result would be dropped. A kept
patch depends on a small window of the frame: it is the window times two small matrices of filter weights. The result
equals that of cropping and resizing whole frames with Pillow and taking the patches, except for Pillow's rounding
between its two passes.
"""

import functools
import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from harvest_jax.pixels.square import Crop


def kept_patches(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    crop: Crop,
    image_size: int,
    patch_size: int,
    positions: Int[np.ndarray, " K"],
) -> UInt8[np.ndarray, "K P"]:
    """The patches at `positions` of the cropped, resized (bicubic, antialiased) and perhaps mirrored clip.

    Args:
      frames: decoded frames in order, all of one size. Each is used before the next is requested, so that a clip's
        frames need not be in memory together; that would take as long as all the arithmetic here.
      crop: the square to use.
      image_size: its side after resizing, a multiple of `patch_size`; P = patch_size * patch_size * 3.
      patch_size: in pixels.
      positions: cells of the T x h x w grid, numbered in that order, ascending.

    Returns:
      uint8 [K, P], pixels within a patch by (row, column, channel).

    Raises:
      ValueError: a position is in a frame that does not exist.
    """
    frame, row, column = _cells(positions, crop, image_size // patch_size)
    starts, size = _spans(crop, image_size, patch_size)
    if crop.side != image_size:
        _, down, across = _weights(crop.side, image_size, patch_size)

    top, left = starts[row], starts[column]
    patches = np.empty((len(positions), patch_size, patch_size * 3), np.uint8)
    # Frame by frame: a few hundred kB that stay in the cache. Frames after the last kept patch are not requested.
    done = 0
    ends = np.searchsorted(frame, np.arange(frame[-1] + 2)).tolist()
    for begin, end, pixels in zip(ends[:-1], ends[1:], frames, strict=False):
        windows = _windows(pixels, crop, size)[top[begin:end], left[begin:end]]
        if crop.side != image_size:
            smooth = down[row[begin:end]] @ windows.astype(np.float32) @ across[column[begin:end]]
            smooth += 0.5
            windows = np.clip(smooth, 0, 255, out=smooth).astype(np.uint8)
        patches[begin:end] = windows
        done = end
    if done < len(positions):
        raise ValueError(f"a position is in frame {frame[-1]}, but there are fewer frames")
    if crop.flip:
        patches = patches.reshape(len(positions), patch_size, patch_size, 3)[:, :, ::-1]
    return patches.reshape(len(positions), patch_size * patch_size * 3)


def touched_tiles(
    crop: Crop,
    image_size: int,
    patch_size: int,
    positions: Int[np.ndarray, " K"],
    shape: tuple[int, int, int],
    tile: int,
) -> Bool[np.ndarray, "T rows columns"]:
    """The tiles of `tile` x `tile` pixels that `kept_patches` reads.

    Args:
      crop, image_size, patch_size, positions: as for `kept_patches`.
      shape: frames, and rows and columns of tiles in each.
      tile: side of a tile in pixels.
    """
    frame, row, column = _cells(positions, crop, image_size // patch_size)
    starts, size = _spans(crop, image_size, patch_size)
    top, left = crop.top + starts[row], crop.left + starts[column]
    first_row, last_row = top // tile, (top + size - 1) // tile
    first_column, last_column = left // tile, (left + size - 1) // tile
    touched = np.zeros(shape, bool)
    for down in range((size - 2) // tile + 2):
        for across in range((size - 2) // tile + 2):
            touched[frame, np.minimum(first_row + down, last_row), np.minimum(first_column + across, last_column)] = (
                True
            )
    return touched


def _cells(
    positions: Int[np.ndarray, " K"], crop: Crop, cells: int
) -> tuple[Int[np.ndarray, " K"], Int[np.ndarray, " K"], Int[np.ndarray, " K"]]:
    """Frame, row and column of each position, in the frames as stored."""
    frame, cell = np.divmod(positions, cells * cells)
    row, column = np.divmod(cell, cells)
    # a mirrored clip's cell is the mirror image of the cell on the other side
    return frame, row, cells - 1 - column if crop.flip else column


def _spans(crop: Crop, image_size: int, patch_size: int) -> tuple[Int[np.ndarray, " n"], int]:
    """The start of the window of each row (equally column) of cells in the crop, and the windows' side, in pixels."""
    if crop.side == image_size:
        return patch_size * np.arange(image_size // patch_size), patch_size
    starts, down, _ = _weights(crop.side, image_size, patch_size)
    return starts, down.shape[2]


def _windows(frame: UInt8[np.ndarray, "H W 3"], crop: Crop, size: int) -> UInt8[np.ndarray, "n n {size} {3*size}"]:
    """All `size` x `size` windows of the crop, by top and left, as a view; a row is `size` neighbouring pixels."""
    frame = np.ascontiguousarray(frame)
    count = crop.side - size + 1
    by_row, by_pixel, by_channel = frame.strides
    shape, strides = (count, count, size, 3 * size), (by_row, by_pixel, by_row, by_channel)
    return np.ndarray(shape, np.uint8, frame, crop.top * by_row + crop.left * by_pixel, strides)


@functools.lru_cache(maxsize=128)  # 0.25 MB each at 224 px; the random crops of a dataset have fewer different sides
def _weights(
    side: int, image_size: int, patch_size: int
) -> tuple[Int[np.ndarray, " n"], Float32[np.ndarray, "n patch size"], Float32[np.ndarray, "n size3 patch3"]]:
    """Filter weights that turn a window into a patch, per row (equally column) of cells.

    Returns:
      starts: first pixel of each cell's window; down: rows of the patch from rows of the window; across: the same for
      columns, transposed and repeated for the three interleaved channels.
    """
    scale = side / image_size
    stretch = max(scale, 1.0)  # antialiasing: a wider filter when shrinking
    support = 2.0 * stretch
    size = min(side, math.ceil(patch_size * scale + 2 * support) + 1)
    centers = ((np.arange(image_size) + 0.5) * scale).reshape(-1, patch_size)
    starts = np.clip(np.floor(centers[:, 0] - support).astype(np.int64), 0, side - size)
    taps = starts[:, None] + np.arange(size) + 0.5
    down = cubic((taps[:, None, :] - centers[:, :, None]) / stretch)
    down /= down.sum(axis=2, keepdims=True)
    across = np.einsum("npk,cd->nkcpd", down, np.eye(3)).reshape(len(starts), size * 3, patch_size * 3)
    return starts, down.astype(np.float32), across.astype(np.float32)


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -1/2, as in Pillow."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
