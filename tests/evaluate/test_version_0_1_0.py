"""Each task's result is what version 0.1.0 wrote for the same model, videos and settings (tests/data/evaluation)."""

import json

import pytest

from harvest_jax import cli
from tests.helpers.colour_evaluation import CONFIGS, REPOSITORY

OLD = REPOSITORY / "tests" / "data" / "version_0_1_0"
DATA = REPOSITORY / "tests" / "data" / "evaluation"
VIDEOS = {"data.root": "videos", "data.workers": 2}
ROWS = {"data.manifest": f"{DATA}/rows.jsonl", **VIDEOS}
RUNS = {  # name of the expected result: task, fields
    "retrieval": ("retrieval", {**ROWS, "dual_softmax_scale": 20}),
    "multiple_choice": ("multiple_choice", {**ROWS, "prompt": "{question} {option}"}),
    "zero_shot": ("zero_shot", {**ROWS, "classes": f"{DATA}/classes.txt"}),
    "videoqa": (
        "videoqa",
        {"data.manifest": f"{DATA}/questions.jsonl", **VIDEOS, "answers": f"{DATA}/answers.txt", "text_length": 16},
    ),
    "shards": ("retrieval", {"data.shards": "shards", "data.split": "train", "batch_size": 3, "frames": 2}),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_result_is_the_same(name, tmp_path, monkeypatch):
    monkeypatch.chdir(OLD)
    task, fields = RUNS[name]
    out = tmp_path / "result.json"
    words = [f"--config.{field}={value}" for field, value in fields.items()]
    config = str(CONFIGS / f"{task}.py")
    assert cli.main(["eval", "--config", config, "--model", "workdir/export", "--out", str(out), *words]) == 0
    found, expected = json.loads(out.read_text()), json.loads((DATA / "expected" / f"{name}.json").read_text())
    assert list(found) == list(expected)
    assert list(found["protocol"]) == list(expected["protocol"])
    # later versions add figures to the metrics, and change none
    found["metrics"] = {key: found["metrics"][key] for key in expected["metrics"]}
    assert found | {"version": expected["version"]} == expected
