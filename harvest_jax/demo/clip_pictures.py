"""Clips as pictures: strips of frames, kept patches highlighted, and images inside an HTML page."""

import base64
import io

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from harvest_jax.pixels.frame_sampling import segment_indices

PAPER = 255  # grey level between the frames of a strip
SHADE = np.array((24, 30, 40), np.float32)  # colour that dropped patches are mixed with
KEPT_EDGE = (255, 255, 255)
_DIM = 0.32  # share of a dropped patch's own brightness that is left, so that its content can be guessed
_SCALE = 2  # every pixel becomes 2 x 2, so that the frame of a patch is thinner than a pixel of the clip


def strip(frames: UInt8[np.ndarray, "t h w 3"], most: int = 8, gap: int = 2) -> UInt8[np.ndarray, "h width 3"]:
    """Frames side by side, in order.

    Args:
      frames: of a clip.
      most: frames shown; of a longer clip the middle frames of this many equal segments.
      gap: white pixels between two frames.
    """
    shown = frames if len(frames) <= most else frames[segment_indices(len(frames), most, None)]
    count, height, width, _ = shown.shape
    picture = np.full((height, count * (width + gap) - gap, 3), PAPER, np.uint8)
    for number, frame in enumerate(shown):
        left = number * (width + gap)
        picture[:, left : left + width] = frame
    return picture


def highlight_kept(
    frames: UInt8[np.ndarray, "t h w 3"], kept: Int[np.ndarray, " k"], patch: int
) -> UInt8[np.ndarray, "t h2 w2 3"]:
    """The frames with the kept patches unchanged in a thin frame, and the dropped ones dark and nearly grey.

    Args:
      frames: height and width are multiples of `patch`.
      kept: positions in the grid of T x (h / patch) x (w / patch) cells, row by row, frame by frame.
      patch: side of a patch in pixels.

    Returns:
      uint8 [T, h * _SCALE, w * _SCALE, 3].

    Raises:
      ValueError: a position outside the grid.
    """
    count, height, width, _ = frames.shape
    rows, columns = height // patch, width // patch
    if kept.size and not 0 <= kept.min() <= kept.max() < count * rows * columns:
        raise ValueError(f"kept positions {kept.min()}..{kept.max()} do not lie in {count} x {rows} x {columns} cells")
    lit = np.zeros(count * rows * columns, bool)
    lit[kept] = True
    lit = lit.reshape(count, rows, columns)
    bright = lit.repeat(patch, axis=1).repeat(patch, axis=2)[..., None]
    faded = frames * np.float32(0.3) + frames.mean(axis=-1, keepdims=True, dtype=np.float32) * np.float32(0.7)
    dark = _DIM * faded + (1 - _DIM) * SHADE
    picture = np.where(bright, frames, dark.round().astype(np.uint8)).repeat(_SCALE, axis=1).repeat(_SCALE, axis=2)
    side = patch * _SCALE
    for frame, row, column in np.argwhere(lit):
        cell = picture[frame, row * side : (row + 1) * side, column * side : (column + 1) * side]
        cell[[0, -1]] = KEPT_EDGE
        cell[:, [0, -1]] = KEPT_EDGE
    return picture


def data_uri(picture: UInt8[np.ndarray, "h w 3"], lossless: bool = True) -> str:
    """The picture as the value of an `src` attribute: WebP, if lossless a third smaller than PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "WEBP", lossless=lossless, quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
