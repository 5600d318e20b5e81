"""Intervals of a mean over queries: percentile bootstrap over the videos that the queries are about."""

import numpy as np
from jaxtyping import Float, Int

RESAMPLES = 10_000
SEED = 0
LEVEL = 0.95
_BLOCK = 2_000_000  # drawn numbers held in memory at a time
_KIND_COSTS = 10  # drawing how many there are of one kind takes as long as drawing so many videos


def interval(
    values: Float[np.ndarray, " queries"],
    clusters: Int[np.ndarray, " queries"],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float] | None:
    """The 95 % interval of the mean of `values`.

    Videos are drawn with replacement, each with all its queries, because the captions of one video are not independent
    (the cluster bootstrap, as in Miller, "Adding error bars to evals", arXiv 2411.00640, where errors are clustered).
    Videos whose queries have the same sum and number are exchangeable: where there are few such kinds, it is drawn how
    many there are of each kind, which is the same distribution in less time. For a paired test `values` are the
    differences of two models.

    Args:
      values: one a query.
      clusters: number of the video of each query, any numbers.
      resamples: number of resamples.
      seed: of the generator; the same arguments give the same interval, whatever the order of the queries.

    Returns:
      its ends; None if all queries are about one video.
    """
    if len(values) == 0:
        return None
    _, member = np.unique(clusters, return_inverse=True)
    counts = np.bincount(member)
    if len(counts) < 2:
        return None
    # Rounded, so that sums that differ only by the order of their terms are one kind.
    sums = np.round(np.bincount(member, weights=values), 9)
    kinds, numbers = np.unique(np.stack([sums, counts], axis=1), axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    few = len(kinds) * _KIND_COSTS < len(counts)
    each = kinds if few else np.repeat(kinds, numbers, axis=0)
    block = max(1, _BLOCK // len(each))
    means = np.empty(resamples)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        if few:
            drawn = generator.multinomial(len(counts), numbers / len(counts), size=size)
            sums_of, counts_of = drawn @ kinds[:, 0], drawn @ kinds[:, 1]
        else:
            drawn = generator.integers(len(each), size=(size, len(each)))
            sums_of, counts_of = each[:, 0][drawn].sum(axis=1), each[:, 1][drawn].sum(axis=1)
        means[start : start + size] = sums_of / counts_of
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
