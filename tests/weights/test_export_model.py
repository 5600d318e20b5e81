"""`export_model`, and its files imported again."""

import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harvest_jax import cli
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.weights.export_model import IMAGE_FORMATS, export_model
from harvest_jax.weights.families.family import Overrides
from harvest_jax.weights.folder import load_config
from harvest_jax.weights.import_checkpoint import import_checkpoint
from harvest_jax.weights.mix import mix_models
from harvest_jax.weights.resize import resize_temporal
from tests.helpers.checkpoint_tensors import VIDEO, small_models
from tests.helpers.model_folders import without_digest
from tests.helpers.other_towers import TOWERS, save_other_model

GELU = Overrides(activation="gelu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An image and a video model on disk, of small random numbers."""
    return small_models(tmp_path_factory.mktemp("models"))


OUT = {"hf": "hf", "open_clip": "oc", "viclip": "v.safetensors", "scenic": "s.msgpack", "safetensors": "x.safetensors"}


@pytest.mark.parametrize(("form", "name"), OUT.items())
def test_an_image_model_comes_back_bit_for_bit(folders, tmp_path, form, name):
    export_model(folders["image"], form, tmp_path / name)
    import_checkpoint(tmp_path / name, tmp_path / "back")
    before, after = load_file(folders["image"] / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    assert before.keys() == after.keys()
    for path in before:
        if form == "viclip" and path == "logit_scale":
            np.testing.assert_allclose(before[path], after[path], rtol=3e-7)
        else:
            np.testing.assert_array_equal(before[path], after[path], err_msg=path)
    assert load_config(tmp_path / "back") == load_config(folders["image"])


@pytest.mark.parametrize("form", ["viclip", "safetensors"])
def test_a_video_model_comes_back_bit_for_bit(folders, tmp_path, form):
    done = export_model(folders["video"], form, tmp_path / OUT[form])
    import_checkpoint(tmp_path / OUT[form], tmp_path / "back")
    before, after = load_file(folders["video"] / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    for path in after:
        np.testing.assert_allclose(before[path], after[path], rtol=3e-7 if path == "logit_scale" else 0, err_msg=path)
    left = {path.split("/")[0] for path in before.keys() - after.keys()}
    assert left == set(done["left_out"]) == (set() if form == "safetensors" else {"decoder", "mask_embedding"})
    assert load_config(tmp_path / "back").video == VIDEO.video


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("form", ["hf", "open_clip", "scenic"])
def test_a_video_model_becomes_its_image_model(folders, tmp_path, form, dtype):
    """The frame's row is in every place but the class token's, not rounded to what the file stores its numbers in."""
    import_checkpoint(folders["video"], tmp_path / "video", dtype=dtype)
    done = export_model(tmp_path / "video", form, tmp_path / OUT[form], drop_time=True)
    assert done["left_out"] == ["decoder", "mask_embedding"]
    assert "at one frame" in done["notes"][0]
    import_checkpoint(tmp_path / OUT[form], tmp_path / "back")
    before, after = load_file(tmp_path / "video/model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    table, frames = (before[f"video/{name}_embedding"].astype(np.float32) for name in ("spatial", "temporal"))
    np.testing.assert_array_equal(after["video/spatial_embedding"][0], table[0])
    np.testing.assert_array_equal(after["video/spatial_embedding"][1:], table[1:] + resize_temporal(frames, 1))
    assert not after["video/temporal_embedding"].any()
    np.testing.assert_array_equal(after["video/proj/kernel"], before["video/proj/kernel"])


def test_exports_say_what_they_are(folders, tmp_path):
    export_model(folders["image"], "hf", tmp_path / "hf")
    files = ["config.json", "merges.txt", "model.safetensors", "preprocessor_config.json"]
    files += ["special_tokens_map.json", "tokenizer_config.json", "vocab.json"]
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == files
    assert oct((tmp_path / "hf").stat().st_mode) == oct(folders["image"].stat().st_mode)
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config["torch_dtype"] == "float32"
    assert config["vision_config"]["num_attention_heads"] == 2
    assert config["text_config"]["eos_token_id"] == 599
    vocabulary = json.loads((tmp_path / "hf/vocab.json").read_text())
    assert (len(vocabulary), vocabulary["<|endoftext|>"]) == (600, 599)
    export_model(folders["image"], "open_clip", tmp_path / "oc")
    config = json.loads((tmp_path / "oc/open_clip_config.json").read_text())
    assert config["model_cfg"]["quick_gelu"] is True
    assert config["model_cfg"]["vision_cfg"]["head_width"] == 64
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_exports_that_cannot_be(folders, tmp_path):
    with pytest.raises(ConfigError, match=r"ends in \.safetensors, not x"):
        export_model(folders["image"], "viclip", tmp_path / "x")
    with pytest.raises(ConfigError, match="unknown format 'tflite'; known are hf, hf_video, open_clip"):
        export_model(folders["image"], "tflite", tmp_path / "x")
    with pytest.raises(DataError, match="exists already"):
        export_model(folders["image"], "hf", folders["video"])
    import_checkpoint(folders["image"], tmp_path / "gelu", GELU)
    for form in ("viclip", "scenic"):
        with pytest.raises(DataError, match="has the activation gelu"):
            export_model(tmp_path / "gelu", form, tmp_path / f"g{OUT[form]}")
    import_checkpoint(folders["image"], tmp_path / "tanh", Overrides(activation="gelu_tanh"))
    with pytest.raises(DataError, match="has the activation gelu_tanh"):
        export_model(tmp_path / "tanh", "open_clip", tmp_path / "t")
    export_model(tmp_path / "gelu", "hf", tmp_path / "g")
    with pytest.raises(DataError, match="is a folder of Hugging Face, not of this package: harvest weights import"):
        export_model(tmp_path / "g", "open_clip", tmp_path / "g2")


@pytest.fixture(scope="module", params=TOWERS)
def other(request, tmp_path_factory):
    """A folder of a model whose towers are no CLIP's."""
    return save_other_model(tmp_path_factory.mktemp("other") / "model", request.param)


@pytest.mark.parametrize("form", ["hf", "hf_video", "open_clip", "viclip", "scenic"])
def test_formats_of_clips_refuse_other_towers(other, tmp_path, form):
    with pytest.raises(DataError, match=r"because its towers are no CLIP's \(video\.(norm_eps|rotary)="):
        export_model(other, form, tmp_path / OUT.get(form, form), drop_time=form in IMAGE_FORMATS)
    assert os.listdir(tmp_path) == []


def test_other_towers_come_back_from_safetensors_and_mix(other, tmp_path):
    export_model(other, "safetensors", tmp_path / "x.safetensors")
    own = other / "tokenizer.json"
    import_checkpoint(tmp_path / "x.safetensors", tmp_path / "back", tokenizer=own if own.is_file() else None)
    mix_models(other, other, 0.5, tmp_path / "mixed")
    before = load_file(other / "model.safetensors")
    for name in ("back", "mixed"):
        assert load_config(tmp_path / name) == load_config(other)
        after = load_file(tmp_path / name / "model.safetensors")
        assert before.keys() == after.keys()
        for path, array in before.items():
            np.testing.assert_array_equal(array, after[path], err_msg=path)


@pytest.mark.parametrize("form", ["hf", "hf_video", "open_clip", "scenic", "viclip", "safetensors", "stablehlo"])
def test_the_digest_is_computed_once(folders, tmp_path, form, monkeypatch, capsys):
    from harvest_jax.weights.files import weights_digest

    read = []
    real = weights_digest.sha256_of
    monkeypatch.setattr(weights_digest, "sha256_of", lambda path: read.append(path) or real(path))
    command = ["weights", "export", str(folders["image"]), "--format", form]
    assert cli.main([*command, "--out", str(tmp_path / OUT.get(form, form))]) == 0
    assert read == [folders["image"] / "model.safetensors"]


def test_a_damaged_model_leaves_nothing(folders, tmp_path):

    shutil.copytree(folders["image"], tmp_path / "bad")
    flat = load_file(tmp_path / "bad/model.safetensors")
    flat["video/ln_post/scale"][3] = np.nan
    save_file(flat, without_digest(tmp_path / "bad") / "model.safetensors")
    for form, name in OUT.items():
        with pytest.raises(DataError, match="not finite"):
            export_model(tmp_path / "bad", form, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]
