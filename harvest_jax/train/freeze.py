"""Which parameters train: a table of (regular expression, learning-rate multiplier); 0 freezes."""

import re
from collections.abc import Sequence
from typing import Any

import jax
from flax import traverse_util

from harvest_jax.errors import ConfigError

Tree = dict[str, Any]
Multipliers = Sequence[tuple[str, float]]


def multiplier(path: str, table: Multipliers) -> float:
    """The multiplier of the first pattern that matches the whole path ("video/proj/kernel")."""
    for pattern, value in table:
        if re.fullmatch(pattern, path):
            return value
    raise ConfigError(f"train.lr_multipliers: no pattern matches {path}; end the table with ('.*', 1.0)")


def partition(params: Tree, table: Multipliers) -> tuple[Tree, Tree]:
    """Split nested parameters into (trained, frozen), both nested dicts, by the table; leaves may be of any kind."""
    flat = traverse_util.flatten_dict(params, sep="/")
    trained = {path: leaf for path, leaf in flat.items() if multiplier(path, table) > 0}
    frozen = {path: leaf for path, leaf in flat.items() if path not in trained}
    if not trained:
        raise ConfigError("train.lr_multipliers freezes every parameter")
    return traverse_util.unflatten_dict(trained, sep="/"), traverse_util.unflatten_dict(frozen, sep="/")


def merge(trained: Tree, frozen: Tree) -> Tree:
    """Inverse of `partition`."""
    flat = traverse_util.flatten_dict(frozen, sep="/") | traverse_util.flatten_dict(trained, sep="/")
    return traverse_util.unflatten_dict(flat, sep="/")


def map_with_path(function: Any, params: Tree) -> Tree:
    """function("video/proj/kernel", leaf) over nested dicts."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function("/".join(str(entry.key) for entry in path), leaf), params
    )
