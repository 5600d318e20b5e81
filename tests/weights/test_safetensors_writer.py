"""The streaming writer of safetensors, read back by the format's own library."""

import os
import resource
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save

from harvest_jax.errors import DataError
from harvest_jax.weights.files import safetensors_writer
from harvest_jax.weights.files.safetensors_reader import open_safetensors
from harvest_jax.weights.files.safetensors_writer import all_finite, write_safetensors
from harvest_jax.weights.files.tensors import BFLOAT16, TensorSpec
from tests.helpers.checkpoint_files import arrays_of_every_kind, write_arrays


def test_the_library_reads_what_was_written(tmp_path):
    arrays = arrays_of_every_kind()
    path = tmp_path / "model.safetensors"
    write_arrays(path, arrays, {"format": "pt", "note": "ä"})
    found = load_file(path)
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(found[name], array)
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": "pt", "note": "ä"}
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0
    assert len(raw) == 8 + length + sum(array.nbytes for array in arrays.values())
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_the_bytes_are_those_of_the_library_for_one_dtype(tmp_path):
    arrays = {name: np.full((2, 3), index, np.float32) for index, name in enumerate("cab")}
    write_arrays(tmp_path / "ours", arrays, {"k": "v"})
    assert (tmp_path / "ours").read_bytes() == save(arrays, {"k": "v"})


def test_the_bytes_do_not_depend_on_the_order_of_the_names(tmp_path):
    arrays = arrays_of_every_kind()
    write_arrays(tmp_path / "a", arrays)
    write_arrays(tmp_path / "b", dict(reversed(arrays.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_bfloat16_is_the_format_s_bfloat16(tmp_path):
    numbers = np.array([1.0, -2.5, 3e38, 0.0], BFLOAT16)
    write_arrays(tmp_path / "a", {"x": numbers})
    with safe_open(tmp_path / "a", framework="numpy") as file:
        assert file.get_slice("x").get_dtype() == "BF16"
    raw = (tmp_path / "a").read_bytes()
    assert raw.endswith(numbers.tobytes())
    np.testing.assert_array_equal(open_safetensors(tmp_path / "a").read("x"), numbers)


def test_numbers_are_converted_on_the_way(tmp_path):
    arrays = {"x": np.array([0.1, 70_000.0, -3], np.float32)}
    write_arrays(tmp_path / "a", arrays, dtype=BFLOAT16)
    np.testing.assert_array_equal(open_safetensors(tmp_path / "a").read("x"), arrays["x"].astype(BFLOAT16))
    with pytest.raises(DataError, match="x cannot be written: it holds numbers too large for float16"):
        write_arrays(tmp_path / "b", arrays, dtype=np.float16)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, BFLOAT16])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_named(dtype, bad, tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_writer, "CHUNK", 10)  # so that it is in a later piece
    array = np.ones(35, dtype)
    write_arrays(tmp_path / "x", {"fine": array})
    before = (tmp_path / "x").read_bytes()
    spoilt = array.copy()
    spoilt[27] = bad
    with pytest.raises(DataError, match="spoilt cannot be written: it holds numbers that are not finite"):
        write_arrays(tmp_path / "x", {"fine": array, "spoilt": spoilt})
    assert (tmp_path / "x").read_bytes() == before
    assert os.listdir(tmp_path) == ["x"]


def test_finite_numbers_of_bfloat16_by_their_bits():
    every = np.arange(1 << 16, dtype=np.uint16).view(BFLOAT16)
    finite = np.isfinite(every.astype(np.float32))
    assert all_finite(every[finite])
    assert not any(all_finite(every[index : index + 1]) for index in np.flatnonzero(~finite))
    assert all_finite(np.array([1 << 40]))
    assert not all_finite(np.array([np.nan], ml_dtypes.float8_e4m3fn))


def test_pieces_join_to_the_whole(tmp_path, monkeypatch):
    arrays = arrays_of_every_kind()
    write_arrays(tmp_path / "whole", arrays)
    monkeypatch.setattr(safetensors_writer, "CHUNK", 3)
    write_arrays(tmp_path / "pieces", arrays)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "pieces").read_bytes()


def test_a_wrong_shape_and_an_unknown_dtype_are_refused(tmp_path):
    entries = {"x": TensorSpec((2, 3), np.dtype(np.float32))}
    with pytest.raises(DataError, match=r"x cannot be written: it has the shape \(3, 2\), expected \(2, 3\)"):
        write_safetensors(tmp_path / "a", entries, lambda name: np.zeros((3, 2), np.float32), {})
    with pytest.raises(DataError, match="x cannot be written: safetensors has no type for complex64"):
        write_arrays(tmp_path / "a", {"x": np.zeros(2, np.complex64)})
    assert not os.listdir(tmp_path)


def test_a_reader_that_fails_leaves_nothing_behind(tmp_path):
    def read(name):
        if name == "b":
            raise DataError("damaged there")
        return np.zeros(2, np.float32)

    entries = {name: TensorSpec((2,), np.dtype(np.float32)) for name in "abc"}
    with pytest.raises(DataError, match="damaged there"):
        write_safetensors(tmp_path / "model.safetensors", entries, read, {})
    assert not os.listdir(tmp_path)


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    """A limit of the system on the size of files, for this process: a write fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_arrays(tmp_path / "a", {"x": np.zeros(100_000, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not os.listdir(tmp_path)


def test_the_file_is_as_readable_as_any_other(tmp_path):
    write_arrays(tmp_path / "a", {"x": np.zeros(2, np.float32)})
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_one_tensor_at_a_time_is_in_memory(tmp_path):
    size = 1 << 20
    entries = {f"t{index}": TensorSpec((size,), np.dtype(np.float32)) for index in range(30)}
    tracemalloc.start()
    try:
        write_safetensors(tmp_path / "a", entries, lambda name: np.full(size, 0.5, np.float32), {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * 4 * size  # 30 of them are written
    assert (tmp_path / "a").stat().st_size > 30 * 4 * size
