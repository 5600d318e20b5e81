"""Which frames of a clip are used, and how they become square images: indices, crops, resizing, all on uint8."""

import dataclasses
import math

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Crop:
    """A square cut out of every frame of a clip: pixels `top..top+side`, `left..left+side`, then mirrored or not."""

    top: int
    left: int
    side: int
    flip: bool = False


def segment_indices(
    num_stored: int, num_frames: int, rng: np.random.Generator | None
) -> Int[np.ndarray, " {num_frames}"]:
    """One frame out of each of `num_frames` equal segments of a clip, as in TSN and CoTrain.

    Args:
      num_stored: frames there are; with fewer than `num_frames` some are taken more than once.
      num_frames: frames wanted.
      rng: draws a frame within each segment (training); None takes the middle one (evaluation).

    Returns:
      ascending indices, int64.

    Raises:
      ValueError: no frames.
    """
    if num_stored < 1 or num_frames < 1:
        raise ValueError(f"cannot choose {num_frames} of {num_stored} frames")
    steps = np.arange(num_frames)
    low = steps * num_stored // num_frames
    high = np.maximum((steps + 1) * num_stored // num_frames, low + 1)  # exclusive
    return (low + high) // 2 if rng is None else rng.integers(low, high)


def random_crop(height: int, width: int, min_scale: float, flip: bool, rng: np.random.Generator) -> Crop:
    """A square anywhere in the frame, its area `min_scale`..1 of the largest square's."""
    largest = min(height, width)
    side = min(largest, max(1, round(largest * math.sqrt(rng.uniform(min_scale, 1.0)))))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return Crop(top, left, side, flip)


def center_crop(height: int, width: int, flip: bool = False) -> Crop:
    """The largest square in the middle."""
    side = min(height, width)
    return Crop((height - side) // 2, (width - side) // 2, side, flip)


def apply_crop(
    frames: UInt8[np.ndarray, "T H W 3"], crop: Crop, image_size: int
) -> UInt8[np.ndarray, "T {image_size} {image_size} 3"]:
    """Cut, resize (Pillow's bicubic with antialiasing, as CLIP was trained; nothing where the sizes match), mirror."""
    square = frames[:, crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    if crop.side != image_size:
        size = (image_size, image_size)
        images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in square]
        square = np.stack([np.asarray(image.resize(size, Image.Resampling.BICUBIC)) for image in images])
    return np.ascontiguousarray(square[:, :, ::-1] if crop.flip else square)


def prepare_clip(
    frames: UInt8[np.ndarray, "N H W 3"], num_frames: int, image_size: int
) -> UInt8[np.ndarray, "{num_frames} {image_size} {image_size} 3"]:
    """What every use without chance (evaluation, embedding, search) shows the model of a clip.

    The middle frame of each of `num_frames` equal segments, the largest centre square, resized to `image_size`.
    """
    chosen = frames[segment_indices(len(frames), num_frames, None)]
    _, height, width, _ = chosen.shape
    return apply_crop(chosen, center_crop(height, width), image_size)
