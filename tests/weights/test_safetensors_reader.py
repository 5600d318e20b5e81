"""The reader of safetensors, on files of the format's own library and on damaged ones."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from harvest_jax.errors import DataError
from harvest_jax.weights.files.safetensors_reader import DTYPES, HEADER_LIMIT, open_safetensors
from harvest_jax.weights.files.tensors import TensorSpec
from tests.helpers.checkpoint_files import arrays_of_every_kind, write_arrays


def test_our_reader_reads_every_dtype_of_the_library_and_ours(tmp_path):
    arrays = arrays_of_every_kind()
    save_file(
        {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}, tmp_path / "l"
    )
    every = {name: np.arange(6).reshape(2, 3).astype(dtype) for name, dtype in DTYPES.items()}
    write_arrays(tmp_path / "o", every)
    for path, wanted in ((tmp_path / "l", arrays), (tmp_path / "o", every)):
        tensors = open_safetensors(path)
        assert tensors.kind == "safetensors"
        assert set(tensors.entries) == set(wanted)
        for name, array in wanted.items():
            found = tensors.read(name)
            assert tensors.entries[name] == TensorSpec(array.shape, array.dtype)
            assert (found.shape, found.dtype) == (array.shape, array.dtype)
            assert found.tobytes() == array.tobytes()
            assert found.size == 0 or not found.flags.writeable


def header_file(path, header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"", b""),
        (b"{", b""),
        (b"[]", b""),
        (b"3", b""),
        (b"\xff\xfe", b""),
        (b"[" * 100_000, b""),
        ({"a": 3}, b""),
        ({"a": []}, b""),
        ({"a": {}}, b""),
        ({"a": GOOD}, bytes(7)),
        ({"a": GOOD}, bytes(9)),
        ({"a": GOOD | {"dtype": "F4"}}, bytes(8)),
        ({"a": GOOD | {"dtype": []}}, bytes(8)),
        ({"a": GOOD | {"shape": [3]}}, bytes(8)),
        ({"a": GOOD | {"shape": [-2]}}, bytes(8)),
        ({"a": GOOD | {"shape": [2.0]}}, bytes(8)),
        ({"a": GOOD | {"shape": [True, 2]}}, bytes(8)),
        ({"a": GOOD | {"shape": 2}}, bytes(8)),
        ({"a": GOOD | {"dtype": [[[]]]}}, bytes(8)),
        ({"a": GOOD | {"shape": [1] * 17, "data_offsets": [0, 4]}}, bytes(4)),
        ({"a": GOOD | {"shape": [0, 1 << 47, 1 << 47], "data_offsets": [0, 0]}}, b""),  # numpy makes no such array
        ({"a": GOOD | {"data_offsets": [8, 0]}}, bytes(8)),
        ({"a": GOOD | {"data_offsets": [-8, 0]}}, bytes(8)),
        ({"a": GOOD | {"data_offsets": [0]}}, bytes(8)),
        ({"a": GOOD | {"data_offsets": [8, 16]}}, bytes(16)),  # a gap
        ({"a": GOOD, "b": GOOD}, bytes(8)),  # an overlap
        ({"a": GOOD | {"shape": [1 << 62], "data_offsets": [0, 1 << 64]}}, bytes(8)),
        (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
         bytes(8)),
        ({"__metadata__": [1], "a": GOOD}, bytes(8)),
    ],
)  # fmt: skip
def test_headers_that_lie(header, body, tmp_path):
    with pytest.raises(DataError, match="cannot be read as safetensors") as raised:
        open_safetensors(header_file(tmp_path / "x", header, body))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


def test_numbers_of_thousands_of_digits_are_not_multiplied(tmp_path):
    """400 of them took 19 s."""
    for count, message in ((17, "17 axes"), (10, "too large")):
        header = {"a": {"dtype": "F32", "shape": [int("9" * 4200)] * count, "data_offsets": [0, 0]}}
        with pytest.raises(DataError, match=message):
            open_safetensors(header_file(tmp_path / "x", header))


def test_the_header_is_bounded(tmp_path):
    header = b"{}".ljust(HEADER_LIMIT + 1)
    assert HEADER_LIMIT <= 10_000_000  # of which JSON makes 26 times as much in memory
    with pytest.raises(DataError, match=f"its header is larger than {HEADER_LIMIT} bytes"):
        open_safetensors(header_file(tmp_path / "x", header))


def test_names_in_messages_are_plain_and_short(tmp_path):
    for name in ("a\n\x1b[2J\ud800", "a" * 10_000, "\N{GRINNING FACE}" * 1000):
        with pytest.raises(DataError, match="does not match") as raised:
            open_safetensors(header_file(tmp_path / "x", {name: GOOD | {"shape": [3]}}, bytes(8)))
        text = str(raised.value).removeprefix(str(tmp_path))
        assert text.isprintable()
        assert len(text) < 200


def test_a_truncated_file(tmp_path):
    write_arrays(tmp_path / "x", arrays_of_every_kind())
    raw = (tmp_path / "x").read_bytes()
    for size in (0, 5, 8, 100, len(raw) - 1):
        (tmp_path / "x").write_bytes(raw[:size])
        with pytest.raises(DataError, match="cannot be read as safetensors"):
            open_safetensors(tmp_path / "x")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        open_safetensors(tmp_path / "y")
    (tmp_path / "x").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(DataError, match="does not fit"):
        open_safetensors(tmp_path / "x")


def test_a_file_that_shrinks_after_it_was_opened(tmp_path):
    write_arrays(tmp_path / "x", {"a": np.ones(1000, np.float32)})
    tensors = open_safetensors(tmp_path / "x")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:500])
    with pytest.raises(DataError, match="cannot be read at byte"):
        tensors.read("a")
