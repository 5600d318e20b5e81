"""Flax msgpack and npz files, sound ones and damaged or malicious ones."""

import zipfile
from pathlib import Path

import msgpack
import numpy as np
import pytest
from flax import serialization, traverse_util

from harvest_jax.weights.files import flax_reader
from harvest_jax.weights.files.open_checkpoint import open_checkpoint
from harvest_jax.weights.files.tensors import BFLOAT16
from tests.helpers.checkpoint_files import refused, same, scenic_tree


@pytest.mark.parametrize("chunk", [1 << 30, 64])
def test_flax_msgpack(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", chunk)  # arrays in pieces, as over 1 GiB
    tree = scenic_tree()
    raw = serialization.msgpack_serialize(tree)
    assert (b"__msgpack_chunked_array__" in raw) == (chunk == 64)
    (tmp_path / "checkpoint_70000").write_bytes(raw)
    tensors = open_checkpoint(tmp_path / "checkpoint_70000")
    assert tensors.kind == "Flax msgpack, without the prefix params/"
    flat = traverse_util.flatten_dict(serialization.msgpack_restore(raw), sep="/")
    same(tensors, {name.removeprefix("params/"): leaf for name, leaf in flat.items() if name.startswith("params/")})
    plain = {name: leaf for name, leaf in tree.items() if isinstance(leaf, int | float | str)}
    assert tensors.details == {"beside": plain}


@pytest.mark.parametrize("place", [("opt_state/0/mu", "params"), ("optimizer/state", "optimizer/target/params")])
def test_the_parameters_of_a_flax_training_state(place, tmp_path):
    """Scenic's TrainState, and that of flax.optim before it: the moments of Adam have the parameters' names too."""
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    flat = {f"{name}/kernel": kernel + index for index, name in enumerate(place)}
    tree = traverse_util.unflatten_dict({tuple(name.split("/")): leaf for name, leaf in flat.items()})
    tree["global_step"] = 3
    (tmp_path / "checkpoint_3").write_bytes(serialization.msgpack_serialize(tree))
    tensors = open_checkpoint(tmp_path / "checkpoint_3")
    same(tensors, {"kernel": kernel + 1})
    assert "the parameters of a training state" in tensors.kind
    assert tensors.details["beside"]["global_step"] == 3


@pytest.mark.parametrize("pieces", [1, 2])
def test_the_shape_of_an_array_in_pieces(pieces, tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    chunks = {str(index): part for index, part in enumerate(np.split(array.ravel(), pieces))}
    tree = {"w": {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 3}, "chunks": chunks}}
    (tmp_path / "m").write_bytes(serialization.msgpack_serialize(tree))
    same(open_checkpoint(tmp_path / "m"), {"w": array})


def test_large_maps_texts_and_arrays_of_msgpack(tmp_path):
    tree = {"x" * 200: {f"{index:05d}": np.full(index % 300, index, np.int32) for index in range(400)}}
    tree["long" * 100_00] = np.zeros(70_000, np.uint8)
    (tmp_path / "m.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    tensors = open_checkpoint(tmp_path / "m.msgpack")
    assert len(tensors.entries) == 401
    for index in (0, 1, 17, 255, 256, 299):
        np.testing.assert_array_equal(tensors.read(f"{'x' * 200}/{index:05d}"), np.full(index, index))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(save, tmp_path):
    arrays = {
        "params/visual/proj": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "half": np.arange(5).astype(BFLOAT16),
        "scalar": np.asarray(np.float32(2)),
        "empty": np.zeros((0, 3)),
        "step:0": np.arange(3),
    }
    save(tmp_path / "m.npz", **arrays)
    tensors = open_checkpoint(tmp_path / "m.npz")
    assert tensors.kind == "npz"
    same(tensors, arrays)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions_of_npy(version, tmp_path):
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array(member, array, version)
    same(open_checkpoint(tmp_path / "m.npz"), {"a": array})


def array_of(shape, dtype=b"\xa7float32", raw=b"\xc4\x08" + bytes(8), code=1):
    payload = b"\x93" + shape + dtype + raw
    return b"\x81\xa1a" + b"\xc7" + bytes([len(payload), code]) + payload


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x81", "it is incomplete"),
        (b"\x81\xa1a", "it is incomplete"),
        (b"\x81\xa1a\xc6\xff\xff\xff\xff", "it is incomplete"),
        (b"\x81\xa5a", "it is incomplete"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "it is incomplete"),
        (b"\xdf\xff\xff\xff\xff", "it is incomplete"),
        (b"\x81\xa1a\x01\x01", "1 bytes follow"),
        (b"\x81\xa1a\xc1", "no value begins at byte"),
        (b"\x82\xa1a\x01\xa1a\x02", "a key is there twice"),
        (b"\x82\xa11\x01\x01\x02", "a key is there twice"),
        (b"\x81\x90\x01", "not a text"),
        (b"\x81\xa1a" * 200 + b"\x80", "nested too deeply or too many"),
        (b"\x81\xa1a" + b"\x91" * 200 + b"\x80", "nested too deeply or too many"),
        (array_of(b"\x91\x03"), "another size"),
        (array_of(b"\x92\x01\x01"), "another size"),
        (array_of(b"\x91\xff"), "without a shape"),
        (array_of(b"\x91\xc3"), "without a shape"),
        (array_of(b"\x02"), "without a shape"),
        (array_of(b"\xdc\x00\x11" + b"\x01" * 17), "17 axes"),
        (array_of(b"\x93\x00" + (b"\xcf" + (1 << 40).to_bytes(8, "big")) * 2, raw=b"\xc4\x00"), "too large"),
        (array_of(b"\x91\x02", b"\xa6object"), "dtype object"),
        (array_of(b"\x91\x02", b"\xa3|O8"), "dtype"),
        (array_of(b"\x91\x02", b"\x05"), "dtype 5"),
        (array_of(b"\x91\x02", b"\x90"), "dtype|damaged"),
        (array_of(b"\x91\x02", raw=b"\x05"), "another size"),
        (array_of(b"\x91\x02")[:-1] + b"", "it is incomplete"),
        (b"\x81\xa1a\xc7\x02\x01\x93\x90", "incomplete|array"),
        (b"\x81\xa1a\xd4\x01\x80", "array without"),
        (b"\x81\xa1a\xd4\x07\x80", "holds no tensors"),  # an extension of somebody else
        (b"\x81\xb9__msgpack_chunked_array__\xc3", "in pieces"),
        (b"\x81\xa1a\x81\xb9__msgpack_chunked_array__\xc3", "in pieces"),
        (b"\x81\xa1a\x83\xb9__msgpack_chunked_array__\xc3\xa5shape\x80\xa6chunks\x80", "in pieces"),
        (b"\x81\xa1a\x83\xb9__msgpack_chunked_array__\xc3\xa5shape\x81\xa10\x02\xa6chunks\x81\xa10\x01", "in pieces"),
        (b"\x81\xa1a\x83\xb9__msgpack_chunked_array__\xc3\xa5shape\x81\xa10\x03\xa6chunks\x81\xa10"
         + array_of(b"\x91\x02")[3:], "do not fit together"),
    ],
)  # fmt: skip
def test_msgpack_that_lies(raw, message, tmp_path):
    (tmp_path / "m.msgpack").write_bytes(raw)
    refused(tmp_path / "m.msgpack", message)


