"""The largest global batch that fits, by trying."""

from collections.abc import Callable

CLOSE = 16  # the search ends when a batch larger by 1/16, or by one unit, is known not to fit


def largest_batch(fits: Callable[[int], bool], start: int, unit: int, limit: int) -> int:
    """Doubling (or halving) from `start`, then bisection between what fits and what does not.

    Args:
      fits: whether a batch fits; asked once for each, of multiples of `unit`.
      start: a multiple of `unit`.
      unit: the smallest step between batches.
      limit: a multiple of `unit`; no larger batch is tried.

    Returns:
      a batch that fits, of which `CLOSE` says how far from the largest it may be; 0 if not even `unit` fits.
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
