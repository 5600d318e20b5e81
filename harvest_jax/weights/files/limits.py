"""Limits on what a file may hold, for the readers of all formats.

A damaged or malicious file of some kilobytes can stand for gigabytes: compressed, or by naming one list many times.
"""

import math
from typing import Any

RANK_LIMIT = 16  # axes of a tensor
SIZE_LIMIT = 1 << 48  # numbers in a tensor
NAME_LIMIT = 1000  # characters of a tensor's name
NAMES_LIMIT = 32 << 20  # characters of all of them; a model of 1,000 tensors has 60,000


def checked_shape(shape: Any) -> tuple[int, ...]:
    """A shape that numpy can make an array of.

    Args:
      shape: what the file has in its place, of any type.

    Raises:
      ValueError: it is not a list of whole numbers, or they are too many or too large.
    """
    if not isinstance(shape, list | tuple):
        raise ValueError("an array without a shape")
    if len(shape) > RANK_LIMIT:
        raise ValueError(f"an array of {len(shape)} axes")
    if not all(type(size) is int and 0 <= size < SIZE_LIMIT for size in shape):
        raise ValueError("an array without a shape of whole numbers, or of one that is too large")
    if math.prod(size for size in shape if size) >= SIZE_LIMIT:  # numpy multiplies them even where one is zero
        raise ValueError("an array whose shape is too large")
    return tuple(shape)
