"""Random halves of the classes."""

import pytest

from harvest_jax.evaluate.half_classes import half_classes

NAMES = tuple(f"class {number}" for number in range(101))


def test_a_half_is_rounded_down_and_in_order():
    half = half_classes(NAMES, 0)
    assert len(half) == 50
    assert list(half) == [name for name in NAMES if name in half]


def test_a_seed_draws_the_same_half_whatever_the_order_of_the_names():
    assert half_classes(["a", "b", "c", "d"], 0) == ("a", "d")  # must never change: scores would not compare
    assert set(half_classes(NAMES[::-1], 3)) == set(half_classes(NAMES, 3))
    assert len({half_classes(NAMES, seed) for seed in range(10)}) == 10


def test_every_class_is_drawn_by_some_seed():
    assert {name for seed in range(40) for name in half_classes(NAMES, seed)} == set(NAMES)


def test_classes_must_be_distinct():
    for names in (["a", "a"], ["a"]):
        with pytest.raises(ValueError, match="distinct"):
            half_classes(names, 0)