def test_an_array_in_pieces_of_too_many_axes(tmp_path):
    chunked = {"__msgpack_chunked_array__": True, "chunks": {"0": np.ones(1)}}
    tree = {"a": chunked | {"shape": {str(axis): 1 for axis in range(17)}}}
    (tmp_path / "m").write_bytes(serialization.msgpack_serialize(tree))
    refused(tmp_path / "m", "17 axes")


def test_names_of_msgpack_are_bounded(tmp_path, monkeypatch):
    assert flax_reader.NAMES_LIMIT <= 64 << 20
    monkeypatch.setattr(flax_reader, "NAMES_LIMIT", 1 << 20)
    for value, message in (
        ({"w": np.ones(1)}, "too long"),
        ([[0]] * 2000, "nested too deeply or too many"),
        ([[]] * 2000, "holds no tensors"),
    ):
        tree = {"k" * 1000: {"k" * 1000: value}}
        (tmp_path / "m").write_bytes(msgpack.packb(tree, default=serialization._msgpack_ext_pack, strict_types=True))
        refused(tmp_path / "m", message)


def test_the_smallest_msgpack_array(tmp_path):
    (tmp_path / "m").write_bytes(array_of(b"\x91\x02"))
    same(open_checkpoint(tmp_path / "m"), {"a": np.zeros(2, np.float32)})


def test_values_of_msgpack_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(flax_reader, "VALUES_LIMIT", 50)
    (tmp_path / "m").write_bytes(b"\x81\xa1a\xdc\x00\x64" + bytes(100))
    refused(tmp_path / "m", "nested too deeply or too many")


def npz_of(path, name, content, packed=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr(name, content)
    return path


def npy(header, body=b""):
    text = header.encode().ljust(70) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


class Harm:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_a_pickled_array_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "m.npz", a=np.array([Harm()], object))
    refused(tmp_path / "m.npz", "its array a is pickled")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no header"),
        (b"\x93NUMPY\x01\x00", "has no header"),
        (b"\x93NUMPY\x03\x00\x02\x00\x00\x00{}", "has no header"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", bytes(8)), "another size"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}", bytes(8)), "dtype|no header"),
        (npy("{'descr': '>f4', 'fortran_order': False, 'shape': (2,)}", bytes(8)), "dtype >f4"),
        (npy("{'descr': '<U2', 'fortran_order': False, 'shape': (1,)}", bytes(8)), "dtype <U2"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 100000000000000, 100000000000000)}"), "too large"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1, " * 17 + ")}", bytes(4)), "17 axes"),
        (npy("{'descr': '|V3', 'fortran_order': False, 'shape': (1,)}", bytes(3)), "dtype"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", bytes(8)), "pickled"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}+__import__('os')", bytes(8)), "has no header"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}", bytes(8)), "another size"),
        (npy("(" * 60, bytes(8)), "has no header"),
    ],
)
@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_npz_that_lies(content, message, packed, tmp_path):
    refused(npz_of(tmp_path / "m.npz", "a.npy", content, packed), message)


def test_an_npz_bomb(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "m.npz", a=np.zeros(3_000_000, np.float32))
    assert (tmp_path / "m.npz").stat().st_size < 50_000
    assert open_checkpoint(tmp_path / "m.npz").entries["a"].shape == (3_000_000,)
    monkeypatch.setattr(flax_reader, "UNPACKED_LIMIT", 1 << 20)
    refused(tmp_path / "m.npz", "compressed and larger than 1048576 bytes")


def test_other_zip_archives(tmp_path):
    refused(npz_of(tmp_path / "m.zip", "readme.txt", b"x"), "is a zip archive but not a torch file")
    refused(npz_of(tmp_path / "n.npz", "../a.npy", npy("")), "leads out of the archive")
