"""`harvest bench loader` on real shards, and what it reads of /proc."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harvest_jax.cli import main

DEMO = str(Path(__file__).resolve().parents[2] / "configs/demo.py")


@pytest.fixture(scope="module")
def measured(world_shards):
    words = ["bench", "loader", "--config", DEMO, "--shards", str(world_shards), "--batch", "8", "--json"]
    command = [sys.executable, "-m", "harvest_jax", *words, "--seconds", "0.6", "--config.data.workers=1"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr  # batches made ahead and never used are freed without a warning
    return json.loads(done.stdout.splitlines()[-1])


def test_figures_agree(measured):
    assert measured["clips_per_s"] > 0
    assert measured["share_of_limit"] == pytest.approx(measured["clips_per_s"] / measured["limit_clips_per_s"])
    assert measured["read_limit_clips_per_s"] > measured["limit_clips_per_s"] > 0
    assert 0 < measured["cores_used"] < os.cpu_count() + 0.5
    assert measured["limit_processes"] == measured["workers"] == 1
    assert measured["first_batch_s"] > 0


def test_bytes_to_the_device(measured):
    kept, patch = measured["kept"], 8 * 8 * 3
    text = 4 * measured["text_length"] + 8 * measured["text_slots"]  # ids; slots and their weights
    assert measured["bytes_per_clip"] == kept * (patch + 4) + text
    assert measured["bytes_per_clip_whole"] == measured["patches"] * patch
    assert kept < measured["patches"]


def test_mistakes_are_one_line(capsys, tmp_path, world_shards):
    for words, said in (
        (["bench", "loader"], "--shards is missing"),
        (["bench", "loader", "--shards", str(tmp_path / "none")], "no shard folder"),
        (["bench", "loader", "--shards", str(world_shards), "--keep", "2"], "model.keep_ratio=2.0 is outside"),
    ):
        assert main(words) in (2, 3)
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
