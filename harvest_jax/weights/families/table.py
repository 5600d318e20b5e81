"""Which of our parameters is which of theirs: one table per family of checkpoints, read in both directions.

A row says: our parameter, their name or names, and the form, a pair of functions that are each other's inverse. In
their names `{layer}` stands for the number of a block; our parameters of blocks carry all layers in a leading axis.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import traverse_util

from harvest_jax.errors import DataError
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import Harvest
from harvest_jax.weights.files.tensors import Tensors

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Form:
    """How the numbers are laid out in their file and in ours, for one layer.

    `ours(arrays, shape)` makes our array of that shape from theirs (in the row's order); `theirs(array)` is the
    inverse. Both only move numbers: nothing is rounded, so that a round trip is exact. `theirs` of an array of our
    shape is also what says which shapes their tensors must have.
    """

    ours: Callable[[Sequence[np.ndarray], Shape], np.ndarray]
    theirs: Callable[[np.ndarray], list[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table."""

    our: str  # path in the parameter tree, such as "video/transformer/blocks/attn/qkv/kernel"
    their: tuple[str, ...]  # a single name, or the parts of what we keep in one array
    form: Form

    @property
    def stacked(self) -> bool:
        """Whether it stands for one tensor per layer."""
        return "{layer}" in self.their[0]


@dataclasses.dataclass(frozen=True)
class Family:
    """Checkpoints that share names: how to recognise one, what its towers are, and its table.

    Values of this class stand in `families.FAMILIES`; each is written in a module of its own kind
    (`clip_tables.py`, `viclip.py`, `scenic.py`), which imports this class from here.
    """

    name: str  # as people know it, for messages: "Hugging Face CLIP"
    recognise: Callable[[Tensors], bool]
    """Whether these are tensors of this family, from names and details alone. At most one family says yes."""

    architecture: Callable[[Tensors, str | None], HarvestConfig]
    """The towers, from names, shapes and details; `decoder` None, `preprocessing` included.

    The second argument is the activation that the user named, or None; it goes before what the file says. What cannot
    be known, or what our towers cannot be, raises DataError or ConfigError saying what to do.
    """

    rows: Callable[[HarvestConfig], tuple[Row, ...]]
    """The table; it depends on nothing but the config, so that it serves for export too."""

    ignored: tuple[str, ...] = ()
    """Names of tensors that hold nothing learnt (masks, position numbers); `{layer}` stands for any number."""

    zeros: tuple[str, ...] = ()
    """Our parameters that this layout has no place for and that are zero without harm (an image model's frames)."""


@functools.lru_cache(maxsize=32)
def parameter_shapes(config: HarvestConfig) -> dict[str, Shape]:
    """Every parameter of a model, path to shape; nothing is computed.

    Raises:
      DataError: there can be no such model.
    """
    try:
        shapes = jax.eval_shape(Harvest(config).init, jax.random.key(0))
    except (ValueError, TypeError, ArithmeticError) as error:  # a negative size, heads that do not divide the width
        raise DataError(f"{config.name}: no model can be built of its config: {str(error).splitlines()[0]}") from error
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(shapes, sep="/").items()}


def transposed(array: np.ndarray) -> np.ndarray:
    """The axes of a matrix changed over: torch keeps [out, in], we keep [in, out]."""
    return np.swapaxes(array, -1, -2)


def _conv_ours(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    kernel = arrays[0]  # width, channel, row, column
    return kernel.transpose(2, 3, 1, 0).reshape(shape)


def _conv_theirs(array: np.ndarray) -> list[np.ndarray]:
    numbers, width = array.shape
    patch = math.isqrt(numbers // 3)
    return [array.reshape(patch, patch, 3, width).transpose(3, 2, 0, 1)]


def _qkv_ours(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    return transposed(arrays[0]).reshape(shape)


def _qkv_theirs(array: np.ndarray) -> list[np.ndarray]:
    return [transposed(array.reshape(array.shape[0], -1))]


def _three_kernels_ours(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    return np.stack([transposed(array) for array in arrays], axis=1).reshape(shape)


def _three_kernels_theirs(array: np.ndarray) -> list[np.ndarray]:
    return [transposed(array[:, part].reshape(array.shape[0], -1)) for part in range(3)]


SAME = Form(lambda arrays, shape: arrays[0].reshape(shape), lambda array: [array])
LINEAR = Form(lambda arrays, shape: transposed(arrays[0]).reshape(shape), lambda array: [transposed(array)])
"""torch's [out, in] to our [in, out]."""

CONV = Form(_conv_ours, _conv_theirs)
"""torch's patch kernel [width, 3, patch, patch] to our [patch * patch * 3, width]."""

QKV = Form(_qkv_ours, _qkv_theirs)
"""torch's MultiheadAttention in_proj_weight [3 * width, width] to our [width, 3, heads, head_dim]."""

QKV_BIAS = Form(lambda arrays, shape: arrays[0].reshape(shape), lambda array: [array.reshape(-1)])
THREE_KERNELS = Form(_three_kernels_ours, _three_kernels_theirs)
"""Query, key and value apart, each [width, width] of torch, to our [width, 3, heads, head_dim]."""

THREE_BIASES = Form(
    lambda arrays, shape: np.stack(arrays).reshape(shape), lambda array: [array[part].reshape(-1) for part in range(3)]
)
ATTENTION_OUT = Form(
    lambda arrays, shape: transposed(arrays[0]).reshape(shape),
    lambda array: [transposed(array.reshape(-1, array.shape[-1]))],
)
"""torch's out_proj.weight [width, width] to our [heads, head_dim, width]."""
