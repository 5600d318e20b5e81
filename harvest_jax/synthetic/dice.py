"""Random choices that are the same with every version of every library.

Python promises the stream of `random.Random.random` for a text seed; nothing else of `random` is used.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


class Dice:
    """A stream of choices that follows from its names alone."""

    def __init__(self, *names: str | int):
        self._random = random.Random("/".join(map(str, names))).random

    def number(self, below: int) -> int:
        """A whole number in 0..below-1."""
        return int(self._random() * below)

    def pick(self, values: Sequence[_T]) -> _T:
        """One of the values."""
        return values[self.number(len(values))]

    def chance(self, share: float) -> bool:
        """True in this share of cases."""
        return self._random() < share

    def between(self, low: float, high: float) -> float:
        """A number in low..high."""
        return low + (high - low) * self._random()

    def shuffled(self, values: Sequence[_T]) -> list[_T]:
        """The values in random order."""
        rest = list(values)
        return [rest.pop(self.number(len(rest))) for _ in range(len(rest))]
