"""What each process reads of the global batches: everything once, and of every set its share, whatever the weights."""

import functools

import grain
import numpy as np
import pytest

from harvest_jax.input.process_share import Blocks, first_block


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("rows", [1, 2, 6])
def test_all_processes_together_read_every_row_of_a_batch_once(count, rows):
    parts = [Blocks(list(range(5 * count * rows + 1)), index, count, rows) for index in range(count)]
    for batch in range(5):
        here = range(batch * rows, (batch + 1) * rows)
        read = [part[number] for part in parts for number in here]
        assert sorted(read) == list(range(batch * count * rows, (batch + 1) * count * rows))
    assert {len(part) for part in parts} == {(5 * count * rows + 1) // (count * rows) * rows}


def test_one_process_reads_the_global_order():
    assert [Blocks(range(40), 0, 1, 4)[number] for number in range(40)] == list(range(40))


BATCHES = 160


@functools.cache
def mixed(weights):
    """The number of the set of each element of a mixture."""
    sets = [grain.MapDataset.source([which]).repeat() for which in range(len(weights))]
    order = grain.MapDataset.mix(sets, [weight / sum(weights) for weight in weights])
    return np.array([order[number] for number in range(BATCHES * 32)])


@pytest.mark.parametrize("weights", [(3, 1), (4, 1), (1, 1), (7, 1), (2, 1, 1), (10, 3), (31, 1)])
@pytest.mark.parametrize(("count", "rows"), [(2, 1), (4, 1), (4, 2), (8, 4), (5, 1)])
def test_every_process_has_each_sets_share(weights, count, rows):
    """Of 160 batches, as if it were drawn by lot, or better; of every n-th row some processes have none of a set."""
    expected = BATCHES * rows * np.array(weights) / sum(weights)
    for index in range(count):
        part = Blocks(mixed(weights), index, count, rows)
        drawn = np.bincount([part[number] for number in range(BATCHES * rows)], minlength=len(weights))
        assert (np.abs(drawn - expected) <= 3 * np.sqrt(expected)).all(), (index, drawn, expected)


def test_the_rule_is_fixed():
    """A run that goes on must read what it would have read: these numbers stay."""
    assert [first_block(batch, 4) for batch in range(12)] == [2, 1, 0, 3, 1, 3, 0, 2, 2, 0, 3, 1]
    assert [first_block(batch, 1) for batch in range(8)] == [0] * 8
    assert sorted(first_block(batch, 1000) for batch in range(5000, 6000)) == list(range(1000))
