"""A training state as the named items of a checkpoint, and the comparison of stored arrays with wanted ones."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from harvest_jax.checkpoint.tree_digest import named_leaves
from harvest_jax.errors import CheckpointError

Spec = dict[str, list[Any]]  # "params/video/proj/kernel" -> ["float32", [768, 512]]

_OWN_ITEMS = ("params", "opt_state")
_NAMED_FAULTS = 4  # a message names so many: a wrong model size gives hundreds


def to_items(state: Any) -> dict[str, Any]:
    """A state (mapping or dataclass) as {"params", "opt_state", "counters": the other fields}; empty ones left out."""
    fields = _fields(state)
    items = {name: fields.pop(name) for name in _OWN_ITEMS if name in fields} | {"counters": fields}
    return {name: tree for name, tree in items.items() if jax.tree.leaves(tree)}


def from_items(target: Any, items: Mapping[str, Any]) -> Any:
    """Inverse of `to_items`: a state of the type of `target`, from which empty fields are taken."""
    fields = _fields(target) | dict(items)
    fields |= fields.pop("counters", {})
    return dict(fields) if isinstance(target, Mapping) else dataclasses.replace(target, **fields)


def spec(tree: Any) -> Spec:
    """Path -> [dtype, shape] of each array (or ShapeDtypeStruct) of a tree."""
    return {path: [str(leaf.dtype), list(leaf.shape)] for path, leaf in named_leaves(tree)}


def abstract(tree: Any) -> Any:
    """The tree as jax.ShapeDtypeStruct with shardings.

    Raises:
      ValueError: a leaf has no sharding; without one Orbax ignores the wanted shape and dtype.
    """

    def describe(leaf: Any) -> jax.ShapeDtypeStruct:
        if getattr(leaf, "sharding", None) is None:
            raise ValueError(f"restore needs a sharding for every array; {leaf} has none")
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

    return jax.tree.map(describe, tree)


def check_spec(stored: Spec, wanted: Spec, where: Path) -> None:
    """Compare names, dtypes and shapes.

    Raises:
      CheckpointError: naming what differs, with both sides.
    """
    faults = [
        f"{path} is {_words(stored[path])} in the checkpoint, {_words(wanted[path])} in the model"
        for path in sorted(stored.keys() & wanted.keys())
        if stored[path] != wanted[path]
    ]
    faults += [f"{path} is missing in the checkpoint" for path in sorted(wanted.keys() - stored.keys())]
    faults += [f"{path} is in the checkpoint alone" for path in sorted(stored.keys() - wanted.keys())]
    if faults:
        raise CheckpointError(
            f"the checkpoint {where} does not fit the model: {first_few(faults)}; "
            "use the config that it was made with, or another --workdir"
        )


def _fields(state: Any) -> dict[str, Any]:
    if isinstance(state, Mapping):
        return dict(state)
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _words(entry: list[Any]) -> str:
    dtype, shape = entry
    return f"{dtype}[{', '.join(map(str, shape))}]"


def first_few(faults: Iterable[str]) -> str:
    """The first few faults on one line, and how many more there are."""
    faults = list(faults)
    more = f"; and {len(faults) - _NAMED_FAULTS} more" if len(faults) > _NAMED_FAULTS else ""
    return "; ".join(faults[:_NAMED_FAULTS]) + more
