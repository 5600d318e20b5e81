"""Checkpoints of every kind of file and folder, recognised by their content, and incomplete or damaged ones."""

import json

import jax
import numpy as np
import pytest
from flax import serialization, traverse_util
from safetensors.numpy import save_file

from harvest_jax.errors import DataError
from harvest_jax.model.harvest import Harvest
from harvest_jax.weights.files import open_checkpoint as opening
from harvest_jax.weights.files.open_checkpoint import open_checkpoint
from harvest_jax.weights.files.tensors import BFLOAT16
from harvest_jax.weights.folder import save_model
from tests.helpers.checkpoint_files import ARRAYS, FILES, refused, same, scenic_tree
from tests.helpers.small_model import SMALL
from tests.helpers.torch_files import read_all, write_state_dict


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


def test_what_is_not_there_or_not_the_file(tmp_path):
    refused(tmp_path / "nowhere", "does not exist")
    (tmp_path / "empty.pt").write_bytes(b"")
    refused(tmp_path / "empty.pt", "is empty")
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    refused(tmp_path / "model.safetensors", "git lfs pull")
    (tmp_path / "page.pt").write_text("<!doctype html>")
    refused(tmp_path / "page.pt", "is not a torch file")
    (tmp_path / "page").write_text("<!doctype html>")
    refused(tmp_path / "page", "is of no known format")
    save_file({}, tmp_path / "nothing.safetensors")
    refused(tmp_path / "nothing.safetensors", "holds no tensors")


def test_folders_without_a_config_or_without_weights(tmp_path):
    refused(tmp_path, "is not the folder of a model")
    (tmp_path / "mp_rank_00_model_states.pt").write_bytes(b"x")
    refused(tmp_path, r"give one of its files, such as mp_rank_00_model_states\.pt")
    write_json(tmp_path / "config.json", {})
    refused(tmp_path, "holds no weights")
    (tmp_path / "config.json").unlink()
    save_file(ARRAYS, tmp_path / "model.safetensors")
    refused(tmp_path, r"holds model\.safetensors but no config\.json: add it, or give the file")
    same(open_checkpoint(tmp_path / "model.safetensors"), ARRAYS)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "a\n\x1b[2J.pt").write_bytes(b"x")
    assert refused(tmp_path / "odd", "give one of its files").isprintable()


@pytest.mark.parametrize("depth", [40, 900])
def test_json_that_is_too_deep_to_be_printed(depth, tmp_path):
    save_file(ARRAYS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"a":' + "[" * depth + "]" * depth + "}")
    refused(tmp_path, "more than 32 deep")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, "\ud800"])
def test_json_files_that_are_none(text, tmp_path):
    save_file(ARRAYS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(tmp_path, r"config\.json (is not JSON|holds no JSON object)")


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
