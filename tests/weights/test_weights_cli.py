"""`harvest weights` and `harvest inspect` of checkpoints, as a user meets them; training from an imported model."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from harvest_jax import cli
from harvest_jax.config import run as run_config
from harvest_jax.demo.image_clip import SHIPPED
from harvest_jax.errors import ConfigError
from harvest_jax.model.config import Preprocessing, harvest_config
from harvest_jax.model.harvest import Harvest, parameter_shapes
from harvest_jax.model.video_tower import temporal_ramp
from harvest_jax.train.initialise import initial_parameters, model_config
from harvest_jax.weights import command, export_model, import_checkpoint
from harvest_jax.weights.files import open_checkpoint
from harvest_jax.weights.files.tensors import TensorSpec
from harvest_jax.weights.folder import load_config, load_model, save_tensors
from harvest_jax.weights.resize import resize_temporal

BASE = "configs/base.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A video model of the demo's towers with a decoder, of random numbers."""
    described = harvest_config("demo", num_frames=4, decoder_layers=1)
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(described)
    arrays = {name: rng.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}
    entries = {name: TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
    path = tmp_path_factory.mktemp("model") / "video"
    save_tensors(path, described, entries, arrays.__getitem__, {})
    return path


def run(capsys, *arguments):
    """(exit code, what was printed, the one line of an error)."""
    code = cli.main([str(word) for word in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


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
        ([], "import|export|mix"),
        (["sell"], "invalid choice: 'sell'"),
        (["import", "x"], "--out"),
        (["import", "x", "--out", "y", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["import", "x", "--out", "y", "--activation", "relu"], "invalid choice: 'relu'"),
        (["import", "x", "--out", "y", "--mean", "0.5"], "expected 3 arguments"),
        (["export", "x", "--out", "y", "--format", "onnx"], "invalid choice: 'onnx'"),
        (["mix", "x", "y", "--out", "z"], "--alpha"),
    ],
)
def test_wrong_words_end_with_two(arguments, message, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["weights", *arguments])
    assert done.value.code == 2
    assert message in capsys.readouterr().err


def test_there_and_back(folder, tmp_path, capsys):
    code, said, _ = run(capsys, "weights", "export", folder, "--format", "hf", "--out", tmp_path / "hf")
    assert code == 0
    assert "left out, having no place in this format: decoder, mask_embedding\nnote: the image tower is" in said
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


# inspect


@pytest.fixture
def headers_alone(monkeypatch):
    """Fails a test in which a tensor is read."""
    real = open_checkpoint.open_checkpoint

    def headers(path):
        return dataclasses.replace(real(path), read=lambda name: pytest.fail(f"{name} was read"))

    monkeypatch.setattr(open_checkpoint, "open_checkpoint", headers)


def described(capsys, path):
    code, said, _ = run(capsys, "inspect", path, "--json")
    assert code == 0
    return json.loads(said)


def test_inspect_tells_what_a_checkpoint_is(folder, tmp_path, capsys, headers_alone):
    for form, name, family, tensors in (
        ("hf", "hf", "Hugging Face CLIP", 110),
        ("open_clip", "oc", "OpenAI CLIP or OpenCLIP", 86),
        ("viclip", "v.safetensors", "ViCLIP", 87),
        ("scenic", "s.msgpack", "Scenic CLIP", 110),
        ("safetensors", "x.safetensors", "harvest_jax", 74),
    ):
        assert run(capsys, "weights", "export", folder, "--format", form, "--out", tmp_path / name)[0] == 0
        found = described(capsys, tmp_path / name)
        assert (found["kind"], found["family"], found["problem"]) == ("checkpoint", family, None)
        assert found["tensors"] == tensors
        assert found["model"]["video"]["width"] == 64
        assert found["model"]["video"]["num_frames"] == (1 if form in ("hf", "open_clip", "scenic") else 4)
        assert "float16" in found["stored_as"]
        assert found["bytes"] <= sum(p.stat().st_size for p in (tmp_path / name).rglob("*")) or name not in ("hf", "oc")
    text = run(capsys, "inspect", tmp_path / "hf")[1]
    assert "family: Hugging Face CLIP" in text
    assert "    width: 64" in text
    assert described(capsys, folder)["kind"] == "model"


def test_inspect_tells_what_is_wrong(folder, tmp_path, capsys, headers_alone):
    run(capsys, "weights", "export", folder, "--format", "open_clip", "--out", tmp_path / "oc")
    found = described(capsys, tmp_path / "oc/open_clip_model.safetensors")  # without the config beside it
    assert found["model"]["video"]["activation"] is None
    assert found["model"]["text"]["width"] == 64
    assert "give --activation" in found["problem"]
    save_file({"visual.a": np.zeros(2), "token_embedding.weight": np.zeros(1)}, tmp_path / "bad.safetensors")
    found = described(capsys, tmp_path / "bad.safetensors")
    assert found["family"] == "OpenAI CLIP or OpenCLIP"
    assert "holds no visual.conv1.weight" in found["problem"]
    save_file({"a.b": np.zeros(2, np.float32)}, tmp_path / "other.safetensors")
    found = described(capsys, tmp_path / "other.safetensors")
    assert (found["family"], found["names"], found["parameters"]) == (None, ["a.b"], 2)
    (tmp_path / "text").write_text("nothing of the kind")
    code, _, error = run(capsys, "inspect", tmp_path / "text")
    assert code == 3
    assert error.count("\n") == 1


def test_inspect_prints_nothing_raw_of_a_stranger(folder, tmp_path, capsys):
    for name in ("x\nfamily: fake\x1b[2J", "a\ud800"):
        header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        code, said, _ = run(capsys, "inspect", tmp_path / "x.safetensors")
        assert code == 0
        assert ascii(name)[1:-1] in said
        assert said.replace("\n", "").isprintable()
        assert "family: fake" not in said.splitlines()
        code, _, error = run(capsys, "weights", "import", tmp_path / "x.safetensors", "--out", tmp_path / "out")
        assert code == 3
        assert error.rstrip("\n").isprintable()
    shutil.copytree(folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"origin": {"by": "a\ud800\x1b[2J"}}))
    code, said, _ = run(capsys, "inspect", tmp_path / "model")
    assert code == 0
    assert "by: a\\ud800\\x1b[2J" in said


