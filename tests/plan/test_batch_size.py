"""The search for the largest batch that fits."""

import pytest

from harvest_jax.plan.batch_size import largest_batch


@pytest.mark.parametrize("start", [8, 64, 1024])
@pytest.mark.parametrize("most", [0, 8, 24, 504, 512, 520, 10_000])
def test_the_search_ends_near_the_largest(start, most):
    asked = []

    def fits(size):
        asked.append(size)
        return size <= most

    found = largest_batch(fits, start, unit=8, limit=4096)
    assert len(asked) == len(set(asked))
    assert all(size % 8 == 0 and 0 < size <= 4096 for size in asked)
    assert found <= most or found == most == 0
    if found == 4096 or most == 0:
        assert found == min(most, 4096) // 8 * 8
    else:
        assert most < found + max(8, found // 16)
