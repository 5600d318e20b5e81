"""`harvest eval` on real video files, with a small model whose answers are known: what all tasks share."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import harvest_jax
from data_pipeline.decode import pool
from harvest_jax import cli
from harvest_jax.errors import ConfigError, DataError, NonFiniteError
from harvest_jax.evaluate.scores import ranking
from tests.helpers import whole_matrix
from tests.helpers.annotations import DATA
from tests.helpers.colour_evaluation import (
    COLOURS,
    CONFIGS,
    REPOSITORY,
    ColourModel,
    DecoderInThisProcess,
    captioned,
    evaluate,
    manifest,
    question,
)

FIELDS = {"videoqa": ["--config.answers=test_set"]}  # that a task needs besides the data


def test_missing_videos_count_as_wrong_and_are_reported(videos, model, tmp_path, capsys):
    rows = [*captioned(*COLOURS), *captioned("broken", "gone")]
    words = manifest(videos, tmp_path, rows)
    result = evaluate("retrieval", [*words, "--allow_missing"], tmp_path)
    assert (result["n_expected"], result["n_missing"]) == (6, 2)
    assert [entry["video"] for entry in result["missing"]] == ["broken.mp4", "gone.mp4"]
    assert all(entry["reason"] for entry in result["missing"])
    assert result["protocol"]["gallery"] == 6
    for direction in ("t2v", "v2t"):
        assert result["metrics"][direction]["n_queries"] == 6
        assert result["metrics"][direction]["R@1"] == pytest.approx(400 / 6)
        assert result["metrics"][direction]["MnR"] == pytest.approx((4 * 1 + 2 * 6) / 6)
    assert "2 of 6 counted as wrong" in capsys.readouterr().out


def test_missing_videos_are_wrong_where_k_reaches_the_last_place(videos, model, tmp_path):
    rows = [*captioned("red"), *captioned(*(f"gone{number}" for number in range(5)))]
    result = evaluate("retrieval", [*manifest(videos, tmp_path, rows), "--allow_missing"], tmp_path)
    for direction in ("t2v", "v2t"):
        for scores in (result["metrics"][direction], result["metrics"][direction]["optimistic"]):
            assert [scores[name] for name in ("R@1", "R@5", "R@10")] == [pytest.approx(100 / 6)] * 3


def test_results_of_names_with_dots_do_not_share_a_table_of_queries(videos, model, tmp_path):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    for name in ("m_0.5", "m_0.7", "m.json"):
        assert (
            cli.main(["eval", "--config", "eval/retrieval", "--model", "m", "--out", str(tmp_path / name), *words]) == 0
        )
    tables = {json.loads((tmp_path / name).read_text())["queries"]["name"] for name in ("m_0.5", "m_0.7", "m.json")}
    assert len(tables) == 3
    assert all((tmp_path / table).is_file() for table in tables)


def test_worker_processes_give_the_same_result(videos, model, tmp_path, monkeypatch):
    rows = [
        *captioned(*COLOURS, "broken"),
        {"id": "end", "video": "red_then_blue.mp4", "start": 1.2, "caption": "blue end"},
    ]
    words = [*manifest(videos, tmp_path, rows), "--config.data.workers=2"]
    here = evaluate("retrieval", words, tmp_path)
    monkeypatch.undo()
    monkeypatch.setitem(harvest_jax.__dict__, "load", lambda folder: model)
    assert pool.VideoDecoder is not DecoderInThisProcess
    there = evaluate("retrieval", words, tmp_path)
    assert {**there, "run": here["run"]} == here
    assert (here["n_expected"], here["n_missing"]) == (6, 1)


def test_a_video_outside_the_root_is_refused(videos, model, tmp_path, capsys):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.mp4").symlink_to(videos / "red.mp4")
    shutil.copy(videos / "blue.mp4", root)
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in captioned("link", "blue")), encoding="utf-8")
    words = [f"--config.data.manifest={path}", f"--config.data.root={root}"]
    evaluate("retrieval", words, tmp_path, code=DataError.exit_code)
    assert "leads out of the root" in capsys.readouterr().err


def test_no_readable_video_is_an_error_not_a_zero(videos, model, tmp_path, capsys):
    for task in ("retrieval", "zero_shot", "videoqa"):
        rows = [
            {"video": f"{name}.mp4", "caption": "c", "label": "l", "question": "q", "answer": "red"} for name in "ab"
        ]
        words = [*manifest(videos, tmp_path, rows), *FIELDS.get(task, ())]
        evaluate(task, [*words, "--allow_missing"], tmp_path, code=DataError.exit_code)
        assert "none of the 2 videos of set.jsonl could be read; the first, a.mp4" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["retrieval", "zero_shot", "videoqa"])
def test_a_model_gone_wrong_is_an_error_not_a_hundred_percent(videos, model, tmp_path, monkeypatch, capsys, task):
    for name in ("encode_video", "answer_logits"):
        method = getattr(ColourModel, name)
        monkeypatch.setattr(ColourModel, name, lambda *arguments, method=method: method(*arguments) * np.nan)
    rows = [
        question("red", "what?", "red", caption="c", label="red"),
        question("blue", "what?", "blue", caption="c", label="b"),
    ]
    words = [*manifest(videos, tmp_path, rows), *FIELDS.get(task, ())]
    evaluate(task, words, tmp_path, code=NonFiniteError.exit_code)
    error = capsys.readouterr().err
    assert "not finite" in error
    assert error.count("\n") == 1


def test_strict_is_an_error_after_the_result_was_written(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, [*captioned(*COLOURS), *captioned("broken")])
    evaluate("retrieval", [*words, "--config.strict=true"], tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err
    assert "strict=True: 1 of 5 counted as wrong" in error
    assert error.count("\n") == 1
    # What was computed is kept.
    assert json.loads((tmp_path / "out" / "result.json").read_text())["missing"][0]["video"] == "broken.mp4"


def test_batches_neither_drop_nor_double(videos, model, tmp_path):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    whole = evaluate("retrieval", words, tmp_path)
    assert model.batches == [4]
    model.batches.clear()
    parts = evaluate("retrieval", [*words, "--config.batch_size=3"], tmp_path)
    assert model.batches == [3, 1]
    del parts["run"], whole["run"]  # it has the seconds
    assert parts == whole  # the batch size is not part of the protocol


def test_without_out_the_result_is_the_last_line(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    assert cli.main(["eval", "--config", str(CONFIGS / "retrieval.py"), "--model", "m", *words]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]["t2v"]["R@1"] == 100


def test_the_result_is_written_if_the_output_is_closed(tmp_path):
    """As in `harvest eval ... --out r.json | true`."""
    old = REPOSITORY / "tests" / "data" / "version_0_1_0"
    command = [sys.executable, "-m", "harvest_jax", "eval", "--config", str(CONFIGS / "retrieval.py")]
    command += ["--model", str(old / "workdir" / "export"), "--out", str(tmp_path / "r.json")]
    command += [f"--config.data.shards={old / 'shards'}", "--config.data.split=train"]
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        subprocess.run(command, stdout=closed, stderr=subprocess.DEVNULL, timeout=300)
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["n_expected"] == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.data.manifest="], "set data.manifest"),
        (["--config.batch_sise=4"], "did you mean batch_size?"),
        (["--config.data.manifets=x"], "did you mean data.manifest?"),
        (["--config.batch_size=four"], "batch_size: expected a whole number, got 'four'"),
        (["--config.batch_size=0"], "batch_size=0 is outside 1..65536"),
        (["--config.dual_softmax_scale=nan"], "dual_softmax_scale=nan"),
        (["--config.task=retreival"], "task='retreival' must be one of"),
        (["--config.frames=-1"], "frames=-1"),
    ],
)
def test_a_wrong_field_is_one_line(words, message, tmp_path, capsys):
    words = ["--config.data.manifest=gone.csv", *words]
    evaluate("retrieval", words, tmp_path, code=ConfigError.exit_code)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_missing_and_broken_manifests_are_one_line(videos, model, tmp_path, capsys):
    evaluate("retrieval", ["--config.data.manifest=gone.csv"], tmp_path, code=DataError.exit_code)
    assert "gone.csv" in capsys.readouterr().err
    words = manifest(videos, tmp_path, [*captioned("red"), {"video": "blue.mp4", "caption": ""}])
    evaluate("retrieval", words, tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err
    assert "1 rows cannot be used" in error
    assert "caption" in error
    assert error.count("\n") == 1
    words = manifest(videos, tmp_path, [{"video": "red.mp4", "label": "red"}])
    evaluate("retrieval", words, tmp_path, code=DataError.exit_code)
    assert "1 rows have no caption, the first: red" in capsys.readouterr().err


def test_names_in_a_manifest_cannot_control_the_terminal(videos, model, tmp_path, capsys):
    bell = "\x1b]0;title\x07"
    rows = [*captioned(*COLOURS), {"id": bell, "video": f"{bell}.mp4", "caption": bell, "type": bell}]
    evaluate("zero_shot", manifest(videos, tmp_path, rows), tmp_path, code=DataError.exit_code)
    evaluate("retrieval", [*manifest(videos, tmp_path, rows[4:])], tmp_path, code=DataError.exit_code)
    questions = [{"video": "red.mp4", "options": ["red", "blue"], "answer": 0, "type": bell}]
    evaluate("multiple_choice", manifest(videos, tmp_path, questions), tmp_path)
    printed = capsys.readouterr()
    assert "title" in printed.err
    assert "title" in printed.out
    assert not {"\x1b", "\x07"} & set(printed.out + printed.err)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (".", "is a folder"),
        ("/dev/null", "is not a regular file"),
        ("/proc/r.json", "cannot be written"),
        ("/dev/null/r.json", "cannot be written"),
        ("taken.json", "is a folder"),
    ],
)
def test_out_that_cannot_be_written_is_refused_before_the_work(videos, model, tmp_path, capsys, out, message):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    (tmp_path / "taken.json.queries.parquet").mkdir()
    out = str(tmp_path / out) if out == "taken.json" else out
    command = ["eval", "--config", str(CONFIGS / "retrieval.py"), "--model", "m", "--out", out, *words]
    assert cli.main(command) == ConfigError.exit_code
    error = capsys.readouterr().err
    assert f"--out {out}" in error
    assert message in error
    assert error.count("\n") == 1
    assert model.batches == []


def test_a_real_model_folder_is_scored_as_its_own_api_says(videos, tmp_path, monkeypatch):
    import jax

    from harvest_jax.model.config import DecoderConfig, HarvestConfig, TextConfig, VideoConfig
    from harvest_jax.model.harvest import Harvest
    from harvest_jax.weights.folder import save_model

    monkeypatch.setattr(pool, "VideoDecoder", DecoderInThisProcess)
    config = HarvestConfig(
        "tiny", VideoConfig(16, 8, 2, 8, 1, 2, 8), TextConfig(600, 24, 8, 1, 2, 8), DecoderConfig(1, 8, 2, 8, 600)
    )
    shapes = jax.eval_shape(Harvest(config).init, jax.random.key(0))
    rng = np.random.default_rng(0)  # drawn here: compiling the model's own initialisation takes longer than the rest
    params = jax.tree.map(lambda leaf: np.asarray(rng.normal(size=leaf.shape), np.float32), shapes)
    save_model(tmp_path / "model", config, params, {})
    names = [*COLOURS, "red_then_blue"]
    rows = [
        {"video": f"{n}.mp4", "caption": f"a {n} square", "label": n, "question": "what?", "options": ["a", n]}
        for n in names
    ]
    words = manifest(videos, tmp_path, [{**row, "answer": 1} for row in rows])
    answers = manifest(videos, tmp_path, [{**row, "answer": n} for row, n in zip(rows, names, strict=True)], "qa.jsonl")
    model = harvest_jax.load(tmp_path / "model")
    monkeypatch.setitem(harvest_jax.__dict__, "load", lambda folder: model)  # compile once
    video = model.encode_video([videos / f"{n}.mp4" for n in names])
    text = model.encode_text([f"a {n} square" for n in names])
    by_hand = ranking.summary(whole_matrix.text_to_video(ranking.similarity(video, text), np.arange(5)))
    assert evaluate("retrieval", words, tmp_path)["metrics"]["t2v"] == by_hand
    assert evaluate("zero_shot", words, tmp_path)["metrics"]["n"] == 5
    assert evaluate("multiple_choice", words, tmp_path)["metrics"]["chance"] == 50
    questions = evaluate("videoqa", [*answers, *FIELDS["videoqa"]], tmp_path)["metrics"]
    assert (questions["n"], questions["n_answers"], questions["coverage"]) == (5, 5, 100)


@pytest.mark.skipif(not DATA.is_dir(), reason="no real clips here; see tests/helpers/annotations.py")
def test_real_clips_are_all_read(model, tmp_path):
    words = [f"--config.data.manifest={DATA / 'web_clips.csv'}"]
    result = evaluate("retrieval", words, tmp_path)
    assert (result["n_expected"], result["n_missing"], model.clips_seen) == (12, 0, 12)
    zero_shot = evaluate("zero_shot", [*words, "--config.label_column=category", "--config.data.split="], tmp_path)
    assert (zero_shot["n_expected"], zero_shot["protocol"]["classes"]) == (48, 8)
