"""A function of rows as compiled programs for batches of a few sizes, on one device or on several."""

import itertools
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from harvest_jax.model.harvest import Params

BATCH_SIZES = (1, 2, 4, 8, 16)  # rows of one call on one device; each is compiled once, a batch is filled up to one
TEXT_LENGTHS = (16, 32, 64)  # tokens of a text in a program; a text that has more gets the whole table of positions


def text_lengths(ids: Int[np.ndarray, "b l"], fixed: bool = False) -> Int[np.ndarray, " b"]:
    """The tokens that each text's program computes: what follows its end token changes nothing.

    It depends on the text alone and not on those beside it, for a program rounds otherwise for another length.

    Args:
      ids: as the tokenizer gives them; the end token has the largest id of all.
      fixed: the tower reads the padding, too (`TextConfig.fixed_length`).
    """
    if fixed:
        return np.full(len(ids), ids.shape[1])
    tokens = ids.argmax(axis=1) + 1
    lengths = np.array([*(length for length in TEXT_LENGTHS if length < ids.shape[1]), ids.shape[1]])
    return lengths[np.searchsorted(lengths, tokens)]


def place(params: Params, devices: Sequence[jax.Device] | None) -> Params:
    """The parameters on a device, or on each of several; None is JAX's default device."""
    if devices is None or len(devices) == 1:
        return jax.device_put(params, devices[0] if devices else None)
    return jax.device_put(params, NamedSharding(_mesh(devices), PartitionSpec()))


class InBatches:
    """Calls a function with rows stacked to batches.

    Rows that one device takes in one call are computed by the program for their number. More are divided among the
    devices: each runs the program of the largest size on its part, so that the number of devices changes no bit.

    Args:
      function: of parameters and of arrays with a row for each item, to one such array.
      devices: as for `place`.
    """

    def __init__(self, function: Callable[..., jax.Array], devices: Sequence[jax.Device] | None) -> None:
        self._program = jax.jit(function)
        self._largest = BATCH_SIZES[-1] * (1 if devices is None else len(devices))
        self._divided = self._program
        if devices is not None and len(devices) > 1:
            rows = PartitionSpec("rows")
            mesh = _mesh(devices)

            def divided(params: Params, *arrays: jax.Array) -> jax.Array:
                specs = (PartitionSpec(), *(rows for _ in arrays))
                return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)(
                    params, *arrays
                )

            self._divided = jax.jit(divided)

    def __call__(
        self, params: Params, rows: Iterable[tuple[np.ndarray, ...]], width: int
    ) -> Float[np.ndarray, "b width"]:
        """The function's rows.

        Args:
          params: of `place`.
          rows: the arrays of each item, read as they are needed.
          width: of the result, for no rows.
        """
        outputs = [np.zeros((0, width), np.float32)]
        several = self._divided is not self._program
        first = jax.tree.map(lambda array: array.addressable_data(0), params) if several else params
        rows = iter(rows)
        while batch := list(itertools.islice(rows, self._largest)):
            count = len(batch)
            alone = count <= BATCH_SIZES[-1]  # the first device's part
            size = min(size for size in BATCH_SIZES if size >= count) if alone else self._largest
            batch += batch[-1:] * (size - count)
            arrays = [np.stack(column) for column in zip(*batch, strict=True)]
            del batch
            embedded = self._program(first, *arrays) if alone else self._divided(params, *arrays)
            outputs.append(np.asarray(embedded)[:count])
        return np.concatenate(outputs)


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
    return Mesh(np.array(devices), ("rows",))
