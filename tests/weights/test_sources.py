"""Checkpoints of every kind of file and folder, told apart by what is in them, and those that are not whole."""

import json
import zipfile
from pathlib import Path

import jax
import msgpack
import numpy as np
import pytest
from flax import serialization, traverse_util
from safetensors.numpy import save_file

from harvest_jax.errors import DataError
from harvest_jax.model.harvest import Harvest
from harvest_jax.weights.files import flax_reader
from harvest_jax.weights.files import open_checkpoint as opening
from harvest_jax.weights.files.open_checkpoint import open_checkpoint
from harvest_jax.weights.files.tensors import BFLOAT16
from harvest_jax.weights.folder import save_model
from tests.helpers.small_model import SMALL
from tests.helpers.torch_files import read_all, write_state_dict

FILES = Path(__file__).parents[1] / "data" / "checkpoints"
ARRAYS = {
    "visual.proj": np.arange(6, dtype=np.float16).reshape(2, 3),
    "logit_scale": np.asarray(np.float32(4.6)),
    "text.weight": np.linspace(0, 1, 5, dtype=np.float32),
}


def same(tensors, arrays):
    assert set(tensors.entries) == set(arrays)
    for name, array in arrays.items():
        found = tensors.read(name)
        assert (tensors.entries[name].shape, tensors.entries[name].dtype) == (array.shape, array.dtype), name
        assert (found.shape, found.dtype) == (array.shape, array.dtype), name
        np.testing.assert_array_equal(found, array, err_msg=name)


def refused(path, message):
    with pytest.raises(DataError, match=message) as raised:
        read_all(open_checkpoint(path))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 700
    return str(raised.value)


# --- single files


def test_the_published_archive_without_its_numbers():
    tensors = open_checkpoint(FILES / "clip_torch1.7.pt")
    assert tensors.kind == "TorchScript archive"
    assert tensors.where == str(FILES / "clip_torch1.7.pt")
    assert tensors.details == {"input_resolution": 8, "context_length": 6, "vocab_size": 24}
    assert len(tensors.entries) == 50
    assert "visual.conv1.weight" in tensors.entries
    assert not set(opening.NUMBERS) & set(tensors.entries)


def test_wrappers_and_prefixes_are_told_and_taken_off():
    tensors = open_checkpoint(FILES / "wrapped.pth")
    assert set(tensors.entries) == {"ln.weight", "conv.weight", "proj", "logit_scale", "half"}
    assert tensors.kind == "torch state_dict (under ['state_dict']), without the prefix module."
    assert tensors.read("conv.weight").dtype == BFLOAT16


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_prefixes(prefix, kind, tmp_path):
    arrays = {prefix + name: array for name, array in ARRAYS.items()}
    path = tmp_path / "model"
    if kind == "torch":
        write_state_dict(path, arrays, inside="model")
    else:
        save_file(arrays, path)
    tensors = open_checkpoint(path)
    same(tensors, ARRAYS)
    assert tensors.kind.endswith(f", without the prefix {prefix}")


