"""Intervals: against the definition, against the binomial distribution, and how often they hold the truth."""

import numpy as np
import pytest

from harvest_jax.evaluate.report import bootstrap
from harvest_jax.evaluate.report.bootstrap import interval


def by_definition(values, clusters, resamples, seed):
    """Draws whole videos, one resample after the other."""
    generator = np.random.default_rng(seed)
    names = np.unique(clusters)
    members = [values[clusters == name] for name in names]
    means = []
    for _ in range(resamples):
        drawn = generator.integers(len(names), size=len(names))
        means.append(np.concatenate([members[number] for number in drawn]).mean())
    return np.quantile(means, [0.025, 0.975])


def test_it_is_what_drawing_whole_videos_gives():
    generator = np.random.default_rng(5)
    clusters = np.repeat(np.arange(30), generator.integers(1, 6, 30))
    values = 100.0 * (generator.random(len(clusters)) < 0.2 + 0.6 * (clusters % 2))
    low, high = interval(values, clusters, resamples=20_000)
    expected = by_definition(values, clusters, 4_000, seed=1)
    np.testing.assert_allclose([low, high], expected, atol=1.0)


def test_it_is_the_binomial_distributions():
    """Drawing n of n right or wrong answers is a binomial variable, whose quantiles are known: n=50, p=0.3."""
    values = np.array([100.0] * 15 + [0.0] * 35)
    assert interval(values, np.arange(50), resamples=100_000) == (18.0, 44.0)  # scipy.stats.binom.ppf: 9 and 22 of 50


@pytest.mark.parametrize("costs", [0, 10**9])  # kinds of videos, and videos one by one
def test_both_ways_of_drawing_are_the_same_distribution(costs, monkeypatch):
    monkeypatch.setattr(bootstrap, "_KIND_COSTS", costs)
    values, clusters = np.repeat([0.0, 10.0, 60.0, 100.0], 25), np.repeat(np.arange(50), 2)
    np.testing.assert_allclose(
        interval(values, clusters, resamples=20_000), by_definition(values, clusters, 4_000, seed=2), atol=1.0
    )


def test_captions_of_one_video_do_not_count_as_so_many_videos():
    values = np.array([100.0] * 10 + [0.0] * 10)
    alone = interval(values, np.arange(20))
    together = interval(np.repeat(values, 50), np.repeat(np.arange(20), 50))
    apart = interval(np.repeat(values, 50), np.arange(1000))
    assert together == alone
    assert apart[1] - apart[0] < (alone[1] - alone[0]) / 5


def test_the_order_of_queries_and_the_size_of_blocks_do_not_matter(monkeypatch):
    generator = np.random.default_rng(0)
    values, clusters = generator.normal(size=300), generator.integers(0, 90, 300)
    first = interval(values, clusters)
    order = generator.permutation(300)
    assert interval(values[order], clusters[order]) == first
    assert interval(values, clusters, seed=1) != first
    monkeypatch.setattr(bootstrap, "_BLOCK", 1000)
    assert interval(values, clusters) == first


@pytest.mark.parametrize(("values", "clusters"), [([], []), ([1.0, 0.0], [7, 7])])
def test_one_video_has_no_interval(values, clusters):
    assert interval(np.array(values), np.array(clusters, int)) is None


def test_it_holds_the_truth_as_often_as_it_says():
    """Simulated sets whose true mean is known; videos differ, so that their captions hang together."""
    held = 0
    for trial in range(300):
        generator = np.random.default_rng(trial)
        ease = generator.beta(2, 2, 100)  # of each video; the mean of all videos is 0.5
        clusters = np.repeat(np.arange(100), 4)
        values = 100.0 * (generator.random(400) < ease[clusters])
        low, high = interval(values, clusters, resamples=1000)
        held += low <= 50 <= high
    assert 0.90 <= held / 300 <= 0.985
