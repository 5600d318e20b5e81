"""What files of other people hold beside or around a model: other classes, averages, wrappers, other folders."""

import argparse
import collections
import datetime
import enum
import json
import pickle
import re

import numpy as np
import pytest
from flax import serialization, traverse_util
from safetensors.numpy import save_file

from harvest_jax import cli
from harvest_jax.errors import ConfigError, DataError, HarvestError
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.weights.families.family import Overrides
from harvest_jax.weights.families.hugging_face import HUGGING_FACE
from harvest_jax.weights.families.openai import OPENAI
from harvest_jax.weights.families.recognise import recognised
from harvest_jax.weights.files.open_checkpoint import open_checkpoint
from harvest_jax.weights.folder import load_model
from harvest_jax.weights.import_checkpoint import import_checkpoint
from harvest_jax.weights.new_output import described_errors
from tests.helpers.checkpoint_tensors import IMAGE, arrays_of, of_family
from tests.helpers.torch_files import Call, Storages, instructions, pickled, write_archive, write_state_dict

GELU = Overrides(activation="gelu")
ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


class Kind(enum.Enum):
    """An enumeration of some program."""

    A = 1


# What torch.save leaves of them: the standard library's own pickles, protocol 2, spliced into an archive.
BESIDE = {
    "argparse.Namespace": argparse.Namespace(lr=1e-4, layers=[1, 2], inner=argparse.Namespace(a=1)),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "Counter": collections.Counter("abca"),
    "datetime": datetime.datetime(2026, 11, 30),
    "frozenset": frozenset({1, 2}),
    "numpy array": np.arange(4),
    "numpy generator": np.random.default_rng(0),
    "random state": np.random.RandomState(0).get_state(),
    "a key that is a member": {Kind.A: 1},
    "complex": 1 + 2j,
}


@pytest.mark.parametrize("name", BESIDE)
def test_values_beside_the_model_are_left_out(name, tmp_path):
    storages = Storages()
    value = pickle.dumps(BESIDE[name], 2)[2:-1]
    path = write_archive(tmp_path / "x.pth", {"args": value, "model": {"a": storages.tensor(ARRAY)}}, storages.raw)
    tensors = open_checkpoint(path)
    np.testing.assert_array_equal(tensors.read("a"), ARRAY)


EASY = b"ceasydict\nEasyDict\n)\x81(" + instructions("lr") + instructions(0.1) + b"u" + instructions({"lr": 0.1}) + b"b"


def test_an_easydict_opens_and_is_told(tmp_path):
    """InternVideo's training files: an easydict.EasyDict, a dict with attributes, beside the model."""
    storages = Storages()
    tree = {"model": {"a": storages.tensor(ARRAY)}, "config": EASY, "epoch": 3}
    tensors = open_checkpoint(write_archive(tmp_path / "x.pth", tree, storages.raw))
    (note,) = tensors.details["notes"]
    assert "values of easydict.EasyDict" in note
    assert "nothing of them was run" in note
    assert tensors.details["beside"] == {"epoch": 3}


def test_nothing_is_run_even_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storages = Storages()
    tree = {"model": {"a": storages.tensor(ARRAY)}, "x": Call("os.system", ("touch ran",))}
    path = write_archive(tmp_path / "x.pth", tree, storages.raw)
    assert "os.system" in open_checkpoint(path).details["notes"][0]
    assert not (tmp_path / "ran").exists()
    whole = pickled({"model": Call("models.viclip.ViCLIP", ())})
    with pytest.raises(DataError, match=r"holds no tensors: its pickle uses models\.viclip\.ViCLIP"):
        open_checkpoint(write_archive(tmp_path / "whole.pth", whole, {}))


@pytest.mark.parametrize(
    ("keys", "taken", "note"),
    [
        (("model", "model_ema"), "model", "'model' was taken, not 'model_ema'"),
        (("state_dict", "ema"), "state_dict", "'state_dict' was taken, not 'ema'"),
        (("model_ema",), "model_ema", "only 'model_ema', a moving average"),
        (("module_ema", "optimizer"), "module_ema", "only 'module_ema'"),
    ],
)
def test_which_of_several_models_was_taken(keys, taken, note, tmp_path):
    storages = Storages()
    tree = {key: {"a": storages.tensor(ARRAY + number)} for number, key in enumerate(keys)}
    tensors = open_checkpoint(write_archive(tmp_path / "x.pth", tree, storages.raw))
    np.testing.assert_array_equal(tensors.read("a"), ARRAY + keys.index(taken))
    assert note in tensors.details["notes"][0]


