"""What a stranger's file may hold at most, and how its names are shown: shared by the readers of all kinds.

A file of some kilobytes can stand for gigabytes: it may be compressed, or name one long text or list again and again.
"""

import math
from typing import Any

RANK_LIMIT = 16  # axes of a tensor
SIZE_LIMIT = 1 << 48  # numbers in a tensor
NAME_LIMIT = 1000  # characters of a tensor's name
NAMES_LIMIT = 32 << 20  # characters of all of them; a model of 1,000 tensors has 60,000


def checked_shape(shape: Any) -> tuple[int, ...]:
    """A shape of which numpy can make an array.

    Args:
      shape: whatever stands in the file for it.

    Raises:
      ValueError: no list of whole numbers, or too many or too large ones.
    """
    if not isinstance(shape, list | tuple):
        raise ValueError("an array without a shape")
    if len(shape) > RANK_LIMIT:
        raise ValueError(f"an array of {len(shape)} axes")
    if not all(type(size) is int and 0 <= size < SIZE_LIMIT for size in shape):
        raise ValueError("an array without a shape of whole numbers, or of an absurd one")
    if math.prod(size for size in shape if size) >= SIZE_LIMIT:  # numpy multiplies them even where one is zero
        raise ValueError("an array of an absurd shape")
    return tuple(shape)


def shown(name: str) -> str:
    """A name for a message, on one line of 120 characters at most: plain ones as they stand, others escaped."""
    text = name[:121]
    text = text if text.isascii() and text.isprintable() else ascii(text)
    return text if len(text) <= 120 else f"{text[:117]}..."
