"""`harvest inspect`: what a folder is, and which files are written."""

import json
import shutil
from pathlib import Path

import pytest

from harvest_jax import cli
from harvest_jax.demo.image_clip import SHIPPED

OLD = Path(__file__).parent / "data" / "version_0_1_0" / "workdir"


@pytest.fixture
def workdir(tmp_path):
    """A training folder with one complete checkpoint, of step 4, and an empty folder beside it."""
    folder = tmp_path / "run"
    shutil.copytree(OLD, folder)
    (folder / "checkpoints" / "9").mkdir()
    return folder


def test_a_model_folder(capsys):
    assert cli.main(["inspect", str(SHIPPED)]) == 0
    text = capsys.readouterr().out
    assert "all: 5" in text  # of 591,105 parameters
    assert "made_by: harvest_jax.demo.image_clip" in text


def test_shards_and_the_files_that_are_written(tmp_path, world_shards, capsys):
    sheet, page = tmp_path / "sheet.png", tmp_path / "page.html"
    words = ["inspect", str(world_shards), "--contact_sheet", str(sheet), "--html", str(page)]
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "train: 24 clips" in text
    assert f"written: {sheet}\nwritten: {page}\n" in text
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert page.read_text().startswith("<!doctype html>")
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == {"contact_sheet": str(sheet), "html": str(page)}


def test_a_training_folder_has_the_checkpoints_that_are_complete(workdir, capsys):
    assert cli.main(["inspect", str(workdir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["checkpoints"], found["incomplete"]) == ("workdir", [4], [9])
    assert found["last_metrics"]["step"] == 4


def test_one_checkpoint_of_a_training_folder(workdir, capsys):
    assert cli.main(["inspect", str(workdir / "checkpoints" / "4")]) == 0
    text = capsys.readouterr().out
    assert "kind: training checkpoint\nstep: 4\n" in text
    assert "batch_size: " in text
    assert cli.main(["inspect", str(workdir / "checkpoints" / "9")]) == 3
    said = capsys.readouterr().err
    assert "9 is not a complete checkpoint: its MANIFEST.json is missing or altered; complete steps: 4" in said
    assert said.count("\n") == 1


def test_what_is_none_of_these(tmp_path, workdir, capsys):
    assert cli.main(["inspect", str(tmp_path)]) == 3
    assert "is not a shard folder" in capsys.readouterr().err
    assert cli.main(["inspect", str(workdir), "--html", str(tmp_path / "x.html")]) == 2
    assert f"--html is for shard folders, and {workdir} is not one" in capsys.readouterr().err


def test_a_name_that_would_control_the_terminal_is_shown_escaped(tmp_path, capsys):
    folder = tmp_path / "\x1b[31mred"
    folder.mkdir()
    assert cli.main(["inspect", str(folder)]) == 3
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert r"\x1b[31mred" in said
