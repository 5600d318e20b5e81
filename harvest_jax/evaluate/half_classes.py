"""Half of a dataset's classes, drawn at random: what papers on zero-shot action recognition score UCF101 and HMDB51 on.

Such papers repeat the score over several random halves (10, often) and give mean and spread; which classes they drew
is mostly not published. Which classes a seed draws here is our choice, the same with every version of every library.
"""

import hashlib
from collections.abc import Sequence


def half_classes(classes: Sequence[str], seed: int) -> tuple[str, ...]:
    """Half of the classes, rounded down (50 of 101, 25 of 51), in their order.

    Args:
      classes: distinct names.
      seed: which half; the order of `classes` does not matter for it.

    Raises:
      ValueError: a name is there twice, or there are fewer than two.
    """
    if len(set(classes)) < len(classes) or len(classes) < 2:
        raise ValueError("half of the classes needs two or more distinct classes")
    drawn = sorted(classes, key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).digest())[: len(classes) // 2]
    return tuple(name for name in classes if name in set(drawn))
