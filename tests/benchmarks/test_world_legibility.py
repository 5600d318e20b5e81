"""What the pictures of the look "real" show can be read off them, on digits and photographs not seen before."""

import pytest

from benchmarks.world_legibility import FACTORS, legibility


@pytest.mark.slow
def test_a_small_classifier_reads_every_factor():
    right = legibility("real", 400, 150, seed=0)
    assert set(right) == {*FACTORS, "shape turned"}
    chance = {"colour": 20, "shape": 17, "size": 50, "texture": 33, "ground": 25, "shape turned": 17}
    for factor, share in chance.items():
        assert share + (100 - share) / 3 < right[factor] <= 100, factor
