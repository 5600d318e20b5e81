"""How a parameter's numbers are laid out in a family's files and in this package: pairs of inverse functions."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Conversion:
    """Two functions that are each other's inverse, for the arrays of one layer.

    `ours(arrays, shape)` makes our array of that shape from theirs, which are in the order of the mapping;
    `theirs(array)` makes their arrays from ours. Both only move numbers: nothing is rounded, so that a round trip is
    exact. The shapes of `theirs(array)` are those that the tensors in the file must have.
    """

    ours: Callable[[Sequence[np.ndarray], Shape], np.ndarray]
    theirs: Callable[[np.ndarray], list[np.ndarray]]


def transposed(array: np.ndarray) -> np.ndarray:
    """The last two axes exchanged: torch keeps matrices as [out, in], this package as [in, out]."""
    return np.swapaxes(array, -1, -2)


def _patch_kernel_ours(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    kernel = arrays[0]  # width, channel, row, column
    return kernel.transpose(2, 3, 1, 0).reshape(shape)


def _patch_kernel_theirs(array: np.ndarray) -> list[np.ndarray]:
    numbers, width = array.shape
    patch = math.isqrt(numbers // 3)
    return [array.reshape(patch, patch, 3, width).transpose(3, 2, 0, 1)]


def _qkv_ours(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    return transposed(arrays[0]).reshape(shape)


def _qkv_theirs(array: np.ndarray) -> list[np.ndarray]:
    return [transposed(array.reshape(array.shape[0], -1))]


def _separate_qkv_ours(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    return np.stack([transposed(array) for array in arrays], axis=1).reshape(shape)


def _separate_qkv_theirs(array: np.ndarray) -> list[np.ndarray]:
    return [transposed(array[:, part].reshape(array.shape[0], -1)) for part in range(3)]


def _halves(array: np.ndarray, columns_first: bool) -> np.ndarray:
    """The channels of heads [..., head_dim]: from pairs beside each other to halves, rows before columns."""
    pairs = array.reshape(*array.shape[:-1], 2, -1, 2)  # axis of the grid, frequency, first or second of the pair
    pairs = pairs[..., ::-1, :, :] if columns_first else pairs
    return np.moveaxis(pairs, -1, -3).reshape(array.shape)


def _pairs(array: np.ndarray, columns_first: bool) -> np.ndarray:
    """Inverse of `_halves`."""
    pairs = np.moveaxis(array.reshape(*array.shape[:-1], 2, 2, -1), -3, -1)
    return (pairs[..., ::-1, :, :] if columns_first else pairs).reshape(array.shape)


def rotary(conversion: Conversion, columns_first: bool) -> Conversion:
    """A conversion of queries, keys and values whose rotary positions turn channels that are beside each other.

    Ours turn channel i with channel i + head_dim / 2. Queries and keys are moved in the same way, so that their
    products stay.

    Args:
      conversion: to our [..., 3, heads, head_dim].
      columns_first: whether the first half of a head's channels turns with the column.
    """

    def moved(move: Callable[[np.ndarray, bool], np.ndarray], array: np.ndarray) -> np.ndarray:
        return np.concatenate([move(array[..., :2, :, :], columns_first), array[..., 2:, :, :]], axis=-3)

    return Conversion(
        lambda arrays, shape: moved(_halves, conversion.ours(arrays, shape)),
        lambda array: conversion.theirs(moved(_pairs, array)),
    )


UNCHANGED = Conversion(lambda arrays, shape: arrays[0].reshape(shape), lambda array: [array])
LINEAR = Conversion(lambda arrays, shape: transposed(arrays[0]).reshape(shape), lambda array: [transposed(array)])
"""torch's [out, in] to our [in, out]."""

PATCH_KERNEL = Conversion(_patch_kernel_ours, _patch_kernel_theirs)
"""torch's Conv2d kernel of patches [width, 3, patch, patch] to our [patch * patch * 3, width]."""

QKV = Conversion(_qkv_ours, _qkv_theirs)
"""torch's MultiheadAttention in_proj_weight [3 * width, width] to our [width, 3, heads, head_dim]."""

QKV_BIAS = Conversion(lambda arrays, shape: arrays[0].reshape(shape), lambda array: [array.reshape(-1)])
"""in_proj_bias [3 * width] to our [3, heads, head_dim]."""

SEPARATE_QKV = Conversion(_separate_qkv_ours, _separate_qkv_theirs)
"""Query, key and value in three tensors of torch, each [width, width], to our [width, 3, heads, head_dim]."""

SEPARATE_QKV_BIAS = Conversion(
    lambda arrays, shape: np.stack(arrays).reshape(shape), lambda array: [array[part].reshape(-1) for part in range(3)]
)
"""Their three biases, each [width], to our [3, heads, head_dim]."""

ATTENTION_OUT = Conversion(
    lambda arrays, shape: transposed(arrays[0]).reshape(shape),
    lambda array: [transposed(array.reshape(-1, array.shape[-1]))],
)
"""torch's out_proj.weight [width, width] to our [heads, head_dim, width]."""

ONE_FIRST = Conversion(lambda arrays, shape: arrays[0].reshape(shape), lambda array: [array[None]])
"""Theirs has a first axis of length one: tables [1, rows, width], scalars [1]."""

PROBE = Conversion(lambda arrays, shape: arrays[0].reshape(shape), lambda array: [array[None, None]])
"""Theirs has two: a learned query, or a class token, [1, 1, width]."""
