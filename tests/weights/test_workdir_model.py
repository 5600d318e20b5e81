"""The model of a training folder: of a workdir that version 0.1.0 left, and damaged ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import harvest_jax
from harvest_jax import cli
from harvest_jax.checkpoint import digests
from harvest_jax.errors import CheckpointError, DataError
from harvest_jax.weights.folder import load_model
from harvest_jax.weights.workdir_model import load_any_model

OLD = Path(__file__).resolve().parents[1] / "data" / "version_0_1_0"
EXPECTED = json.loads((OLD / "expected.json").read_text())


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A copy of a run that was stopped after step 4 of 6; its model.init_from is "model"."""
    shutil.copytree(OLD / "workdir", tmp_path / "runs" / "w@1")  # a name that looks like a step
    shutil.copytree(OLD / "model", tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return Path("runs/w@1")


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("path", ["runs/w@1", "runs/w@1@4", "runs/w@1/checkpoints/4"])
def test_a_checkpoint_is_named_in_three_ways(workdir, path, caplog):
    before = snapshot(workdir)
    found = load_any_model(path)
    assert found.name == "runs/w@1@4"
    assert found.origin["workdir_step"] == 4
    assert found.origin["workdir"] == "w@1"
    assert found.origin["config"]["train"]["steps"] == 6
    assert len(found.origin["digest"]) == 64
    assert snapshot(workdir) == before  # a run may be using it
    told = "runs/w@1 is a training folder: its newest good checkpoint is used, runs/w@1@4"
    assert (told in caplog.text) == (path == "runs/w@1")


def test_trained_and_frozen_parameters_are_those_of_the_run(workdir):
    """The text tower is the frozen one it started from; the video tower has moved from it."""
    found = load_any_model(workdir)
    start_config, start = load_model(Path("model"))
    for ours, theirs in zip(*(sorted(flat(part["text"])) for part in (found.params, start)), strict=True):
        assert ours[0] == theirs[0]
        np.testing.assert_array_equal(ours[1], theirs[1])
    kernel = found.params["video"]["proj"]["kernel"]
    assert kernel.shape == start["video"]["proj"]["kernel"].shape
    assert (kernel != start["video"]["proj"]["kernel"]).any()
    assert found.config.text == start_config.text
    assert found.config.video.num_frames == 4


def flat(tree):
    from flax import traverse_util

    return traverse_util.flatten_dict(tree, sep="/").items()


def test_harvest_load_takes_a_workdir_and_says_which_step_it_is(workdir):
    model = harvest_jax.load(workdir)
    assert model.name == "runs/w@1@4"
    texts = model.encode_text(["a red square moves left"])
    np.testing.assert_allclose(texts, EXPECTED["text_embeddings"], atol=2e-5)  # frozen: as in the export


@pytest.mark.parametrize("gone", ["export", "export and model", "export and config.json"])
def test_the_description_is_found_without_model_json(workdir, gone):
    shutil.rmtree(workdir / "export")
    if gone == "export":
        assert load_any_model(workdir).config.video.num_frames == 4
        return
    if "config.json" in gone:
        (workdir / "config.json").unlink()
    else:
        shutil.rmtree("model")
    with pytest.raises(DataError, match=r"does not say what its model is: model\.json") as caught:
        load_any_model(workdir)
    assert ("started from, model, is not there" in str(caught.value)) == (gone == "export and model")


def test_weights_import_makes_a_model_folder_of_it(workdir, capsys):
    assert cli.main(["weights", "import", "runs/w@1@4", "--out", "m"]) == 0
    assert "runs/w@1@4: harvest_jax (checkpoint of step 4 of a training)" in capsys.readouterr().out
    _, imported = load_model(Path("m"))
    expected = dict(flat(load_any_model(workdir).params))
    assert {name: leaf.tobytes() for name, leaf in flat(imported)} == {n: x.tobytes() for n, x in expected.items()}
    origin = json.loads(Path("m/config.json").read_text())["origin"]
    assert origin["training"]["workdir_step"] == 4


def damage(folder):
    path = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])


def copy_as_step_3(workdir):
    folder = shutil.copytree(workdir / "checkpoints/4", workdir / "checkpoints/3")
    record = {name: value for name, value in digests.read_digests(folder).items() if name not in ("format", "files")}
    (folder / digests.MANIFEST).unlink()
    digests.write_digests(folder, record | {"step": 3})


def test_damage_is_one_clear_line(workdir, capsys):
    copy_as_step_3(workdir)  # a good one, for the choice
    damage(workdir / "checkpoints/4")
    with pytest.raises(CheckpointError, match=r"step 4 in runs/w@1 is damaged: .* \(expected .*; it has the steps"):
        load_any_model("runs/w@1@4")
    assert load_any_model(workdir).name == "runs/w@1@3"  # the newest good one
    assert cli.main(["weights", "import", "runs/w@1@4", "--out", "m"]) == 5
    error = capsys.readouterr().err
    assert error.startswith("harvest weights: the checkpoint of step 4")
    assert error.count("\n") == 1


def test_missing_steps_and_damaged_frozen_parameters_are_told(workdir):
    with pytest.raises(CheckpointError, match="holds no checkpoint of step 7; it has the steps 4"):
        load_any_model("runs/w@1@7")
    with pytest.raises(CheckpointError, match="holds no checkpoint of step 7; it has the steps 4"):
        load_any_model("runs/w@1/checkpoints/7")
    with pytest.raises(CheckpointError, match="'last' is not a step"):
        load_any_model("runs/w@1@last")
    (workdir / "checkpoints/9").mkdir()  # a save that never ended
    with pytest.raises(CheckpointError, match="step 9 in runs/w@1 is damaged: no MANIFEST"):
        load_any_model("runs/w@1@9")
    assert load_any_model(workdir).name == "runs/w@1@4"
    damage(workdir / "frozen_text")
    with pytest.raises(CheckpointError, match=r"frozen_text is damaged: .*; resume the training"):
        load_any_model(workdir)
    shutil.rmtree(workdir / "checkpoints/4")
    with pytest.raises(CheckpointError, match="holds no good checkpoint"):
        load_any_model(workdir)
