"""Make frames square: random and centre crops, and CLIP's resizing; all on uint8."""

import dataclasses
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from harvest_jax.pixels.frame_sampling import segment_indices


@dataclasses.dataclass(frozen=True)
class Crop:
    """A square of every frame of a clip: rows `top..top+side`, columns `left..left+side`; `flip`: then mirrored."""

    top: int
    left: int
    side: int
    flip: bool = False


def random_crop(height: int, width: int, min_scale: float, flip: bool, rng: np.random.Generator) -> Crop:
    """A random square in the frame; its area is `min_scale`..1 times that of the largest square."""
    largest = min(height, width)
    side = min(largest, max(1, round(largest * math.sqrt(rng.uniform(min_scale, 1.0)))))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return Crop(top, left, side, flip)


def center_crop(height: int, width: int, flip: bool = False) -> Crop:
    """The largest square in the middle."""
    side = min(height, width)
    return Crop((height - side) // 2, (width - side) // 2, side, flip)


def fit(
    frame: UInt8[np.ndarray, "H W 3"], image_size: int, resize: str
) -> UInt8[np.ndarray, "{image_size} {image_size} 3"]:
    """A picture as the square that a model sees, exactly as CLIP's preprocessing on Pillow images.

    Args:
      frame: the whole picture, of any size; scaling it beforehand would change the result.
      image_size: side of the square in pixels.
      resize: `Preprocessing.resize`. "crop" is torchvision's `Resize(image_size)` and `CenterCrop(image_size)`, as in
        OpenAI's `clip.py`: the whole picture is resized, the longer side to int(image_size * longer / shorter), and the
        square begins at round((side - image_size) / 2), halves to the even number. "squash" is
        `Resize((image_size, image_size))`, OpenCLIP's mode of that name. Both bicubic, antialiased.
    """
    height, width, _ = frame.shape
    shorter = min(height, width)
    if resize == "squash":
        rows = columns = image_size
    else:  # integer division equals int(image_size * longer / shorter)
        rows, columns = image_size * height // shorter, image_size * width // shorter
    if (rows, columns) != (height, width):
        image = Image.fromarray(np.ascontiguousarray(frame))
        frame = np.asarray(image.resize((columns, rows), Image.Resampling.BICUBIC))
    top, left = round((rows - image_size) / 2), round((columns - image_size) / 2)
    return np.ascontiguousarray(frame[top : top + image_size, left : left + image_size])


def prepare_clip(
    frames: UInt8[np.ndarray, "N H W 3"], num_frames: int, image_size: int, resize: str
) -> UInt8[np.ndarray, "{num_frames} {image_size} {image_size} 3"]:
    """The frames of a clip for a model, without randomness: for evaluation, embedding and search.

    The middle frame of each of `num_frames` equal segments, made a square by `fit`. Frames that are such squares
    already (the decoder can make them) do not change.
    """
    chosen = segment_indices(len(frames), num_frames, None)
    squares = {index: fit(frames[index], image_size, resize) for index in np.unique(chosen)}
    return np.stack([squares[index] for index in chosen])
