"""A crop of whole frames with Pillow: the reference of `harvest_jax.pixels.resample`."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from harvest_jax.pixels.square import Crop


def apply_crop(
    frames: UInt8[np.ndarray, "T H W 3"], crop: Crop, image_size: int
) -> UInt8[np.ndarray, "T {image_size} {image_size} 3"]:
    """Crop, resize (Pillow's bicubic with antialiasing, as for CLIP; skipped if the size is right), mirror."""
    square = frames[:, crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    if crop.side != image_size:
        size = (image_size, image_size)
        images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in square]
        square = np.stack([np.asarray(image.resize(size, Image.Resampling.BICUBIC)) for image in images])
    return np.ascontiguousarray(square[:, :, ::-1] if crop.flip else square)
