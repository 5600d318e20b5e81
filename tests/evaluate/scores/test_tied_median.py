"""The expected median of tied ranks against counting every case, and its parts against known distributions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest_jax.evaluate.scores import ranking, tied_median


def poisson_binomial(p):
    """Probabilities of 0..n events, one event after another."""
    count = np.ones(1)
    for one in p:
        count = np.append(count, 0) * (1 - one) + np.insert(count, 0, 0) * one
    return count


def median_by_counting(ranks):
    """The sum over all r of the probability that the m-th smallest rank is above r."""
    n, top = len(ranks), int((ranks.greater + ranks.tied + 1).max())
    tails = [poisson_binomial(ranking.probability_within(ranks, r)) for r in range(top)]
    middle = ((n + 1) // 2, n // 2 + 1)
    return sum(tail[:m].sum() for tail in tails for m in middle) / 2


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.one_of(st.just(0), st.integers(0, 60)), st.integers(1, 4)),
        min_size=1,
        max_size=40,
    )
)
def test_the_median_is_that_of_counting(entries):
    ranks = ranking.Ranks(*(np.array(column) for column in zip(*entries, strict=True)))
    assert ranking.expected_median(ranks) == pytest.approx(median_by_counting(ranks), abs=1e-9)


@pytest.mark.parametrize("n", [80, 201])
def test_many_different_ties(n):
    rng = np.random.default_rng(n)
    ranks = ranking.Ranks(rng.integers(0, 90, n), rng.integers(0, 90, n), rng.integers(1, 4, n))
    assert ranking.expected_median(ranks) == pytest.approx(median_by_counting(ranks), abs=1e-9)


@pytest.mark.parametrize("n", [5000, 100_000])
def test_constant_scores_of_large_sets(n):
    """Ranks uniform over 1..n: the median is symmetric about the middle."""
    ranks = ranking.Ranks(np.zeros(n, np.int64), np.full(n, n - 1), np.ones(n, np.int64))
    assert ranking.expected_median(ranks) == pytest.approx((n + 1) / 2, abs=1e-9)


@pytest.mark.parametrize("n", [3, 40, 700])
@pytest.mark.parametrize("p", [1e-6, 0.02, 0.5, 0.97])
def test_tails_of_equal_events_are_binomial(n, p):
    thresholds = sorted({0, 1, round(n * p), round(n * p) + 1, n // 2, n, n + 1})
    found = tied_median.at_least(np.array([p]), np.array([n]), thresholds)
    for m, tail in zip(thresholds, found, strict=True):
        expected = math.fsum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(m, n + 1))
        assert tail == pytest.approx(expected, abs=1e-13), m


def test_tails_of_different_events():
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.random(300) ** 3, np.zeros(5), np.ones(7)])
    weight = rng.integers(1, 3, len(p))
    exact = poisson_binomial(np.repeat(p, weight))
    thresholds = range(0, int(weight.sum()) + 2, 9)
    found = tied_median.at_least(p, weight, thresholds)
    np.testing.assert_allclose(found, [exact[m:].sum() for m in thresholds], atol=1e-13)