def test_a_prefix_of_some_names_stays(tmp_path):
    arrays = {"module.a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    same(open_checkpoint(write_state_dict(tmp_path / "x.pth", arrays)), arrays)


def test_prefixes_without_end_are_left(tmp_path):
    save_file({"module." * 50_000 + "a": np.ones(1)}, tmp_path / "x.safetensors")
    tensors = open_checkpoint(tmp_path / "x.safetensors")
    assert list(tensors.entries) == ["module." * (50_000 - opening.PREFIXES_LIMIT) + "a"]
    assert len(tensors.kind) < 100


def test_numbers_are_only_taken_where_they_are_whole_numbers(tmp_path):
    numbers = {"vocab_size": np.asarray(np.int64(49408))}
    arrays = ARRAYS | {"context_length": np.ones((), np.float32), "input_resolution": np.ones(3, np.int64)}
    tensors = open_checkpoint(write_state_dict(tmp_path / "x.pth", arrays | numbers))
    same(tensors, arrays)
    assert tensors.details == {"vocab_size": 49408}


@pytest.mark.parametrize("name", ["model.safetensors", "renamed.bin", "no_suffix"])
def test_safetensors_whatever_its_name(name, tmp_path):
    save_file(ARRAYS, tmp_path / name, {"format": "pt"})
    tensors = open_checkpoint(tmp_path / name)
    same(tensors, ARRAYS)
    assert tensors.kind == "safetensors"
    assert tensors.details == {"metadata": {"format": "pt"}}


def scenic_tree():
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


# --- folders


def write_json(path, value):
    path.write_text(json.dumps(value))
    return value


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_hugging_face_folders(kind, sharded, tmp_path):
    stem, write = ("model", save_file) if kind == "safetensors" else ("pytorch_model", None)
    if write is None:

        def write(arrays, path):
            write_state_dict(path, arrays)

    if sharded:
        names = list(ARRAYS)
        parts = {f"{stem}-00001-of-00002.{kind}": names[:1], f"{stem}-00002-of-00002.{kind}": names[1:]}
        for file, members in parts.items():
            write({name: ARRAYS[name] for name in members}, tmp_path / file)
        table = {name: file for file, members in parts.items() for name in members}
        write_json(tmp_path / f"{stem}.{kind}.index.json", {"metadata": {"total_size": 1}, "weight_map": table})
    else:
        write(ARRAYS, tmp_path / f"{stem}.{kind}")
    config = write_json(tmp_path / "config.json", {"model_type": "clip"})
    pictures = write_json(tmp_path / "preprocessor_config.json", {"crop_size": 224})
    tensors = open_checkpoint(tmp_path)
    same(tensors, ARRAYS)
    inner = {"safetensors": "safetensors", "bin": "torch state_dict"}[kind] + (" in 2 files" if sharded else "")
    assert tensors.kind == f"Hugging Face folder ({inner})"
    assert tensors.where == str(tmp_path)
    assert tensors.details == {"config": config, "preprocessor_config": pictures}
    if sharded:
        same(open_checkpoint(tmp_path / f"{stem}.{kind}.index.json"), ARRAYS)


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "open_clip_model.safetensors"])
def test_open_clip_folders_that_hold_hugging_face_s_layout_too(name, tmp_path):
    save_file({"other": np.ones(1)}, tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", {"model_type": "clip"})
    config = write_json(tmp_path / "open_clip_config.json", {"model_cfg": {"embed_dim": 4}})
    if name.endswith("bin"):
        write_state_dict(tmp_path / name, ARRAYS)
    else:
        save_file(ARRAYS, tmp_path / name)
    tensors = open_checkpoint(tmp_path)
    same(tensors, ARRAYS)
    assert tensors.kind.startswith("OpenCLIP folder (")
    assert tensors.details["open_clip_config"] == config
    (tmp_path / name).unlink()
    assert open_checkpoint(tmp_path).kind == "Hugging Face folder (safetensors)"


def test_our_own_folder(tmp_path):
    shapes = jax.eval_shape(Harvest(SMALL).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    save_model(tmp_path, SMALL, params, {"made": "here"})
    tensors = open_checkpoint(tmp_path)
    assert tensors.kind == "model folder of this package (safetensors)"
    assert set(tensors.entries) == set(traverse_util.flatten_dict(params, sep="/"))
    assert tensors.details["config"]["origin"] == {"made": "here"}
    assert tensors.details["metadata"] == {"format": "harvest_jax"}


# --- what is not whole


def test_what_is_not_there_or_not_the_file(tmp_path):
    refused(tmp_path / "nowhere", "does not exist")
    (tmp_path / "empty.pt").write_bytes(b"")
    refused(tmp_path / "empty.pt", "is empty")
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    refused(tmp_path / "model.safetensors", "git lfs pull")
    (tmp_path / "page.pt").write_text("<!doctype html>")
    refused(tmp_path / "page.pt", "is no torch file")
    (tmp_path / "page").write_text("<!doctype html>")
    refused(tmp_path / "page", "is no checkpoint that this package knows")
    save_file({}, tmp_path / "nothing.safetensors")
    refused(tmp_path / "nothing.safetensors", "holds no tensors")


def test_folders_without_a_config_or_without_weights(tmp_path):
    refused(tmp_path, "is no folder of a model")
    (tmp_path / "mp_rank_00_model_states.pt").write_bytes(b"x")
    refused(tmp_path, r"name one of its files, mp_rank_00_model_states\.pt for instance")
    write_json(tmp_path / "config.json", {})
    refused(tmp_path, "holds no weights")
    (tmp_path / "config.json").unlink()
    save_file(ARRAYS, tmp_path / "model.safetensors")
    refused(tmp_path, r"holds model\.safetensors but no config\.json: add it, or name the file")
    same(open_checkpoint(tmp_path / "model.safetensors"), ARRAYS)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "a\n\x1b[2J.pt").write_bytes(b"x")
    assert refused(tmp_path / "odd", "name one of its files").isprintable()


@pytest.mark.parametrize("depth", [40, 900])
def test_json_that_is_too_deep_to_be_printed(depth, tmp_path):
    save_file(ARRAYS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"a":' + "[" * depth + "]" * depth + "}")
    refused(tmp_path, "more than 32 deep")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, "\ud800"])