def test_inspect_of_a_run_that_was_killed(tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "metrics.jsonl").write_bytes('{"step": 1}\n{"step": 2}\n{"step": 3, "ä'.encode()[:-1])
    assert described(capsys, tmp_path)["last_metrics"] == {"step": 2}
    (tmp_path / "metrics.jsonl").write_text('{"st')
    assert "last_metrics" not in described(capsys, tmp_path)
    (tmp_path / "config.json").write_text('{"a')
    code, _, error = run(capsys, "inspect", tmp_path)
    assert code == 3
    assert "config.json is no JSON" in error


def test_inspect_of_folders_that_are_none(folder, tmp_path, capsys):
    run(capsys, "weights", "export", folder, "--format", "hf", "--out", tmp_path / "hf")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    del config["model_type"]
    (tmp_path / "hf/config.json").write_text(json.dumps(config))
    found = described(capsys, tmp_path / "hf")
    assert (found["family"], found["problem"]) == ("Hugging Face CLIP", None)
    for text in ("[" * 5000, '{"model":', '{"model": {"video": []}}'):
        (tmp_path / "hf/config.json").write_text(text)
        code, _, error = run(capsys, "inspect", tmp_path / "hf")
        assert code == 3
        assert error.count("\n") == 1


def test_a_failure_leaves_no_folders(folder, tmp_path, capsys):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(folder, spoilt)
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
    assert "is a file; programs are written from a model folder" in error


# Training from what was imported


