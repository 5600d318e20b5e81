"""Which tokens of a caption are masked: a fixed number of slots, used as the caption's length requires."""

import math

import numpy as np
from jaxtyping import Float32, Int32


def num_slots(length: int, ratio: float) -> int:
    """Slots for captions of up to `length` tokens (start and end included): ceil(ratio * (length - 2)), at least 0."""
    return max(0, math.ceil(ratio * (length - 2) - 1e-9))  # 0.1 * 30 is 3.0000000000000004: three slots, not four


def mask_slots(
    rng: np.random.Generator,
    ids: Int32[np.ndarray, " L"],
    eot: int,
    ratio: float,
    num_slots: int,
    sot: int | None,
) -> tuple[Int32[np.ndarray, " {num_slots}"], Float32[np.ndarray, " {num_slots}"]]:
    """Draw the positions to mask in one caption.

    Of n words floor(ratio * n + u) are masked, u uniform in [0, 1): the expected share is exactly `ratio`, however
    short the caption, and never more than the slots of `num_slots(length, ratio)`. They are chosen uniformly without
    replacement. The start token, the end token and the padding are never chosen (the ancestors' code could mask the
    end token, which carries the contrastive feature).

    Args:
      rng: numpy generator; two draws for every caption with words.
      ids: token ids: start (if there is one), words, end, padding.
      eot: id of the end token.
      ratio: expected share of the words that is masked, 0..1.
      num_slots: M, static.
      sot: id of the start token; None without one.

    Returns:
      slots [M]: positions in `ids`, ascending, then 0 where unused; weights [M]: 1.0 used, 0.0 unused.

    Raises:
      ValueError: no end token in `ids`.
    """
    slots = np.zeros(num_slots, np.int32)
    weights = np.zeros(num_slots, np.float32)
    ends = np.flatnonzero(ids == eot)
    if not ends.size:
        raise ValueError("the caption's ids have no end token")
    words = np.flatnonzero(ids[: ends[0]] != sot) if sot is not None else np.arange(ends[0])
    if not words.size:
        return slots, weights
    masked = min(int(ratio * words.size + rng.random()), words.size, num_slots)
    slots[:masked] = np.sort(rng.choice(words, masked, replace=False))
    weights[:masked] = 1.0
    return slots, weights