def test_json_files_that_are_none(text, tmp_path):
    save_file(ARRAYS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(tmp_path, r"config\.json (is no JSON|holds no JSON object)")


def test_a_json_file_that_is_too_large(tmp_path, monkeypatch):
    save_file(ARRAYS, tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", {"a": "b" * 100})
    monkeypatch.setattr(opening, "JSON_LIMIT", 50)
    refused(tmp_path, "larger than 50 bytes")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "no weight_map"),
        ({"weight_map": []}, "no weight_map"),
        ({"weight_map": {"a": 3}}, "no weight_map"),
        ({"weight_map": {"a": "../model.safetensors"}}, "leads out"),
        ({"weight_map": {"a": "/etc/passwd"}}, "leads out"),
        ({"weight_map": {"a": ".."}}, "not a file beside it"),
        ({"weight_map": {"a": "x\\..\\y"}}, "leads out"),
        ({"weight_map": {"a": "part-2.safetensors"}}, "names part-2.safetensors"),
        ({"weight_map": {"a": "x" * 5000}}, "not a file beside it"),
        ({"weight_map": {"a": "nul\0"}}, "not a file beside it"),
        ({"weight_map": {"other": "part.safetensors"}}, "other is not in part.safetensors"),
        ({"weight_map": {"a": "model.safetensors.index.json"}}, "not a file beside it"),
        ({"weight_map": {}}, "holds no tensors"),
    ],
)
def test_an_index_that_lies(table, message, tmp_path):
    save_file({"a": np.ones(1)}, tmp_path / "part.safetensors")
    write_json(tmp_path / "model.safetensors.index.json", table)
    refused(tmp_path / "model.safetensors.index.json", message)


def test_names_of_an_index_decide_which_tensors_there_are(tmp_path):
    save_file(ARRAYS, tmp_path / "part.safetensors")
    write_json(tmp_path / "x.index.json", {"weight_map": {"logit_scale": "part.safetensors"}})
    same(open_checkpoint(tmp_path / "x.index.json"), {"logit_scale": ARRAYS["logit_scale"]})


# --- msgpack and npz made to do harm


def array_of(shape, dtype=b"\xa7float32", raw=b"\xc4\x08" + bytes(8), code=1):
    payload = b"\x93" + shape + dtype + raw
    return b"\x81\xa1a" + b"\xc7" + bytes([len(payload), code]) + payload


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x81", "cut short"),
        (b"\x81\xa1a", "cut short"),
        (b"\x81\xa1a\xc6\xff\xff\xff\xff", "cut short"),
        (b"\x81\xa5a", "cut short"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "cut short"),
        (b"\xdf\xff\xff\xff\xff", "cut short"),
        (b"\x81\xa1a\x01\x01", "1 bytes follow"),
        (b"\x81\xa1a\xc1", "begins no value"),
        (b"\x82\xa1a\x01\xa1a\x02", "a key stands there twice"),
        (b"\x82\xa11\x01\x01\x02", "a key stands there twice"),
        (b"\x81\x90\x01", "no text"),
        (b"\x81\xa1a" * 200 + b"\x80", "without end"),
        (b"\x81\xa1a" + b"\x91" * 200 + b"\x80", "without end"),
        (array_of(b"\x91\x03"), "another size"),
        (array_of(b"\x92\x01\x01"), "another size"),
        (array_of(b"\x91\xff"), "without a shape"),
        (array_of(b"\x91\xc3"), "without a shape"),
        (array_of(b"\x02"), "without a shape"),
        (array_of(b"\xdc\x00\x11" + b"\x01" * 17), "17 axes"),
        (array_of(b"\x93\x00" + (b"\xcf" + (1 << 40).to_bytes(8, "big")) * 2, raw=b"\xc4\x00"), "absurd"),
        (array_of(b"\x91\x02", b"\xa6object"), "dtype object"),
        (array_of(b"\x91\x02", b"\xa3|O8"), "dtype"),
        (array_of(b"\x91\x02", b"\x05"), "dtype 5"),
        (array_of(b"\x91\x02", b"\x90"), "dtype|damaged"),
        (array_of(b"\x91\x02", raw=b"\x05"), "another size"),
        (array_of(b"\x91\x02")[:-1] + b"", "cut short"),
        (b"\x81\xa1a\xc7\x02\x01\x93\x90", "cut short|array"),
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
        ({"w": np.ones(1)}, "endless name"),
        ([[0]] * 2000, "without end"),
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
    refused(tmp_path / "m", "without end")


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
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 100000000000000, 100000000000000)}"), "absurd"),
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
    refused(npz_of(tmp_path / "m.zip", "readme.txt", b"x"), "is a zip archive but no torch file")
    refused(npz_of(tmp_path / "n.npz", "../a.npy", npy("")), "leads out of the archive")


@pytest.mark.parametrize("kind", ["safetensors", "msgpack", "npz", "compressed npz"])
def test_random_damage_is_an_error_in_one_line_or_harmless(kind, tmp_path):
    path = tmp_path / "m"
    if kind == "safetensors":
        save_file(ARRAYS, path)
    elif kind == "msgpack":
        path.write_bytes(serialization.msgpack_serialize(scenic_tree()))
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(tmp_path / "m.npz", **ARRAYS)
        path = tmp_path / "m.npz"
    original = path.read_bytes()
    rng = np.random.default_rng(1)
    messages = []
    for trial in range(100):
        raw = bytearray(original)
        for at in rng.integers(0, len(raw) if trial % 2 else min(300, len(raw)), size=rng.integers(1, 5)):
            raw[at] = rng.integers(256)
        if trial % 10 == 0:
            raw = raw[: rng.integers(len(raw))]
        path.write_bytes(raw)
        try:
            read_all(open_checkpoint(path))
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert not any("\n" in message for message in messages)
