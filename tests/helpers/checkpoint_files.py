"""What the tests of readers share: a few arrays, the committed files, and how a file is compared or refused."""

from pathlib import Path

import numpy as np
import pytest

from harvest_jax.errors import DataError
from harvest_jax.weights.files.open_checkpoint import open_checkpoint
from harvest_jax.weights.files.safetensors_writer import write_safetensors
from harvest_jax.weights.files.tensors import BFLOAT16, TensorSpec
from tests.helpers.torch_files import read_all

FILES = Path(__file__).parents[1] / "data" / "checkpoints"
ARRAYS = {
    "visual.proj": np.arange(6, dtype=np.float16).reshape(2, 3),
    "logit_scale": np.asarray(np.float32(4.6)),
    "text.weight": np.linspace(0, 1, 5, dtype=np.float32),
}


def same(tensors, arrays):
    """Check names, shapes, dtypes and numbers."""
    assert set(tensors.entries) == set(arrays)
    for name, array in arrays.items():
        found = tensors.read(name)
        assert (tensors.entries[name].shape, tensors.entries[name].dtype) == (array.shape, array.dtype), name
        assert (found.shape, found.dtype) == (array.shape, array.dtype), name
        np.testing.assert_array_equal(found, array, err_msg=name)


def refused(path, message):
    """The text of the DataError with which a checkpoint is refused: one line that matches `message`."""
    with pytest.raises(DataError, match=message) as raised:
        read_all(open_checkpoint(path))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 700
    return str(raised.value)


def arrays_of_every_kind():
    """Arrays of several dtypes, ranks and layouts."""
    rng = np.random.default_rng(0)
    return {
        "a/kernel": rng.normal(size=(3, 5)).astype(np.float32),
        "a/half": rng.normal(size=7).astype(np.float16),
        "turned": rng.normal(size=(4, 6)).astype(np.float32).T,
        "every_second": np.arange(20, dtype=np.int64)[::2],
        "backwards": np.arange(6, dtype=np.float64)[::-1],
        "one": np.asarray(np.float32(2.5)),
        "none": np.zeros((0, 4), np.float16),
        "yes": np.array([True, False, True]),
        "bytes": np.arange(5, dtype=np.uint8),
        "größe 😀 \"'\\": np.ones(1, np.int32),
    }


def entries_of(arrays, dtype=None):
    """Their shapes, and their dtypes or another one."""
    return {name: TensorSpec(array.shape, np.dtype(dtype or array.dtype)) for name, array in arrays.items()}


def write_arrays(path, arrays, metadata=None, dtype=None):
    """A safetensors file of arrays."""
    write_safetensors(path, entries_of(arrays, dtype), arrays.__getitem__, metadata or {})


def scenic_tree():
    """A tree as Scenic saves it: parameters, and other values that are to be left out."""
    rng = np.random.default_rng(0)
    return {
        "params": {
            "visual": {"proj": {"kernel": rng.normal(size=(5, 7)).astype(np.float32)}},
            "resblocks.0": {"b": np.zeros((0, 3))},
            "half": rng.normal(size=9).astype(BFLOAT16),
            "logit_scale": np.float32(3),
            "long": np.arange(101, dtype=np.float16).reshape(1, 101),
            "list": {"0": np.ones(1, np.int8), "1": np.ones(2, np.int8)},
        },
        "opt_state": {},
        "global_step": 70_000,
        "rate": 0.5,
        "minus": -5,
        "very_minus": -70_000,
        "big": 1 << 40,
        "flag": True,
        "nothing": None,
        "complex": 1j,
        "name" * 20: "text" * 20,
    }  # fmt: skip
