"""Hardware by name, and what is said where it cannot be planned for."""

import importlib.util

import pytest

from harvest_jax.errors import ConfigError
from harvest_jax.plan.chips import CHIPS
from harvest_jax.plan.topology import devices, parse_topology


@pytest.mark.parametrize(
    "name",
    ["v5e", "v5e:16", "v5e:4x4x4", "v5p:4x4", "v9:2x2", "h200:0", "h200:2x4", "cpu:", "cpu:8x", "v5e:-1x4", "x" * 99],
)
def test_topologies_that_are_none(name):
    with pytest.raises(ConfigError, match="write one such as"):
        parse_topology(name)


def test_topologies():
    found = parse_topology("v5p:4x4x8")
    assert (found.kind, found.shape, found.count) == ("v5p", (4, 4, 8), 128)
    assert parse_topology("h100:8").chip is CHIPS["h100"]
    assert parse_topology("cpu:4").chip is None
    assert parse_topology("v5e:4x4", 2).count == 32
    for name, slices in (("h200:8", 2), ("cpu:8", 2), ("v4:2x2x1", 2), ("v5e:4x4", 0), ("v5e:16x16", 10**6)):
        with pytest.raises(ConfigError, match=f"--slices {slices} "):
            parse_topology(name, slices)
    with pytest.raises(ConfigError, match="needs 9 virtual devices and JAX has 8"):
        devices(parse_topology("cpu:9"))


def test_a_tpu_without_its_compiler_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install libtpu"):
        devices(parse_topology("v5e:2x2"))
