"""`hf_video` folders without torch: what is in them, what comes back from them, and those that are refused."""

import ast
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from harvest_jax.cli import main
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.model.config import Preprocessing
from harvest_jax.weights.export_model import HF_VIDEO_CODE, export_model
from harvest_jax.weights.families.family import Overrides
from harvest_jax.weights.folder import load_config
from harvest_jax.weights.import_checkpoint import import_checkpoint
from tests.helpers.checkpoint_tensors import VIDEO, small_models

JSON = ("config.json", "modules.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An image and a video model on disk, of small random numbers."""
    return small_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def exported(folders, tmp_path):
    """The video model as an `hf_video` folder."""
    done = export_model(folders["video"], "hf_video", tmp_path / "theirs")
    assert done["left_out"] == ["decoder", "mask_embedding"]
    assert done["notes"] == []
    return tmp_path / "theirs"


def edit(path, change):
    """Change the values of a JSON file."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("name", ["image", "video"])
def test_a_model_comes_back_bit_for_bit(folders, tmp_path, name):
    export_model(folders[name], "hf_video", tmp_path / "theirs")
    import_checkpoint(tmp_path / "theirs", tmp_path / "back")
    before, after = load_file(folders[name] / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    assert {path.split("/")[0] for path in before.keys() - after.keys()} <= {"decoder", "mask_embedding"}
    for path, array in after.items():
        np.testing.assert_array_equal(before[path], array, err_msg=path)
    config, original = load_config(tmp_path / "back"), load_config(folders[name])
    assert (config.name, config.video, config.text) == (original.name, original.video, original.text)
    assert config.preprocessing == original.preprocessing


def test_the_folder_says_what_it_is(exported):
    assert sorted(path.name for path in exported.iterdir()) == sorted((*JSON, *HF_VIDEO_CODE, "model.safetensors"))
    config = json.loads((exported / "config.json").read_text())
    assert config["model_type"] == "harvest_video"
    assert config["video_tower"]["num_frames"] == VIDEO.video.num_frames
    named = {name for value in config["auto_map"].values() for name in ([value] if isinstance(value, str) else value)}
    named |= {json.loads((exported / "modules.json").read_text())[0]["type"]}
    for name in named - {None}:  # each class is where the JSON files say
        file, class_name = name.split(".")
        tree = ast.parse((exported / f"{file}.py").read_text())
        assert class_name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    processor = json.loads((exported / "processor_config.json").read_text())
    assert processor["num_frames"] == VIDEO.video.num_frames
    assert processor["image_mean"] == list(VIDEO.preprocessing.mean)
    tokenizer = json.loads((exported / "tokenizer.json").read_text())
    assert tokenizer["model"]["vocab"]["<|endoftext|>"] == VIDEO.text.vocab_size - 1


def test_an_image_model_gets_eight_frames(folders, tmp_path):
    export_model(folders["image"], "hf_video", tmp_path / "theirs")
    assert json.loads((tmp_path / "theirs/processor_config.json").read_text())["num_frames"] == 8


@pytest.mark.parametrize("name", HF_VIDEO_CODE)
def test_the_code_needs_nothing_of_this_package_and_names_the_licence(exported, name):
    text = (exported / name).read_text()
    assert "# SPDX-License-Identifier: Apache-2.0\n" in text
    imported = {
        name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module])
    }
    assert not [name for name in imported if name.startswith(("harvest_jax", "data_pipeline", "jax"))]


def test_code_of_others_is_refused(exported, tmp_path):
    edit(exported / "config.json", lambda config: config["auto_map"].update(AutoModel="other/repo--x.Model"))
    with pytest.raises(DataError, match=r"auto_map of its config.json names other code .*other/repo--x.Model"):
        import_checkpoint(exported, tmp_path / "back")
    edit(exported / "config.json", lambda config: config.pop("auto_map"))
    with pytest.raises(DataError, match=r"names other code than this package's \(null\)"):
        import_checkpoint(exported, tmp_path / "back")


def test_the_code_is_not_run(exported, tmp_path):
    for name in HF_VIDEO_CODE:
        (exported / name).write_text("raise SystemExit('run')\n")
    import_checkpoint(exported, tmp_path / "back")
    assert (tmp_path / "back/model.safetensors").is_file()


def test_a_processor_that_prepares_otherwise_is_refused(exported, tmp_path):
    edit(exported / "processor_config.json", lambda processor: processor.update(image_mean=[0.5, 0.5, 0.5]))
    with pytest.raises(DataError, match=r"processor_config.json prepares pictures with .*mean \(0.5, 0.5, 0.5\)"):
        import_checkpoint(exported, tmp_path / "back")
    clip = Preprocessing()
    import_checkpoint(exported, tmp_path / "said", Overrides(resize=clip.resize, mean=clip.mean, std=clip.std))
    assert load_config(tmp_path / "said").preprocessing == clip
    edit(exported / "processor_config.json", lambda processor: processor.update(image_mean=["a"]))
    with pytest.raises(DataError, match="no sound config"):
        import_checkpoint(exported, tmp_path / "back")


def test_a_tokenizer_of_another_model_is_refused(exported, tmp_path):
    def swap(tokenizer):
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]

    edit(exported / "tokenizer.json", swap)
    with pytest.raises(DataError, match=r"tokenizer.json is not the model's tokenizer"):
        import_checkpoint(exported, tmp_path / "back")
    (exported / "tokenizer.json").unlink()  # then it is that of the config
    import_checkpoint(exported, tmp_path / "back")


def test_half_a_folder_is_refused(exported, tmp_path):
    with pytest.raises(DataError, match="give the whole folder"):
        import_checkpoint(exported / "model.safetensors", tmp_path / "back")
    edit(exported / "config.json", lambda config: config["video_tower"].update(width="wide"))
    with pytest.raises(DataError):
        import_checkpoint(exported, tmp_path / "back")
    edit(exported / "config.json", lambda config: config.pop("video_tower"))
    with pytest.raises(DataError, match="no sound config"):
        import_checkpoint(exported, tmp_path / "back")


@pytest.mark.parametrize("form", ["hf", "open_clip", "scenic"])
def test_time_is_not_lost_silently(folders, tmp_path, capsys, form):
    name = "x.msgpack" if form == "scenic" else "x"
    command = ["weights", "export", str(folders["video"]), "--format", form, "--out", str(tmp_path / name)]
    assert main(command) == 3
    said = capsys.readouterr().err
    assert "--format hf_video" in said
    assert "--drop_time" in said
    assert not (tmp_path / name).exists()
    assert main([*command, "--drop_time"]) == 0
    assert "at one frame" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--drop_time is for hf, open_clip, scenic"):
        export_model(folders["video"], "hf_video", tmp_path / "y", drop_time=True)


def test_what_has_no_time_is_exported_as_before(folders, tmp_path):
    import_checkpoint(folders["image"], tmp_path / "eight", num_frames=8)  # a table of zeros
    shutil.rmtree(tmp_path / "hf", ignore_errors=True)
    done = export_model(tmp_path / "eight", "hf", tmp_path / "hf")
    assert "at one frame" in done["notes"][0]