@pytest.mark.parametrize("infix", ["_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod."])
def test_names_of_wrapping_modules_within_a_name(infix, tmp_path):
    arrays = {f"visual.{infix}conv.weight": ARRAY, "b": ARRAY}
    tensors = open_checkpoint(write_state_dict(tmp_path / "x.pth", arrays))
    assert set(tensors.entries) == {"visual.conv.weight", "b"}
    assert infix in tensors.kind
    with pytest.raises(DataError, match="holds a tensor twice"):
        open_checkpoint(write_state_dict(tmp_path / "2.pth", arrays | {"visual.conv.weight": ARRAY}))
    with pytest.raises(DataError, match="FULL_STATE_DICT"):
        open_checkpoint(write_state_dict(tmp_path / "3.pth", {"a._flat_param": ARRAY}))


@pytest.mark.parametrize("prefix", ["model.", "clip.", "model.clip."])
@pytest.mark.parametrize("others", [{}, {"loss.weight": ARRAY, "sim_header.layers": ARRAY}])
def test_a_clip_in_a_part_of_a_program(prefix, others, tmp_path):
    """Lightning's `model.`, CLIP4Clip's `clip.`, alone and beside other tensors."""
    clip = arrays_of(of_family(OPENAI))
    save_file({f"{prefix}{name}": array for name, array in clip.items()} | others, tmp_path / "x.safetensors")
    family, tensors = recognised(open_checkpoint(tmp_path / "x.safetensors"))
    assert family is OPENAI
    assert set(tensors.entries) == set(clip)
    np.testing.assert_array_equal(tensors.read("visual.proj"), clip["visual.proj"])
    assert bool(tensors.details.get("notes")) == bool(others)
    if others:
        assert f"below {prefix}; 2 other tensors were left out: " in tensors.details["notes"][0]


def test_a_flax_clip_of_transformers_is_the_torch_one(tmp_path):
    """FlaxCLIPModel's names and layouts, by hand."""
    torch = arrays_of(of_family(HUGGING_FACE))
    flax = {}
    for name, array in torch.items():
        *way, leaf = name.split(".")
        if leaf == "weight" and way[-1] in ("token_embedding", "position_embedding"):
            leaf = "embedding"
        elif leaf == "weight" and array.ndim == 1:
            leaf = "scale"
        elif leaf == "weight":
            leaf, array = "kernel", array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
        flax["/".join((*way, leaf))] = np.ascontiguousarray(array)
    for form in ("torch", "flax"):
        folder = tmp_path / form
        folder.mkdir()
        config = {
            "model_type": "clip",
            "vision_config": {"num_attention_heads": 2, "image_size": 12},
            "text_config": {"num_attention_heads": 1},
        }
        (folder / "config.json").write_text(json.dumps(config))
        pictures = {"size": 12, "crop_size": 12}
        (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    save_file(torch, tmp_path / "torch/model.safetensors")
    tree = traverse_util.unflatten_dict(flax, sep="/")
    (tmp_path / "flax/flax_model.msgpack").write_bytes(serialization.to_bytes(tree))
    for form in ("torch", "flax"):
        done = import_checkpoint(tmp_path / form, tmp_path / f"out_{form}")
        assert done["family"] == "Hugging Face CLIP"
    ours, theirs = (load_model(tmp_path / f"out_{form}") for form in ("torch", "flax"))
    assert ours[0] == theirs[0] == IMAGE
    flat, other = (traverse_util.flatten_dict(model[1], sep="/") for model in (ours, theirs))
    for name, array in flat.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_nested_folders_open_or_say_what_to_give(tmp_path):
    arrays = arrays_of(of_family(HUGGING_FACE))

    def model(folder):
        folder.mkdir(parents=True)
        save_file(arrays, folder / "model.safetensors")
        (folder / "config.json").write_text('{"model_type": "clip"}')

    model(tmp_path / "st/0_CLIPModel")
    (tmp_path / "st/modules.json").write_text("[]")
    assert open_checkpoint(tmp_path / "st").where == str(tmp_path / "st/0_CLIPModel")
    model(tmp_path / "hub/models--openai--clip/snapshots/abc")
    for folder in ("hub", "hub/models--openai--clip"):
        assert open_checkpoint(tmp_path / folder).where.endswith("snapshots/abc")
    model(tmp_path / "hub/models--openai--clip/snapshots/def")
    with pytest.raises(
        DataError, match=r"holds the folders of 2 models: give one of them \(snapshots/abc, snapshots/def\)"
    ):
        open_checkpoint(tmp_path / "hub/models--openai--clip")


def test_files_of_tensorflow_are_named(tmp_path):
    (tmp_path / "tf_model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"HDF5 file.*get the same model as model\.safetensors"):
        open_checkpoint(tmp_path / "tf_model.h5")
    with pytest.raises(DataError, match=r"give one of its files, such as tf_model\.h5"):
        open_checkpoint(tmp_path)


def test_an_unknown_family_says_what_it_looks_like(tmp_path):
    half = {name: array for name, array in arrays_of(of_family(HUGGING_FACE)).items() if name.startswith("vision")}
    save_file(half, tmp_path / "x.safetensors")
    with pytest.raises(
        DataError, match=r"looks most like Hugging Face CLIP, of whose 46 kinds of tensors \d+ are there"
    ):
        recognised(open_checkpoint(tmp_path / "x.safetensors"))
    save_file({"a": ARRAY}, tmp_path / "y.safetensors")
    with pytest.raises(DataError, match="none of its tensors has the name of any"):
        recognised(open_checkpoint(tmp_path / "y.safetensors"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("visual.blocks.0.attn.qkv.weight", "EVA-CLIP's g/14"),
        ("visual.trunk.pos_embed", "get SigLIP in transformers' form"),
    ],
)
def test_other_image_towers_are_refused_by_name(name, message, tmp_path):
    save_file(arrays_of(of_family(OPENAI)) | {name: ARRAY}, tmp_path / "x.safetensors")
    with pytest.raises(DataError, match=message):
        import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out", GELU)


@pytest.mark.parametrize(
    ("model_type", "message"), [("chinese_clip", "Chinese vocabulary"), ("metaclip_2", "XLM-V"), ("blip", "not 'clip'")]
)
def test_other_models_of_transformers_are_refused_by_name(model_type, message, tmp_path):
    save_file(arrays_of(of_family(HUGGING_FACE)), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(DataError, match=message):
        import_checkpoint(tmp_path, tmp_path / "out")


def hugging_face(folder, **config):
    """A folder of transformers' CLIP, small."""
    folder.mkdir(parents=True)
    save_file(arrays_of(of_family(HUGGING_FACE)), folder / "model.safetensors")
    vision = {"num_attention_heads": 2, "image_size": 12}
    values = {"model_type": "clip", "vision_config": vision, "text_config": {"num_attention_heads": 1}, **config}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 12, "crop_size": 12}))
    return folder


