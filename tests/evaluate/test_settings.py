"""Evaluation configs: those of the repository, users' copies of older ones, and faults in them."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from harvest_jax import cli
from harvest_jax.config.files import load_dict
from harvest_jax.errors import ConfigError
from harvest_jax.evaluate import evaluation, tasks
from tests.helpers.colour_evaluation import CONFIGS, REPOSITORY, manifest

TASKS = ["clip_choice", "counting", "linear_probe", "multiple_choice", "pairs", "retrieval", "reversal"]
TASKS += ["videoqa", "zero_shot"]
OLD_TASKS = ["multiple_choice", "retrieval", "videoqa", "zero_shot"]  # of version 0.1.0
OLD = REPOSITORY / "tests" / "data" / "evaluation" / "configs_0_1_0"
MANIFEST = ["data.manifest=x.csv"]
NEEDED = dict.fromkeys(TASKS, MANIFEST) | {
    "videoqa": [*MANIFEST, "answers=train.json"],
    "linear_probe": [*MANIFEST, "train.manifest=t.csv"],
}


def test_the_tasks_are_the_files_of_their_folder():
    assert evaluation.task_names() == TASKS


NEW_TASK = """
import dataclasses
from harvest_jax.evaluate.result.results import TaskOutput
from harvest_jax.evaluate.clips.embeddings import embed_videos, text_facts
from harvest_jax.evaluate.settings import TaskSettings

@dataclasses.dataclass(frozen=True)
class Settings(TaskSettings):
    factor: int

def run(model, data, settings, progress):
    video = embed_videos(model, data, settings, progress)
    protocol = {"factor": settings.factor}
    width = settings.factor * video.values.shape[1]
    return TaskOutput(protocol, [], video.missing, video.reasons, {"width": width}, [], text_facts(model, []))

def table(metrics):
    return [f"the width is {metrics['width']}"]
"""
NEW_CONFIG = """
from configs.eval import base

def get_config():
    config = base.get_config()
    config.task = "embedding_width"
    config.factor = 2
    return config
"""


def test_a_new_task_is_one_file(videos, model, tmp_path, monkeypatch, capsys):
    (tmp_path / "embedding_width.py").write_text(NEW_TASK)
    (tmp_path / "config.py").write_text(NEW_CONFIG)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    words = manifest(videos, tmp_path, [{"video": "red.mp4", "caption": "x"}])
    command = ["eval", "--config", str(tmp_path / "config.py"), "--model", "m", *words, "--config.factor=10"]
    assert cli.main(command) == 0
    *shown, result = capsys.readouterr().out.splitlines()
    assert "the width is 30" in shown
    assert json.loads(result)["metrics"] == {"width": 30}
    assert json.loads(result)["protocol"]["factor"] == 10
    assert cli.main([*command, "--config.factor=ten"]) == ConfigError.exit_code
    assert "factor: expected a whole number" in capsys.readouterr().err


@pytest.mark.parametrize("task", TASKS)
def test_every_config_is_sound_and_opens_with_its_command(task):
    path = CONFIGS / f"{task}.py"
    assert evaluation.check(load_dict(str(path), NEEDED[task])).task == task
    assert f"harvest eval --config eval/{task}" in path.read_text("utf-8").split('"""')[1]


@pytest.mark.parametrize("task", OLD_TASKS)
def test_a_users_copy_of_an_older_config_has_the_same_settings(task):
    """Version 0.1.0 had all fields in each file."""
    old = evaluation.check(load_dict(str(OLD / f"{task}.py"), NEEDED[task]))
    assert old == evaluation.check(load_dict(str(CONFIGS / f"{task}.py"), NEEDED[task]))


def test_configs_find_their_common_fields_where_the_package_is_installed(tmp_path):
    """Installed, `configs` is a folder of the package `harvest_jax`."""
    for package in ("harvest_jax", "data_pipeline"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "configs", tmp_path / "harvest_jax" / "configs")
    script = (
        "from harvest_jax.config.files import config_file, load_dict\n"
        "from harvest_jax.evaluate import evaluation\n"
        f"for task, fields in {NEEDED}.items():\n"
        "    path = config_file(f'eval/{task}.py')\n"
        "    print(path, evaluation.check(load_dict(str(path), fields)).task)\n"
    )
    work = tmp_path / "work"
    work.mkdir()
    command = [sys.executable, "-P", "-c", script]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    lines = subprocess.run(command, cwd=work, env=environment, check=True, capture_output=True, text=True).stdout
    assert lines.split() == [
        word for task in TASKS for word in (f"{tmp_path}/harvest_jax/configs/eval/{task}.py", task)
    ]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("configs/base.py", "is a training config: harvest train --config"),
        ("demo", "is a training config: harvest train --config"),
        ("eval/base", "the config has no task: give a config of configs/eval/, for example --config eval/retrieval"),
    ],
)
def test_a_config_without_a_task_is_one_line_that_names_what_helps(config, message, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert cli.main(["eval", "--config", config, "--model", "m"]) == ConfigError.exit_code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_settings_list_every_fault():
    values = {"task": "zero_shot", "data": {"manifest": "x", "rot": ""}, "frames": "8", "strict": 1, "ensemble": "x"}
    with pytest.raises(ConfigError) as error:
        evaluation.check(values)
    for fault in (
        "unknown field data.rot (did you mean data.root?)",
        "missing field data.shards",
        "frames: expected a whole number, got '8'",
        "strict: expected True or False, got 1",
        "missing field prompts",
        "ensemble='x' must be one of mean_vector",
    ):
        assert fault in str(error.value)
    with pytest.raises(ConfigError, match="data is a group of fields"):
        evaluation.check({"task": "retrieval", "data": "x.csv"})


def test_prompts_may_be_a_list_in_a_config():
    values = load_dict(str(CONFIGS / "zero_shot.py"), MANIFEST).to_dict()
    assert evaluation.check(values | {"prompts": ["a {}", "b {}"]}).prompts == ("a {}", "b {}")
    expected = "prompts: expected a text or a list of texts, got"
    for prompts, message in (([1], expected), (["a"], "once"), ([], "empty"), (7, expected)):
        with pytest.raises(ConfigError, match=message):
            evaluation.check(values | {"prompts": prompts})
