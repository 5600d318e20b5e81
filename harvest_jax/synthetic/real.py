"""The look "real": handwritten digits instead of shapes, and photographs instead of two grounds; scikit-learn has them.

A scene stays what it is, in the words of `scene.py`; only its pictures and the words that leave the world are others.
Training and tests show different samples of the digits and different parts of the photographs.
"""

import functools
import importlib.util
import re
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter, ImageOps

from harvest_jax.errors import ConfigError
from harvest_jax.synthetic.dice import Dice
from harvest_jax.synthetic.scene import SHAPES

Part = Literal["training", "test"]

EXTENT = 1.65  # half the side of a digit's bitmap, in units of its thing's radius
_SIDE = 120  # of a bitmap scaled up, pixels
_RIM = 13  # of the filter that adds 6 black pixels around a digit: it is then seen on grounds of its own colour too
_TRAINING_DIGITS = 1200  # of 1,797; the others are for tests
_PHOTOGRAPHS = {  # for each ground: the file, what it shows, the column of its axis, and rows that always show it
    "checkered": ("china.jpg", "tower", 207, (110.0, 310.0)),
    "speckled": ("flower.jpg", "flower", 308, (170.0, 270.0)),
}
_HALF = 180  # columns on the left of the axis are for training, as many on the right for tests
PHOTOGRAPHS = tuple(_PHOTOGRAPHS)
_WORDS = (
    {shape: str(digit) for digit, shape in enumerate(SHAPES)}
    | {"which shape": "which digit"}
    | {f"on a {ground} ground": f"on a photo of a {shows}" for ground, (_, shows, *_) in _PHOTOGRAPHS.items()}
)
_WORD = re.compile(rf"\b({'|'.join(_WORDS)})\b")


def need_pictures() -> None:
    """Check that the pictures are there.

    Raises:
      ConfigError: scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ConfigError("a world of the look real needs scikit-learn: pip install 'harvest_jax[world]'")


def in_words(columns: dict[str, Any]) -> dict[str, Any]:
    """The columns of a manifest with the sentences, options, answers and labels in the words of this look."""

    def renamed(told: Any) -> Any:
        if isinstance(told, list):
            return [renamed(one) for one in told]
        return _WORD.sub(lambda found: _WORDS[found[0]], told) if isinstance(told, str) else told

    return {name: renamed(told) for name, told in columns.items()}


def digit_of(shape: str, part: Part, dice: Dice) -> tuple[Image.Image, Image.Image]:
    """A handwritten digit in place of a shape: two square masks of `EXTENT`, its ink, and its ink with a rim."""
    return _digit(int(dice.pick(_numbers(SHAPES.index(shape), part))))


def photograph_of(ground: str, part: Part, dice: Dice, side: int) -> Image.Image:
    """A part of a photograph, RGB, `side` pixels square: from its left for training, from its right for tests."""
    name, _, axis, rows = _PHOTOGRAPHS[ground]
    size = round(dice.between(0.8, 1.0) * _HALF)
    left = axis + dice.number(_HALF - size + 1) - (_HALF if part == "training" else 0)
    top = round(dice.between(*rows) - size / 2)
    box = Image.fromarray(_photograph(name)[top : top + size, left : left + size])
    if dice.chance(0.5):  # else the sky would always be on one side in training, and on the other in tests
        box = ImageOps.mirror(box)
    return box.resize((side, side), Image.Resampling.BICUBIC)


@functools.cache
def _digits() -> tuple[UInt8[np.ndarray, "n 8 8"], np.ndarray]:
    """All bitmaps, 0..255, and which digits they are."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.round(found.images * (255 / 16)).astype(np.uint8), found.target


@functools.cache
def _numbers(digit: int, part: Part) -> list[int]:
    """The bitmaps of a digit in a part."""
    numbers = np.flatnonzero(_digits()[1] == digit)
    return [int(n) for n in numbers if (n < _TRAINING_DIGITS) == (part == "training")]


@functools.lru_cache(maxsize=1000)
def _digit(number: int) -> tuple[Image.Image, Image.Image]:
    bitmap = Image.fromarray(np.pad(_digits()[0][number], 1))
    smooth = np.asarray(bitmap.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), float)
    ink = Image.fromarray(np.clip((smooth - 75) * 5, 0, 255).astype(np.uint8))
    return ink, ink.filter(ImageFilter.MaxFilter(_RIM))


@functools.cache
def _photograph(name: str) -> UInt8[np.ndarray, "h w 3"]:
    from sklearn.datasets import load_sample_image

    return np.asarray(load_sample_image(name))
