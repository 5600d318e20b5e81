"""A run that begins from a state of another run: with the same config it takes the same steps, bit for bit."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from harvest_jax import cli
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.config import run as run_config
from harvest_jax.errors import ConfigError
from harvest_jax.model.harvest import Harvest
from harvest_jax.train import agreement, fork
from harvest_jax.train.optim import schedule
from harvest_jax.train.step import Step
from tests.helpers.small_model import TINY
from tests.helpers.train_command import train_arguments
from tests.helpers.train_runs import make_run

OLD = Path(__file__).resolve().parents[1] / "data" / "version_0_1_0"
STEPS = ("train.steps=4", "train.save_every=2", "train.keep_checkpoints=9")


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A run of 4 steps with checkpoints of steps 2 and 4."""
    workdir = tmp_path_factory.mktemp("origin") / "run"
    assert cli.main(["train", *train_arguments(OLD / "shards", workdir, *STEPS)]) == 0
    return workdir


def forked(capsys, path, workdir, *words):
    """(status, standard output, standard error) of `harvest train --fork`."""
    status = cli.main(["train", "--fork", str(path), "--workdir", str(workdir), *words])
    return status, *capsys.readouterr()


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(workdir):
    return {
        row["step"]: (row["loss"], row["mlm_loss"], row["grad_norm"], row["learning_rate"]) for row in rows(workdir)
    }


def weights(workdir):
    return (workdir / "export/model.safetensors").read_bytes()


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_with_the_same_config_it_takes_the_same_steps_bit_for_bit(origin, tmp_path, capsys):
    """It needs its origin at the first start alone, and says where it comes from."""
    source, new = shutil.copytree(origin, tmp_path / "source"), tmp_path / "new"
    before = snapshot(source)
    status, said, _ = forked(capsys, f"{source}@2", new)
    assert status == 0
    assert f"a fork of {source}@2: parameters kept, optimizer kept; the same config" in said
    assert "go on from step 2 of 4" in said
    assert losses(new) == {step: values for step, values in losses(origin).items() if step > 2}
    assert weights(new) == weights(origin)
    assert snapshot(source) == before
    assert Workdir(new).complete_steps() == [2, 4]

    shutil.rmtree(source)
    shutil.rmtree(new / "export")  # as if it had been killed before the export
    status, said, _ = forked(capsys, f"{source}@2", new)
    assert status == 0
    assert f"a fork of {source}@2" in said
    assert "go on from step 4 of 4" in said
    assert weights(new) == weights(origin)

    assert cli.main(["inspect", str(new), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["forked_from"]
    assert (found["workdir"], found["step"], found["optimizer"], found["changed"]) == (str(source), 2, "kept", {})
    assert json.loads((new / "export/config.json").read_text())["origin"]["forked_from"] == found
    assert Workdir(new).manifest(4)["forked_from"] == found


@pytest.mark.slow
def test_a_finished_run_is_lengthened_with_other_parameters_that_train(origin, tmp_path, capsys):
    new = tmp_path / "new"
    words = ["--config.train.steps=6", "--config.train.learning_rate=1e-3"]
    everything = '--config.train.lr_multipliers=((".*",1.0),)'
    status, _, error = forked(capsys, origin, new, *words, everything)
    assert status == 2
    assert "train.lr_multipliers trains other parameters" in error
    assert "--fresh_optimizer" in error
    status, said, _ = forked(capsys, origin, new, *words, everything, "--fresh_optimizer")
    assert status == 0
    assert f"a fork of {origin}@4: parameters kept, optimizer fresh" in said
    assert "train.steps was 4 and is 6 now" in said
    assert list(losses(new)) == [5, 6]
    run = run_config.load_recorded(new / "config.json")
    rates = [row["learning_rate"] for row in rows(new)]
    np.testing.assert_allclose(rates, [float(schedule(run.train)(step)) for step in (4, 5)], rtol=1e-6)
    assert not (new / "frozen_text").exists()  # all parameters train
    status, _, error = forked(capsys, origin, new, *words, everything)  # now without --fresh_optimizer
    assert status == 2
    assert f"{new} holds a run that began from {origin} (optimizer fresh): leave --fork out" in error


def test_a_fresh_optimizer_has_no_moments_and_the_learning_rate_of_its_step():
    step, params = Step(Harvest(TINY), make_run(train__steps=10)), {"kernel": jax.numpy.ones((3, 2))}
    state = fork._begin_at(step, params, jax.numpy.int32(7))
    (adam,) = (part for part in state.opt_state if isinstance(part, optax.ScaleByAdamState))
    assert (int(state.step), int(adam.count), int(state.first_bad_step)) == (7, 0, -1)
    assert not adam.mu["kernel"].any()
    counts = [int(part.count) for part in state.opt_state if isinstance(part, optax.ScaleByScheduleState)]
    assert counts == [7]
    assert jax.tree.structure(state.opt_state) == jax.tree.structure(step.init_state(params).opt_state)


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A run of version 0.1.0 that was stopped after step 4 of 6. Its config lacks the fields that are younger."""
    monkeypatch.chdir(OLD)
    return shutil.copytree(OLD / "workdir", tmp_path / "old")


CHECKED = ("--validate_only", "--config.distributed=true")  # the devices of a test do not fit its batches


def test_a_run_of_an_earlier_version_can_be_forked(old, tmp_path, capsys):
    assert forked(capsys, old, tmp_path / "new", "--config.train.steps=9", *CHECKED)[:2] == (
        0,
        "the config is sound; 8 clips in split train\nnot checked: devices and mesh, because distributed=True\n",
    )


@pytest.mark.parametrize(
    ("path", "words", "message"),
    [
        ("{old}", ["--config.train.steps=4"], "has taken 4 steps, and train.steps=4 counts them too"),
        ("{old}@4", ["--config.model.num_frames=8"], "model.num_frames was 4 and is 8 now"),
        ("{old}/export", [], "names no checkpoint of a training: give WORKDIR, WORKDIR@STEP"),
        ("{old}@4", ["--config.train.stepps=8"], "did you mean train.steps"),
    ],
)
def test_what_cannot_be_forked_is_one_line(old, tmp_path, capsys, path, words, message):
    found = forked(capsys, path.format(old=old), tmp_path / "new", *words, *CHECKED)
    assert found[:2] == (2, "")
    assert message in found[2]
    assert found[2].count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_that_is_not_there_and_a_workdir_that_is_taken(old, tmp_path, capsys):
    status, _, error = forked(capsys, f"{old}@3", tmp_path / "new", *CHECKED)
    assert (status, error.count("\n")) == (5, 1)
    assert "it has the steps 4" in error
    status, _, error = forked(capsys, f"{old}@4", old, *CHECKED)
    assert (status, error.count("\n")) == (2, 1)
    assert f"{old} holds a run that began at step 0: leave --fork out" in error
    assert cli.main(["train", "--workdir", str(tmp_path / "new"), "--fresh_optimizer"]) == 2
    assert "--fresh_optimizer belongs to --fork" in capsys.readouterr().err
    assert cli.main(["train", "--workdir", str(tmp_path / "new")]) == 2
    assert "give --config" in capsys.readouterr().err


def test_processes_that_do_not_fork_the_same_do_not_begin(tmp_path, monkeypatch):
    given = fork.Fork("runs/a@2").as_given()
    monkeypatch.setattr(agreement.consensus, "all_gather", lambda value: [value, None, value])
    with pytest.raises(ConfigError, match=r"the processes differ: --fork is .* on rank 0 and 2, null on rank 1"):
        agreement.check_same_fork_of_all(given)
