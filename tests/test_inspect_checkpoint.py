"""`harvest inspect` of checkpoints and of folders that are none."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from harvest_jax.weights.files import open_checkpoint
from tests.helpers.command import run
from tests.helpers.model_folders import save_random_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A video model of the demo's towers with a decoder, of random numbers."""
    return save_random_model(tmp_path_factory.mktemp("model") / "video", dtype=np.float16)


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
        ("hf_video", "hv", "harvest_jax for transformers", 87),
        ("open_clip", "oc", "OpenAI CLIP or OpenCLIP", 86),
        ("viclip", "v.safetensors", "ViCLIP", 87),
        ("scenic", "s.msgpack", "Scenic CLIP", 110),
        ("safetensors", "x.safetensors", "harvest_jax", 74),
    ):
        image = ["--drop_time"] if form in ("hf", "open_clip", "scenic") else []
        assert run(capsys, "weights", "export", folder, "--format", form, "--out", tmp_path / name, *image)[0] == 0
        found = described(capsys, tmp_path / name)
        assert (found["kind"], found["family"], found["problem"]) == ("checkpoint", family, None)
        assert found["tensors"] == tensors
        assert found["model"]["video"]["width"] == 64
        assert found["model"]["video"]["num_frames"] == (1 if image else 4)
        assert "float16" in found["stored_as"]
        assert found["bytes"] <= sum(p.stat().st_size for p in (tmp_path / name).rglob("*")) or name not in ("hf", "oc")
    text = run(capsys, "inspect", tmp_path / "hf")[1]
    assert "family: Hugging Face CLIP" in text
    assert "    width: 64" in text
    assert described(capsys, folder)["kind"] == "model"


def test_inspect_tells_what_is_wrong(folder, tmp_path, capsys, headers_alone):
    run(capsys, "weights", "export", folder, "--format", "open_clip", "--drop_time", "--out", tmp_path / "oc")
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


def test_inspect_prints_untrusted_names_without_control_characters(folder, tmp_path, capsys):
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
    assert "time" not in described(capsys, tmp_path)
    spent = ({"start": 4.0}, {"train": 6.0})
    lines = [{"event": "start", "attempt": 1, "time": 0.0, "clock": 0.0}]
    lines += [lines[0] | {"event": "steps", "step": 2 * n, "spent": one, "time": 10.0} for n, one in enumerate(spent)]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = described(capsys, tmp_path)["time"]
    assert found == {"attempts": 1, "wall_seconds": 10.0, "goodput": 0.6, "seconds": {"training": 6.0, "starting": 4.0}}
    (tmp_path / "metrics.jsonl").write_text('{"st')
    assert "last_metrics" not in described(capsys, tmp_path)
    (tmp_path / "config.json").write_text('{"a')
    code, _, error = run(capsys, "inspect", tmp_path)
    assert code == 3
    assert "config.json is not JSON" in error


def test_inspect_of_folders_that_are_none(folder, tmp_path, capsys):
    run(capsys, "weights", "export", folder, "--format", "hf", "--drop_time", "--out", tmp_path / "hf")
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
