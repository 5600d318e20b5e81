"""Intervals of a mean over queries: percentile bootstrap over the videos that the queries are about."""

import numpy as np
from jaxtyping import Float, Int

RESAMPLES = 10_000
SEED = 0
LEVEL = 0.95
_BLOCK = 2_000_000  # drawn numbers held in memory at a time


def interval(
    values: Float[np.ndarray, " queries"],
    clusters: Int[np.ndarray, " queries"],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float] | None:
    """The 95 % interval of the mean of `values`.

    Videos are drawn with replacement, each with all its queries, because the captions of one video are not independent
    (the cluster bootstrap, as in Miller, "Adding error bars to evals", arXiv 2411.00640, where errors are clustered).
    Videos whose queries have the same sum and number are exchangeable, so that only how many are drawn of each kind is
    drawn: the same distribution, in memory and time that hardly grow with the set. For a paired test `values` are the
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
    block = max(1, _BLOCK // len(kinds))
    means = np.empty(resamples)
    for start in range(0, resamples, block):
        part = slice(start, min(start + block, resamples))
        drawn = generator.multinomial(len(counts), numbers / len(counts), size=part.stop - part.start)
        means[part] = (drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
