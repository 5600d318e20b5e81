"""What training refuses or warns of before the first step, as `--validate_only` shows it."""

import json
import shutil
from pathlib import Path

import pytest

from harvest_jax import cli
from tests.helpers.train_command import train_arguments

OLD = Path(__file__).resolve().parents[1] / "data" / "version_0_1_0"


@pytest.fixture
def validate(world_shards, tmp_path, capsys):
    """Runs `harvest train --validate_only` with overrides; gives (status, standard output, standard error)."""

    def run(*overrides, shards=world_shards, workdir=tmp_path / "run"):
        status = cli.main(["train", *train_arguments(shards, workdir, *overrides), "--validate_only"])
        assert not (tmp_path / "run").exists()
        return status, *capsys.readouterr()

    return run


def refused(result, status, *words):
    code, out, error = result
    assert (code, out) == (status, "")
    assert error.startswith("harvest train: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error
    return True


def test_a_sound_config_says_how_many_clips_there_are(validate):
    assert validate() == (0, "the config is sound; 24 clips in split train\n", "")


def test_a_random_tower_that_is_frozen_is_refused(validate):
    told = "without model.init_from the text tower is random, and train.lr_multipliers freezes it"
    assert refused(validate("model.init_from="), 2, told, "harvest weights import")
    assert validate("model.init_from=", 'train.lr_multipliers=((".*",1.0),)')[0] == 0
    frozen_video = 'train.lr_multipliers=(("video/.*",0.0),(".*",1.0))'
    assert refused(validate("model.init_from=", frozen_video), 2, "the video tower is random")
    assert validate(frozen_video)[0] == 0  # from a model this has a meaning


def test_the_same_without_validate_only(world_shards, tmp_path, capsys):
    arguments = train_arguments(world_shards, tmp_path / "run", "model.init_from=")
    assert cli.main(["train", *arguments]) == 2
    assert "the text tower is random" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_batch_that_repeats_clips_is_warned_of(validate):
    status, out, _ = validate("train.batch_size=32")
    assert status == 0
    assert "warning: train.batch_size=32 takes 32 clips of" in out
    assert "which holds 24" in out
    assert "warning" not in validate("train.batch_size=24")[1]


def test_mixed_sets_are_warned_of_by_their_share(validate, world_shards, tmp_path):
    shutil.copytree(world_shards, tmp_path / "other")
    both = f"data.shards={world_shards},{tmp_path / 'other'}"
    assert "warning" not in validate("train.batch_size=32", both)[1]
    out = validate("train.batch_size=32", both, "data.weights=(7,1)")[1]
    assert f"takes 28 clips of {world_shards}, which holds 24" in out


def test_no_shards_are_told_as_such(validate):
    assert refused(validate(shards=""), 2, "data.shards is empty: set it to a folder that `harvest shards` wrote")


def test_devices_and_pieces_that_training_would_refuse_are_refused(validate):
    """This process has 8 devices."""
    assert refused(validate("train.batch_size=12"), 2, "batch_size=12 cannot be divided over 8 devices")
    assert refused(validate("mesh.fsdp=3"), 2, "does not make the 8 devices")
    assert refused(validate("train.accumulate=2"), 2, "accumulate=2 makes pieces of 4 clips")
    assert refused(validate("model.attention=cudnn"), 2, "model.attention=cudnn needs")


def test_devices_of_a_cluster_are_not_checked_here(validate):
    status, out, _ = validate("train.batch_size=12", "distributed=true")
    assert status == 0
    assert "not checked: devices and mesh, because distributed=True" in out


def test_a_run_that_goes_on_needs_no_model_to_start_from(tmp_path, monkeypatch, capsys):
    """The description in its workdir counts; of version 0.1.0 that of its export. The config must be the run's."""
    shutil.copytree(OLD / "workdir", tmp_path / "old")
    monkeypatch.chdir(OLD)
    config = json.loads((OLD / "workdir/config.json").read_text())
    fields = {f"{group}.{name}": config[group][name] for group in ("model", "text", "train") for name in config[group]}
    fields |= {"data.shards": "shards", "model.init_from": "gone", "mesh.fsdp": 1, "train.batch_size": 4}
    fields = {name: value for name, value in fields.items() if name != "train.lr_multipliers"}
    words = [f"--config.{name}={value}" for name, value in fields.items()]
    command = ["train", "--config", "base", "--validate_only", *words, "--config.distributed=true"]
    assert cli.main([*command, "--workdir", str(tmp_path / "old")]) == 0
    capsys.readouterr()
    more = [*command, "--config.train.steps=60", "--workdir", str(tmp_path / "old")]
    assert refused(
        (cli.main(more), *capsys.readouterr()), 5, "train.steps was 6 and is 60 now", f"--fork {tmp_path}/old"
    )
    assert refused((cli.main([*command, "--workdir", str(tmp_path / "new")]), *capsys.readouterr()), 3, "gone")