def test_a_folder_with_code_of_its_own_is_refused(tmp_path):
    folder = hugging_face(tmp_path / "clip", auto_map={"AutoModel": "someone/repo--modeling.Model"})
    with pytest.raises(DataError, match=r"names code of its own \(auto_map .*someone/repo--modeling.Model"):
        import_checkpoint(folder, tmp_path / "out")


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json"])
def test_a_tokenizer_that_is_not_clips_is_refused(name, tmp_path):
    """The file of CLIP's own passes, with other names of its special tokens too."""
    folder = hugging_face(tmp_path / "clip")
    vocabulary = Tokenizer(600).hugging_face()["model"]["vocab"]
    vocabulary = {word.replace("startoftext", "start_of_text"): number for word, number in vocabulary.items()}

    def write(words):
        found = {"model": {"vocab": words}} if name == "tokenizer.json" else words
        (folder / name).write_text(json.dumps(found))

    write(vocabulary)
    import_checkpoint(folder, tmp_path / "out")
    for words in (vocabulary | {"a": vocabulary["b"], "b": vocabulary["a"]}, {"a": 1}, {}):
        write(words)
        with pytest.raises(DataError, match=f"{name} is not CLIP's tokenizer"):
            import_checkpoint(folder, tmp_path / "other")
    if name == "tokenizer.json":
        write([["a", 0.0]])  # a sentencepiece model's
        with pytest.raises(DataError, match="is not CLIP's tokenizer"):
            import_checkpoint(folder, tmp_path / "other")


def test_the_advice_on_activations_names_the_published_models(tmp_path):
    save_file(arrays_of(of_family(OPENAI)), tmp_path / "x.safetensors")
    with pytest.raises(ConfigError) as caught:
        import_checkpoint(tmp_path / "x.safetensors", tmp_path / "out")
    quick, exact = re.split(r"or --activation gelu", str(caught.value))
    for name in ("MetaCLIP", "DFN2B and DFN5B", "LAION-400M's B/32"):
        assert name in quick
        assert name not in exact


def test_a_full_disk_and_a_read_only_one_exit_with_1(tmp_path, capsys, monkeypatch):
    from harvest_jax.weights import folder

    save_file(arrays_of(of_family(OPENAI)), tmp_path / "x.safetensors")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "write_safetensors", full)
    arguments = ["weights", "import", str(tmp_path / "x.safetensors"), "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--activation", "gelu"]) == 1
    assert "out could not be written: No space left on device" in capsys.readouterr().err
    with pytest.raises(HarvestError) as caught, described_errors(tmp_path / "x"):
        raise OSError(30, "Read-only file system")
    assert caught.value.exit_code == 1
