"""Something else given where a model is expected: one line says what it is and the command that helps."""

import json
import shutil
from pathlib import Path

import pytest

from harvest_jax.cli import main
from harvest_jax.demo.image_clip import SHIPPED
from harvest_jax.errors import DataError
from harvest_jax.weights.folder import load_config, open_model

ROOT = Path(__file__).resolve().parents[2]
OLD = ROOT / "tests" / "data" / "version_0_1_0"
IMPORT = "harvest weights import {path} --out D makes a model folder of it"


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """By kind: a path that exists and is not a model folder."""
    folder = tmp_path_factory.mktemp("paths")
    shutil.copytree(OLD / "workdir", folder / "finished")
    shutil.copytree(OLD / "workdir", folder / "stopped")
    shutil.rmtree(folder / "stopped/export")
    (folder / "training config").mkdir()
    shutil.copy(OLD / "workdir/config.json", folder / "training config")
    for file_format, name in (
        ("hf", "hf"),
        ("open_clip", "oc"),
        ("viclip", "v.safetensors"),
        ("stablehlo", "programs"),
    ):
        assert main(["weights", "export", str(SHIPPED), "--format", file_format, "--out", str(folder / name)]) == 0
    (folder / "empty").mkdir()
    (folder / "other").mkdir()
    (folder / "other/config.json").write_text(json.dumps({"model": {"name": "x"}}))
    return {
        "finished": folder / "finished",
        "stopped": folder / "stopped",
        "step": folder / "stopped/checkpoints/4",
        "checkpoints": folder / "stopped/checkpoints",
        "training config": folder / "training config",
        "hf": folder / "hf",
        "open_clip": folder / "oc",
        "file": folder / "v.safetensors",
        "programs": folder / "programs",
        "shards": OLD / "shards",
        "python": ROOT / "configs/eval/retrieval.py",
        "manifest": OLD / "videos/manifest.csv",
        "empty": folder / "empty",
        "other": folder / "other",
        "missing": folder / "missing",
    }


MESSAGES = {
    "finished": "is a training folder, not a model folder: the model that it trained is {path}/export",
    "stopped": f"is a training folder, not a model folder: {IMPORT}",
    "step": "is a checkpoint of a training, not a model folder: harvest weights import {workdir}@4 --out D makes",
    "checkpoints": "holds the checkpoints of a training: harvest weights import {parent} --out D makes a model folder",
    "training config": "is not a model folder: its config.json is that of a training run",
    "hf": f"is a folder of Hugging Face, not of this package: {IMPORT}",
    "open_clip": f"is a folder of OpenCLIP, not of this package: {IMPORT}",
    "file": f"is a file, not a model folder: {IMPORT}",
    "programs": "is a folder of StableHLO programs, which cannot be read back",
    "shards": "is a folder of shards, not of a model: training takes it as --config.data.shards={path}",
    "python": "is a config in Python, not a model: give it to --config of harvest train or harvest eval",
    "manifest": "is a table, not a model: harvest shards takes it as --manifest",
    "empty": "is not a model folder: it holds no config.json",
    "other": "is not a model folder: its config.json does not describe a model of this package",
    "missing": "does not exist",
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_what_is_not_a_model_folder_is_named(paths, kind):
    path = paths[kind]
    expected = f"{path} {MESSAGES[kind]}".format(path=path, parent=path.parent, workdir=path.parent.parent)
    for load in (load_config, open_model):
        with pytest.raises(DataError) as caught:
            load(path)
        assert str(caught.value).startswith(expected)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["python", "shards", "programs", "manifest"])
def test_what_cannot_be_imported_is_named(paths, kind, tmp_path, capsys):
    assert main(["weights", "import", str(paths[kind]), "--out", str(tmp_path / "out")]) == 3
    said = capsys.readouterr().err
    assert said.startswith(f"harvest weights: {paths[kind]} {MESSAGES[kind]}".format(path=paths[kind]))
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", [["export", "--format", "open_clip"], ["mix", str(SHIPPED), "--alpha", "0.5"]])
def test_commands_that_take_model_folders_say_it(paths, command, tmp_path, capsys):
    code = main(["weights", *command, str(paths["stopped"]), "--out", str(tmp_path / "out")])
    assert code == 3
    assert capsys.readouterr().err == f"harvest weights: {paths['stopped']} {MESSAGES['stopped']}\n".format(
        path=paths["stopped"]
    )