class Fresh(Harvest):
    """Harvest's init without its random numbers, which take seconds to compile: zeros, and the table of frames."""

    def init(self, key, temporal_init):
        flat = {name: jnp.zeros(shape) for name, shape in parameter_shapes(self.config).items()}
        if temporal_init == "ramp":
            flat["video/temporal_embedding"] = temporal_ramp(self.config.video.num_frames, self.config.video.width)
        return traverse_util.unflatten_dict(flat, sep="/")


def started(init_from, *overrides):
    """(the run's model config, its parameters at step 0)."""
    fields = ["model.decoder_layers=1", "data.shards=x", "model.size=demo", f"model.init_from={init_from}"]
    loaded = run_config.load(BASE, [*fields, *overrides])
    model = model_config(loaded)
    return model, initial_parameters(loaded, Fresh(model))


def imported(source, out, *changes):
    assert cli.main(["weights", "import", str(source), "--out", str(out), *map(str, changes)]) == 0
    return out


def test_towers_of_any_size_start_a_run(tmp_path, folder):
    """64 frames' worth of other fields: the resolution, the activation and the preprocessing are the folder's."""
    source = imported(folder, tmp_path / "d", "--image_size", 32, "--activation", "gelu", "--resize", "squash")
    assert load_config(source).name == "demo@32"
    model, params = started(source, "model.num_frames=8", "model.size=B/16", "model.decoder_layers=2")
    assert (model.video.image_size, model.video.width, model.video.activation) == (32, 64, "gelu")
    assert (model.video.num_frames, model.decoder.layers, model.decoder.width) == (8, 2, 64)
    assert model.decoder.memory_width == model.video.width
    assert model.preprocessing.resize == "squash"
    _, found = load_model(source)
    np.testing.assert_array_equal(params["video"]["proj"]["kernel"], found["video"]["proj"]["kernel"])
    np.testing.assert_array_equal(params["text"]["positional_embedding"], found["text"]["positional_embedding"])
    with pytest.raises(ConfigError, match=r"text\.length=40 exceeds the 32 of demo@32"):
        started(source, "text.length=40")


def test_a_named_size_must_be_the_runs(folder):
    with pytest.raises(ConfigError, match=r"model\.size=B/16 but model\.init_from=.* holds demo: set one of them"):
        started(folder, "model.size=B/16")


def test_how_the_table_of_frames_starts(folder):
    table = load_model(folder)[1]["video"]["temporal_embedding"]
    ramp = "model.temporal_init=ramp"
    same = started(folder, "model.num_frames=4", ramp)[1]["video"]["temporal_embedding"]
    np.testing.assert_array_equal(same, table)
    more = started(folder, "model.num_frames=6", ramp)[1]["video"]["temporal_embedding"]
    np.testing.assert_array_equal(more, resize_temporal(table, 6))
    image = started(SHIPPED, "model.num_frames=6", ramp)[1]["video"]["temporal_embedding"]
    assert image.shape == (6, 64)
    assert np.abs(image).max() > 0.1  # the ramp
    row = load_model(SHIPPED)[1]["video"]["temporal_embedding"]
    assert row.shape == (1, 64)
    assert row.any()  # it belongs to what the image tower learnt, and stays: the ramp is centred on zero
    np.testing.assert_allclose(image.mean(axis=0, keepdims=True), row, atol=1e-6)
    zeros = started(SHIPPED, "model.num_frames=6")[1]["video"]["temporal_embedding"]
    np.testing.assert_array_equal(zeros, np.repeat(row, 6, axis=0))


def test_a_table_of_zeros_is_none(tmp_path):
    assert cli.main(["weights", "export", str(SHIPPED), "--format", "open_clip", "--out", str(tmp_path / "oc")]) == 0
    zeros = imported(tmp_path / "oc", tmp_path / "eight", "--num_frames", 8)
    assert not load_model(zeros)[1]["video"]["temporal_embedding"].any()
    table = started(zeros, "model.num_frames=8", "model.temporal_init=ramp")[1]["video"]["temporal_embedding"]
    assert np.abs(table).max() > 0.1
