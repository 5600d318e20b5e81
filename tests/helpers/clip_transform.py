"""CLIP's preprocessing of one picture, an independent implementation of torchvision's Resize and CenterCrop.

OpenAI's `clip.py` composes Resize(size, bicubic), CenterCrop(size), ToTensor and Normalize on Pillow images.
"""

import numpy as np
from PIL import Image

SIZES = [  # height, width of pictures: landscape, portrait, odd, long, square, as wanted, smaller in one or both
    (240, 320),
    (320, 240),
    (241, 427),
    (427, 241),
    (90, 901),
    (333, 333),
    (224, 224),
    (224, 301),
    (455, 224),
    (100, 140),
    (57, 33),
    (1, 9),
    (720, 1280),
]


def clip_transform(image: Image.Image, size: int) -> Image.Image:
    """The square that CLIP sees."""
    width, height = image.size
    if width <= height:
        image = image.resize((size, int(size * height / width)), Image.Resampling.BICUBIC)
    else:
        image = image.resize((int(size * width / height), size), Image.Resampling.BICUBIC)
    width, height = image.size
    left, top = int(round((width - size) / 2.0)), int(round((height - size) / 2.0))  # noqa: RUF046
    return image.crop((left, top, left + size, top + size))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise over a few broad colours: every pixel and every shift by one shows."""
    rng = np.random.default_rng(seed)
    broad = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-60, 60, (height, width, 3))
    return np.clip(np.asarray(broad).astype(int) + noise, 0, 255).astype(np.uint8)
