"""What a result says of its model, its inputs and its run, and the table of its queries."""

import hashlib
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

import harvest_jax
from harvest_jax import cli
from harvest_jax.errors import DataError
from harvest_jax.evaluate.scores import ranking
from tests.helpers.colour_evaluation import COLOURS, REPOSITORY, captioned, evaluate, manifest

OLD = REPOSITORY / "tests" / "data" / "version_0_1_0"


def test_the_model_the_inputs_and_the_run_are_recorded(videos, model, tmp_path):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    result = evaluate("retrieval", words, tmp_path)
    content = (tmp_path / "set.jsonl").read_bytes()
    assert result["model"] == {
        "name": "colours",
        "sha256": "colours",
        "origin": {"made_by": "a test"},
        "config": {"name": "colours"},
    }
    assert result["inputs"]["manifest"] == {"name": "set.jsonl", "sha256": hashlib.sha256(content).hexdigest()}
    run = result["run"]
    assert run["command"][:3] == ["harvest", "eval", "--config"]
    assert run["command"][-2:] == words
    assert run["version"] == harvest_jax.__version__
    assert set(run["libraries"]) >= {"jax", "flax", "numpy", "av"}
    assert (run["dtype"], run["matmul_precision"], run["seed"]) == ("float32", "highest", 0)
    assert run["seconds"] >= 0
    assert run["date"].endswith("+00:00")
    assert run["device"]


def test_files_of_the_task_are_recorded(videos, model, tmp_path):
    rows = [{"video": f"{name}.mp4", "label": name} for name in COLOURS]
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(COLOURS))
    words = [*manifest(videos, tmp_path, rows), f"--config.classes={classes}"]
    inputs = evaluate("zero_shot", words, tmp_path)["inputs"]
    assert inputs["classes"] == {"name": "classes.txt", "sha256": hashlib.sha256(classes.read_bytes()).hexdigest()}


@pytest.mark.parametrize(("path", "step"), [("workdir/export", 6), ("workdir@4", 4)])
def test_a_real_model_is_known_by_its_weights_not_by_its_path(path, step, tmp_path, monkeypatch):
    monkeypatch.chdir(OLD)
    out = tmp_path / "r.json"
    words = ["--config.data.shards=shards", "--config.data.split=train", "--out", str(out)]
    assert cli.main(["eval", "--config", "eval/retrieval", "--model", path, *words]) == 0
    model = json.loads(out.read_text())["model"]
    shutil.copytree(path.partition("@")[0], tmp_path / "copy")
    copied = harvest_jax.load(str(tmp_path / "copy") + "".join(path.partition("@")[1:]))
    assert model["sha256"] == copied.digest
    assert model["name"] == path
    assert model["config"] == json.loads((OLD / "workdir/export/config.json").read_text())["model"]
    assert model["origin"]["workdir_step"] == step


def test_scores_can_be_computed_again_from_the_queries(videos, model, tmp_path):
    rows = [*captioned(*COLOURS, "broken"), {"id": "x", "video": "red.mp4", "caption": "a green thing"}]
    result = evaluate("retrieval", manifest(videos, tmp_path, rows), tmp_path)
    table = pq.read_table(tmp_path / "out" / "result.json.queries.parquet")
    for part in ("t2v", "v2t"):
        of_part = table.filter(np.array(table["part"].to_pylist()) == part)
        columns = [of_part[name].to_numpy() for name in ("greater", "tied", "right", "missing")]
        assert ranking.summary(ranking.Ranks(*columns)) == result["metrics"][part]
    captions = table.filter(np.array(table["part"].to_pylist()) == "t2v")
    assert captions["text"].to_pylist() == [row["caption"] for row in rows]
    assert captions["video"].to_pylist() == [*COLOURS, "broken", "red"]
    assert captions["missing"].to_pylist() == [False] * 4 + [True, False]


def test_texts_that_are_cut_are_counted(videos, model, tmp_path):
    rows = captioned(*COLOURS)
    rows[0]["caption"] = "red " * 30
    result = evaluate("retrieval", manifest(videos, tmp_path, rows), tmp_path)
    assert result["texts"] == {"n": 4, "length": 24, "cut": 1}
    assert result["warnings"] == ["1 of 4 texts are longer than the 24 tokens that are read, and were cut"]
    rows[0]["caption"] = "red " * 22  # with start and end it just fits
    assert evaluate("retrieval", manifest(videos, tmp_path, rows), tmp_path)["texts"]["cut"] == 0


def test_most_videos_missing_is_an_error_before_the_model_is_loaded(videos, model, tmp_path, capsys, monkeypatch):
    rows = [*captioned(*COLOURS), *captioned(*(f"gone{number}" for number in range(96)))]
    words = manifest(videos, tmp_path, rows)
    with monkeypatch.context() as patch:
        patch.setitem(harvest_jax.__dict__, "load", None)
        evaluate("retrieval", words, tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err
    assert "96 of the 100 videos of set.jsonl are not there, the first: gone0.mp4 (not found" in error
    assert "--allow_missing" in error
    assert error.count("\n") == 1
    result = evaluate("retrieval", [*words, "--allow_missing"], tmp_path)
    assert (result["n_expected"], result["n_missing"]) == (100, 96)
    assert result["metrics"]["t2v"]["R@1"] == 4


def test_rows_of_another_task_are_named(videos, model, tmp_path, capsys):
    rows = [{"video": "red.mp4", "question": "what?", "answer": "red"}]
    evaluate("retrieval", manifest(videos, tmp_path, rows), tmp_path, code=DataError.exit_code)
    assert "the rows fit --config eval/videoqa" in capsys.readouterr().err


def test_a_row_that_cannot_be_read_is_named(videos, model, tmp_path, capsys):
    (tmp_path / "set.csv").write_bytes(b"video\tcaption\nred.mp4\ta red square\nblue.mp4\tun carr\xe9 bleu\n")
    evaluate("retrieval", [f"--config.data.manifest={tmp_path / 'set.csv'}"], tmp_path, code=DataError.exit_code)
    assert "1 rows cannot be used, the first: line 3: bad text: the caption is not UTF-8" in capsys.readouterr().err
