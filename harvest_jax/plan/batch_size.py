"""The search for the largest global batch that fits."""

from collections.abc import Callable

CLOSE = 16  # the search ends when a batch larger by 1/16, or by one unit, is known not to fit


def largest_batch(fits: Callable[[int], bool], start: int, unit: int, limit: int) -> int:
    """Double (or halve) from `start`, then bisect between the largest size that fits and the smallest that does not.

    Args:
      fits: whether a batch fits; called once for each size, a multiple of `unit`.
      start: a multiple of `unit`.
      unit: the smallest step between batches.
      limit: a multiple of `unit`; no larger batch is tried.

    Returns:
      a batch that fits, or 0 if `unit` does not fit. The largest that fits is less than 1/`CLOSE`, or one unit, larger.
    """
    low, high = 0, 0  # the largest that is known to fit, the smallest that is known not to; 0: none yet
    size = min(start, limit)
    while not (low and high):
        if fits(size):
            low = size
        else:
            high = size
        if low == limit or high == unit:
            return low
        size = min(2 * size, limit) if low else max(size // 2 // unit * unit, unit)
    while high - low > max(unit, low // CLOSE):
        middle = (low + high) // 2 // unit * unit
        if fits(middle):
            low = middle
        else:
            high = middle
    return low
