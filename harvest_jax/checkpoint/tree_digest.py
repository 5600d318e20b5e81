"""A digest of arrays in memory, by which two models are known to be the same."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def tree_digest(tree: Any) -> str:
    """SHA-256 (hex) over the sorted paths of a tree of arrays, with the dtype, shape and bytes of each.

    Equal values give equal digests, however the arrays lie on devices and processes. If arrays span processes, every
    process must call this.
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(named_leaves(tree), key=lambda named: named[0]):
        array = _on_host(leaf)
        digest.update(json.dumps([path, str(array.dtype), list(array.shape)]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def named_leaves(tree: Any) -> Iterable[tuple[str, Any]]:
    """("video/proj/kernel", leaf) for each leaf, in the order of the tree."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def _on_host(leaf: Any) -> np.ndarray:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    if leaf.is_fully_replicated:
        return np.asarray(leaf.addressable_data(0))
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
