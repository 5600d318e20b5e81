"""`harvest weights`, as a user meets it."""

import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from harvest_jax import cli
from harvest_jax.demo.image_clip import SHIPPED
from harvest_jax.model.config import Preprocessing, harvest_config
from harvest_jax.weights import command, export_model, import_checkpoint
from harvest_jax.weights.folder import load_config
from tests.helpers.command import run
from tests.helpers.model_folders import save_random_model, without_digest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A video model of the demo's towers with a decoder, of random numbers."""
    return save_random_model(tmp_path_factory.mktemp("model") / "video", dtype=np.float16)


@pytest.mark.parametrize("action", ["import", "export", "mix"])
def test_every_action_explains_itself(action, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["weights", action, "--help"])
    assert done.value.code == 0
    text = capsys.readouterr().out
    assert f"harvest weights {action}" in text
    assert "--out" in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_words_of_the_help_are_those_of_the_code():
    assert tuple(export_model.FORMATS) == command.FORMATS
    assert tuple(import_checkpoint.DTYPES) == command.DTYPES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "import|export|mix|push"),
        (["sell"], "unknown command sell"),
        (["import", "x"], "--out"),
        (["import", "x", "--out", "y", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["import", "x", "--out", "y", "--activation", "relu"], "invalid choice: 'relu'"),
        (["import", "x", "--out", "y", "--mean", "0.5"], "expected 3 arguments"),
        (["export", "x", "--out", "y", "--format", "tflite"], "invalid choice: 'tflite'"),
        (["mix", "x", "y", "--out", "z"], "--alpha"),
    ],
)
def test_wrong_words_end_with_two(arguments, message, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["weights", *arguments])
    assert done.value.code == 2
    assert message in capsys.readouterr().err


def test_there_and_back(folder, tmp_path, capsys):
    code, said, _ = run(capsys, "weights", "export", folder, "--format", "hf", "--drop_time", "--out", tmp_path / "hf")
    assert code == 0
    assert "left out, because the format has no place for it: decoder, mask_embedding\nnote: the image tower is" in said
    changes = ["--num_frames", 8, "--dtype", "float32"]
    code, said, _ = run(capsys, "weights", "import", tmp_path / "hf", "--out", tmp_path / "back", *changes)
    assert code == 0
    assert "Hugging Face CLIP (Hugging Face folder (safetensors))" in said
    assert "demo, 589,697 numbers, float32" in said
    assert load_config(tmp_path / "back") == harvest_config("demo", num_frames=8, decoder_layers=0)
    code, said, _ = run(
        capsys, "weights", "mix", tmp_path / "back", folder, "--alpha", 0.25, "--out", tmp_path / "mixed"
    )
    assert code == 0
    assert "0.75 x " in said
    assert f"from {folder} alone: decoder, mask_embedding, video/temporal_embedding" in said
    assert load_config(tmp_path / "mixed") == load_config(folder)


def test_programs_go_out_by_the_same_command(tmp_path, capsys):
    code, said, _ = run(capsys, "weights", "export", SHIPPED, "--format", "stablehlo", "--out", tmp_path / "programs")
    assert code == 0
    assert "stablehlo, 589,248 numbers, float16" in said
    assert (tmp_path / "programs/signature.json").is_file()


def test_preprocessing_and_activation_by_words(folder, tmp_path, capsys):
    words = ["--activation", "gelu", "--resize", "squash", "--mean", 0.5, 0.4, 0.3, "--std", 0.1, 0.2, 0.3]
    assert run(capsys, "weights", "import", folder, "--out", tmp_path / "out", *words)[0] == 0
    found = load_config(tmp_path / "out")
    assert found.preprocessing == Preprocessing((0.5, 0.4, 0.3), (0.1, 0.2, 0.3), "squash")
    assert (found.video.activation, found.text.activation) == ("gelu", "gelu")


