"""What version 0.1.0 wrote (tests/data/version_0_1_0, made by its own commands) is read, and a run of it goes on."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import harvest_jax
from harvest_jax import cli

ROOT = Path(__file__).resolve().parents[2]
OLD = ROOT / "tests" / "data" / "version_0_1_0"
EXPECTED = json.loads((OLD / "expected.json").read_text())


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy to work in, the current folder."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


TRAIN = {
    "data.shards": "shards",
    "model.init_from": "model",
    "model.num_frames": 4,
    "model.keep_ratio": 0.5,
    "model.decoder_layers": 1,
    "model.dtype": "float32",
    "text.length": 12,
    "train.steps": 6,
    "train.batch_size": 4,
    "train.warmup_steps": 1,
    "train.learning_rate": 1e-2,
    "train.log_every": 1,
    "train.save_every": 2,
}


def go_on():
    """Run the command that version 0.1.0 was stopped in."""
    overrides = [f"--config.{field}={value}" for field, value in TRAIN.items()]
    command = ["-m", "harvest_jax", "train", "--config", str(ROOT / "configs/base.py"), "--workdir", "workdir"]
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}  # one device, as then
    done = subprocess.run(
        [sys.executable, *command, *overrides], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("gone", ["export", "model"])
def test_a_training_folder_goes_on_with_equal_losses(old, gone):
    """It was stopped after step 4 of 6; steps 5 and 6 had these losses when version 0.1.0 took them.

    Only its export and the folder `model`, which it started from, say what its model is: either may be gone.
    """
    shutil.rmtree("workdir/export" if gone == "export" else "model")
    done = go_on()
    assert "go on from step 4 of 6" in done.stdout
    rows = [json.loads(line) for line in Path("workdir/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    losses = [row["loss"] for row in rows]
    np.testing.assert_allclose(losses, list(EXPECTED["losses"].values()), rtol=1e-5)
    described = json.loads(Path("workdir/model.json").read_text())["model"]
    assert described == json.loads(Path("workdir/export/config.json").read_text())["model"]


def test_a_model_folder_embeds_the_same(old):
    model = harvest_jax.load("workdir/export")
    videos = model.encode_video(["videos/clip0.mp4", "videos/clip1.mp4"])
    np.testing.assert_allclose(videos, EXPECTED["video_embeddings"], atol=2e-5)
    texts = model.encode_text(["a red square moves left"])
    np.testing.assert_allclose(texts, EXPECTED["text_embeddings"], atol=2e-5)


def test_shards_and_training_folder_are_described(old, capsys):
    assert cli.main(["inspect", "shards", "--json"]) == 0
    shards = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert shards["splits"]["train"]["clips"] == 8
    assert cli.main(["inspect", "workdir", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["checkpoints"] == [4]


def test_an_index_is_built_again_with_one_line(old, capsys):
    index = ["--index", "index.safetensors"]
    assert cli.main(["search", "--model", "workdir/export", "--videos", "videos", *index, "--json", "red"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out.splitlines()[-1])
    assert "the index index.safetensors is of an earlier version: it is built again" in err
    assert found["changes"] == {"new": 8, "changed": 0, "moved": 0, "gone": 0, "kept": 0}
    assert len(found["results"]) == 8


def test_its_checkpoint_is_scored_and_searched_with(old, capsys):
    data = "--config.data.manifest=videos/manifest.csv"
    assert cli.main(["eval", "--config", "eval/retrieval", "--model", "workdir@4", data, "--out", "result.json"]) == 0
    result = json.loads(Path("result.json").read_text())
    assert result["model"]["name"] == "workdir@4"
    assert result["n_expected"] == 8
    capsys.readouterr()
    index = ["--index", "new.safetensors", "--json"]
    assert cli.main(["search", "--model", "workdir/checkpoints/4", "--videos", "videos", *index, "red"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["results"]) == 8
