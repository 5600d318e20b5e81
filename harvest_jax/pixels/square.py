"""Make frames square: random and centre crops, and CLIP's resizing; all on uint8."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int, UInt8
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
    return squares(scaled(frame, image_size, resize), image_size, 1)[0]


def scaled(frame: UInt8[np.ndarray, "H W 3"], image_size: int, resize: str) -> UInt8[np.ndarray, "H2 W2 3"]:
    """The whole picture at the size at which `fit` cuts it: its shorter side, or with "squash" both, `image_size`."""
    height, width, _ = frame.shape
    shorter = min(height, width)
    if resize == "squash":
        rows = columns = image_size
    else:  # integer division equals int(image_size * longer / shorter)
        rows, columns = image_size * height // shorter, image_size * width // shorter
    if (rows, columns) != (height, width):
        image = Image.fromarray(np.ascontiguousarray(frame))
        frame = np.asarray(image.resize((columns, rows), Image.Resampling.BICUBIC))
    return frame


def squares(
    picture: UInt8[np.ndarray, "H W 3"], image_size: int, crops: int
) -> list[UInt8[np.ndarray, "{image_size} {image_size} 3"]]:
    """Squares of a picture of `scaled`: of 1 the one in the centre; of 3 those at the start, centre, end of its length.

    Three crops along the longer side are the spatial views of video classification (Non-local networks, SlowFast).
    """
    rows, columns, _ = picture.shape
    centre = round((rows - image_size) / 2), round((columns - image_size) / 2)
    corners = [centre] if crops == 1 else [(0, 0), centre, (rows - image_size, columns - image_size)]
    return [np.ascontiguousarray(picture[top : top + image_size, left : left + image_size]) for top, left in corners]


def for_decoder(frame: UInt8[np.ndarray, "H W 3"], image_size: int, how: str) -> UInt8[np.ndarray, "H2 W2 3"]:
    """A picture as `DecodeSpec.fit` asks for it: `fit`, or with "shorter" the whole picture `scaled` for crops."""
    return scaled(frame, image_size, "crop") if how == "shorter" else fit(frame, image_size, how)


def view_clips(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    views: Sequence[Int[np.ndarray, " _"]],
    image_size: int,
    resize: str,
    crops: int,
) -> list[UInt8[np.ndarray, "t {image_size} {image_size} 3"]]:
    """Clips for a model: of each view, one for each crop.

    Args:
      frames: different frames of one size; they can be `scaled` already.
      views: the frames of each view, as numbers of `frames`.
      image_size, resize: as in `fit`.
      crops: as in `squares`.
    """
    cut = [squares(scaled(frame, image_size, resize), image_size, crops) for frame in frames]
    return [np.stack([cut[number][crop] for number in view]) for view in views for crop in range(crops)]


def prepare_clip(
    frames: UInt8[np.ndarray, "N H W 3"], num_frames: int, image_size: int, resize: str
) -> UInt8[np.ndarray, "{num_frames} {image_size} {image_size} 3"]:
    """The frames of a clip for a model, without randomness: for evaluation, embedding and search.

    The middle frame of each of `num_frames` equal segments, made a square by `fit`. Frames that are such squares
    already (the decoder can make them) do not change.
    """
    chosen = segment_indices(len(frames), num_frames, None)
    different, positions = np.unique(chosen, return_inverse=True)
    return view_clips(frames[different], [positions], image_size, resize, 1)[0]