def test_mistakes_are_one_line(folder, tmp_path, capsys):
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "x.safetensors")
    (tmp_path / "half.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    (tmp_path / "empty").mkdir()
    for arguments, code in (
        (("import", tmp_path / "gone", "--out", tmp_path / "out"), 3),
        (("import", tmp_path / "x.safetensors", "--out", tmp_path / "out"), 3),
        (("import", tmp_path / "half.safetensors", "--out", tmp_path / "out"), 3),
        (("import", tmp_path / "empty", "--out", tmp_path / "out"), 3),
        (("import", folder, "--out", folder), 3),
        (("import", folder, "--out", tmp_path / "out", "--image_size", "65"), 2),
        (("import", folder, "--out", tmp_path / "out", "--std", "1", "0", "1"), 2),
        (("import", folder, "--out", tmp_path / "out", "--mean", "nan", "0", "0"), 2),
        (("export", tmp_path / "empty", "--format", "hf", "--out", tmp_path / "out"), 3),
        (("export", tmp_path / "gone", "--format", "stablehlo", "--out", tmp_path / "out"), 3),
        (("export", folder, "--format", "viclip", "--out", tmp_path / "out"), 2),
        (("export", folder, "--format", "hf", "--batch", "2", "--out", tmp_path / "out"), 2),
        (("export", folder, "--format", "hf", "--int8", "--out", tmp_path / "out"), 2),
        (("mix", folder, SHIPPED, "--alpha", "2", "--out", tmp_path / "out"), 2),
        (("mix", folder, tmp_path / "gone", "--alpha", "0", "--out", tmp_path / "out"), 3),
    ):
        found, said, error = run(capsys, "weights", *arguments)
        assert (found, said) == (code, ""), arguments
        assert error.startswith("harvest weights: ")
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()
    assert cli.main(["weights", "import", str(tmp_path / "gone"), "--out", "x", "--debug"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_without_the_onnx_package_the_extra_is_named(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "harvest_jax.weights.onnx_export", raising=False)
    code, _, error = run(capsys, "weights", "export", folder, "--format", "onnx", "--out", tmp_path / "out")
    assert code == 2
    assert "pip install 'harvest_jax[onnx]'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_no_folders(folder, tmp_path, capsys):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(folder, spoilt)
    without_digest(spoilt)
    raw = bytearray((spoilt / "model.safetensors").read_bytes())
    raw[-2:] = np.float16(np.nan).tobytes()
    (spoilt / "model.safetensors").write_bytes(raw)
    for words in (
        ("import", spoilt, "--out", tmp_path / "a/b/c"),
        ("export", spoilt, "--format", "safetensors", "--out", tmp_path / "a/b/c.safetensors"),
        ("export", tmp_path / "gone", "--format", "hf", "--out", tmp_path / "a/b/c"),
    ):
        assert run(capsys, "weights", *words)[0] == 3
        assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    assert run(capsys, "weights", *words)[0] == 3
    assert list((tmp_path / "a").iterdir()) == []
    assert run(capsys, "weights", "import", folder, "--out", tmp_path / "a/b/c")[0] == 0
    assert load_config(tmp_path / "a/b/c") == load_config(folder)


def test_exports_say_what_goes_out_and_what_does_not(capsys, folder, tmp_path):
    code, out, _ = run(capsys, "weights", "export", folder, "--format", "viclip", "--out", tmp_path / "v.safetensors")
    assert code == 0
    assert "build it with max_txt_l=32 and video_input_num_frames=4" in out
    code, out, _ = run(capsys, "weights", "export", folder, "--format", "stablehlo", "--out", tmp_path / "programs")
    assert code == 0
    assert "mask_embedding" in out
    assert "decoder" in out
    code, _, error = run(
        capsys, "weights", "export", tmp_path / "v.safetensors", "--format", "stablehlo", "--out", tmp_path / "more"
    )
    assert code == 3
    assert "is a file, not a model folder: harvest weights import" in error
