"""The expected median of ranks that are random where scores tie.

With R_i the rank of query i, independent of the others, the m-th smallest rank is above r exactly if fewer than m of
the queries have R_i <= r. Its expectation is the sum over r >= 0 of P(S(r) < m), where S(r) counts those queries: a sum
of independent events of different probabilities (Poisson binomial distribution). P(S(r) < m) falls as r grows, so
bisection finds the few r at which it is neither 1 nor 0. There it is computed from the characteristic function at a few
frequencies. What is left out at each of these steps is below exp(-DECIDED), about 2e-15.
"""

from collections.abc import Callable, Collection

import numpy as np
from jaxtyping import Complex128, Float64, Int

DECIDED = 34.0  # -log of the probability below which something counts as impossible
AT_ONCE = 2**20  # complex numbers of one step: 16 MB


def expected_median(
    low: Int[np.ndarray, " queries"],
    high: Int[np.ndarray, " queries"],
    within: Callable[[int], Float64[np.ndarray, " kinds"]],
    weight: Int[np.ndarray, " kinds"],
) -> float:
    """Expectation of the median of independent random ranks; for an even number of them, of the mean of the middle two.

    Args:
      low: the smallest ranks that the queries can have, sorted.
      high: the largest ranks that they can have, sorted.
      within: r -> for each kind of query, the probability that its rank is at most r.
      weight: number of queries of each kind.
    """
    middle = {(len(low) + 1) // 2, len(low) // 2 + 1}  # a single one if the number of queries is odd
    # What is certain at one r is certain at all r on one side of it, because P(S(r) >= m) is monotone in r.
    first, last = int(low[min(middle) - 1]), int(high[max(middle) - 1])
    sure = _first(first, last, lambda r: _certain(within(r), weight, max(middle)) == 1)
    begin = _first(first, sure, lambda r: _certain(within(r), weight, min(middle)) != 0)
    expected = float(begin)
    for r in range(begin, sure):
        reached = at_least(within(r), weight, middle)
        expected += 1 - sum(reached) / len(reached)
    return expected


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """A number of low..high at which `holds` is true and before which it was found false; `high` counts as true."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _moments(p: Float64[np.ndarray, " kinds"], weight: Int[np.ndarray, " kinds"]) -> tuple[float, float, float]:
    """Mean and variance of the number of events that happen, and how far from its mean this number can be."""
    mean, variance = float(weight @ p), float(weight @ (p * (1 - p)))
    # Bernstein: P(|S - mean| >= t) <= 2 exp(-t^2 / 2 / (variance + t / 3)), solved for the exponent DECIDED
    return mean, variance, float(DECIDED / 3 + np.sqrt((DECIDED / 3) ** 2 + 2 * DECIDED * variance))


def _certain(p: Float64[np.ndarray, " kinds"], weight: Int[np.ndarray, " kinds"], m: int) -> int | None:
    """1 if at least `m` of the events certainly happen, 0 if certainly fewer do, None if it is open."""
    if weight[p == 1].sum() >= m:
        return 1
    if weight[p > 0].sum() < m:
        return 0
    mean, _, reach = _moments(p, weight)
    if mean - reach > m:
        return 1
    return 0 if mean + reach < m - 1 else None


def at_least(
    p: Float64[np.ndarray, " kinds"], weight: Int[np.ndarray, " kinds"], thresholds: Collection[int]
) -> list[float]:
    """P(S >= m) for each m of `thresholds`, S the number of independent events that happen.

    If S lies within L neighbouring numbers, P(S = k) is the mean over l = 0..L-1 of phi(w) exp(-i w k), w = 2 pi l / L,
    with the characteristic function phi. As |phi(w)| <= exp(-2 variance sin^2(w / 2)), high frequencies add nothing.

    Args:
      p: probability of each kind of event.
      weight: number of events of each kind.
    """
    certain = [_certain(p, weight, m) for m in thresholds]
    if None not in certain:
        return [float(found or 0) for found in certain]
    always, undecided = int(weight[p == 1].sum()), (p > 0) & (p < 1)
    p, weight = p[undecided], weight[undecided]
    mean, variance, reach = _moments(p, weight)
    first, last = max(0, int(mean - reach)), min(int(weight.sum()), int(np.ceil(mean + reach)))
    length = last - first + 1
    limit = 2 * np.arcsin(min(1.0, np.sqrt(DECIDED / 2 / variance)))  # there, 2 variance sin^2(w / 2) = DECIDED
    number = np.arange(1, min(length // 2, int(limit * length / (2 * np.pi)) + 1) + 1)
    w = 2 * np.pi / length * number
    phi = np.where(2 * number == length, 1, 2) * _characteristic(p, weight, w)  # both halves of the circle but w = pi
    found = []
    for m, known in zip(thresholds, certain, strict=True):
        begin = min(max(m - always, first), last + 1)
        # The sum of exp(-i w k) over k = begin..last, a geometric series.
        series = np.exp(-1j * w * begin) * (1 - np.exp(-1j * w * (last - begin + 1))) / (1 - np.exp(-1j * w))
        tail = (last - begin + 1 + float((phi * series).real.sum())) / length
        found.append(min(max(tail, 0.0), 1.0) if known is None else float(known))
    return found


def _characteristic(
    p: Float64[np.ndarray, " kinds"], weight: Int[np.ndarray, " kinds"], w: Float64[np.ndarray, " n"]
) -> Complex128[np.ndarray, " n"]:
    """E exp(i w S) at each frequency."""
    turn = np.exp(1j * w)[:, None] - 1
    phi = np.ones(len(w), np.complex128)
    at_once = max(1, AT_ONCE // len(w))
    for start in range(0, len(p), at_once):
        part = slice(start, start + at_once)
        factors = 1 + turn * p[part]
        several = np.flatnonzero(weight[part] > 1)
        factors[:, several] **= weight[part][several]
        phi *= factors.prod(axis=1)
    return phi
