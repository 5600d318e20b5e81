"""Runs that are evaluated while they train: the same losses, the best checkpoint, and kills at the worst moments."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import harvest_jax
from harvest_jax import cli
from harvest_jax.checkpoint.scores import SCORES, StepScores, read_scores, write_scores
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.errors import CheckpointError, ConfigError, DataError
from tests.helpers.train_command import ROOT, environment, local_command, train_arguments

STEPS = ("train.steps=6", "train.save_every=4", "train.keep_checkpoints=1")


def words(shards, *more, metric="t2v/MnR"):
    evaluation = f"eval/retrieval --config.data.shards={shards} --config.data.split=test"
    return (*STEPS, "eval.every=2", f"eval.config={evaluation}", f"eval.metric={metric}", *more)


def train(shards, workdir, *overrides, code=0):
    assert cli.main(["train", *train_arguments(shards, workdir, *overrides)]) == code
    return workdir


def logged(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [(row["step"], row["loss"], row["grad_norm"]) for row in rows if "loss" in row]
    scores = [row for row in rows if "loss" not in row]
    return losses, scores


@pytest.fixture(scope="module")
def scored(world_shards, tmp_path_factory):
    """A run whose best step is not the last: the smaller its number the better."""
    return train(world_shards, tmp_path_factory.mktemp("scored") / "run", *words(world_shards, "eval.export=best"))


def test_losses_are_those_of_a_run_without_evaluations(scored, world_shards, tmp_path):
    plain = train(world_shards, tmp_path / "plain", *STEPS)
    losses, scores = logged(scored)
    assert (losses, []) == logged(plain)
    assert [row["step"] for row in scores] == [0, 2, 4, 6]


def test_the_best_checkpoint_is_kept_opened_and_exported(scored, world_shards, capsys):
    scores = {row["step"]: row["eval/retrieval/t2v/MnR"] for row in logged(scored)[1] if row["step"]}
    best = min(scores, key=scores.get)
    assert Workdir(scored).complete_steps() == sorted({best, 6})
    model = harvest_jax.load(f"{scored}@best")
    assert model.name == f"{scored}@{best}"
    assert harvest_jax.load(scored / "export").digest == model.digest
    assert json.loads((scored / "export/config.json").read_text())["origin"]["workdir_step"] == best
    capsys.readouterr()
    assert cli.main(["inspect", str(scored), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best"] == {"step": best, "score": scores[best], "metric": "retrieval/t2v/MnR"}
    assert (found["last_scores"]["step"], found["last_metrics"]["step"]) == (6, 6)
    assert "loss" in found["last_metrics"]


def test_a_score_is_that_of_harvest_eval(scored, world_shards, tmp_path):
    data = [f"--config.data.shards={world_shards}", "--config.data.split=test", "--out", str(tmp_path / "r.json")]
    assert cli.main(["eval", "--config", "eval/retrieval", "--model", f"{scored}@best", *data]) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    kept = read_scores(Workdir(scored), result["model"]["origin"]["workdir_step"])
    assert kept.protocols == {"retrieval": result["protocol_hash"]}
    assert kept.values["retrieval/t2v/MnR"] == result["metrics"]["t2v"]["MnR"]


@pytest.mark.slow
def test_a_run_killed_between_evaluation_and_its_record_goes_on_as_if_it_had_not_been(scored, world_shards, tmp_path):
    run = tmp_path / "run"
    overrides = words(world_shards, "eval.export=best")
    command = [sys.executable, "-m", "tests.helpers.killed_at", "write", "1", str(run / "checkpoints/4" / SCORES)]
    killed = subprocess.run(
        [*command, "train", *train_arguments(world_shards, run, *overrides)],
        env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert Workdir(run).complete_steps()[-1] == 4
    assert read_scores(Workdir(run), 4) is None
    assert read_scores(Workdir(run), 2) is not None  # the best so far is still there
    assert [row["step"] for row in logged(run)[1]] == [0, 2]
    train(world_shards, run, *overrides)
    assert [row["step"] for row in logged(run)[1]] == [0, 2, 4, 6]
    # Another process has another number of devices, whose losses agree closely.
    np.testing.assert_allclose(logged(run)[0], logged(scored)[0], rtol=1e-4)


def test_scores_that_the_log_lacks_are_written_again_without_another_evaluation(scored, world_shards, tmp_path):
    """As after a kill between the record and the log's line; the record is altered to show that it is what is read."""
    run = shutil.copytree(scored, tmp_path / "run")
    kept = read_scores(Workdir(run), 6)
    altered = StepScores({**kept.values, "retrieval/t2v/MnR": 0.5}, kept.protocols, kept.metric, kept.lower_is_better)
    write_scores(Workdir(run), 6, altered)
    train(world_shards, run, *words(world_shards, "eval.export=best"))
    assert [row["step"] for row in logged(run)[1]] == [0, 2, 4, 6]
    assert logged(run)[1][-1]["eval/retrieval/t2v/MnR"] == 0.5
    assert json.loads((run / "export/config.json").read_text())["origin"]["workdir_step"] == 6


def test_another_metric_is_a_new_evaluation_of_the_newest_step(scored, world_shards, tmp_path, capsys):
    run = shutil.copytree(scored, tmp_path / "run")
    train(world_shards, run, *words(world_shards, metric="v2t/R@5"))
    assert read_scores(Workdir(run), 6).metric == "retrieval/v2t/R@5"
    train(world_shards, run, *words(world_shards, metric="v2t/R@50"), code=ConfigError.exit_code)
    assert "eval.metric=v2t/R@50 is no score of eval.config; these are: t2v/R@1, " in capsys.readouterr().err


def test_what_cannot_be_evaluated_ends_before_the_first_step(world_shards, tmp_path, capsys):
    def refused(code, message, *overrides):
        train(world_shards, tmp_path / "run", *overrides, code=code)
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not (tmp_path / "run/metrics.jsonl").exists() or logged(tmp_path / "run")[0] == []

    refused(ConfigError.exit_code, "eval.metric=accuracy is no score", *words(world_shards, metric="accuracy"))
    of_head = f"eval/zero_shot answer_from=head data.shards={world_shards}"
    refused(DataError.exit_code, "no head of classification", *STEPS, "eval.every=2", f"eval.config={of_head}")
    refused(ConfigError.exit_code, "no config file eval/x", *STEPS, "eval.every=2", "eval.config=eval/x")
    with pytest.raises(CheckpointError, match="no checkpoint has a score that decides"):
        harvest_jax.load(f"{tmp_path / 'run'}@best")


@pytest.mark.slow
def test_with_two_processes_the_first_one_evaluates(scored, world_shards, tmp_path):
    arguments = train_arguments(world_shards, tmp_path / "run", *words(world_shards, "eval.export=best"))
    done = subprocess.run(
        local_command(arguments, "--processes", "2"),
        env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (losses, scores), (alone, of_alone) = logged(tmp_path / "run"), logged(scored)
    np.testing.assert_allclose(losses, alone, rtol=1e-4)
    assert [row["step"] for row in scores] == [row["step"] for row in of_alone] == [0, 2, 4, 6]
    assert scores[0] == pytest.approx(of_alone[0], rel=1e-3)
    assert Workdir(tmp_path / "run").exported
