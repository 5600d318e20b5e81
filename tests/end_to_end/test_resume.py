"""Runs that are killed, stopped, resumed on other loaders, or given a folder of another run: the real command."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harvest_jax.compiled_programs import user_folder
from harvest_jax.train.goodput import read_history

STEPS = 12
ROOT = Path(__file__).resolve().parents[2]
START = ROOT / "harvest_jax/demo/data/image_clip"


def command(shards, workdir, *overrides):
    return [
        sys.executable,
        "-m",
        "harvest_jax",
        "train",
        "--config",
        str(ROOT / "configs/demo.py"),
        "--workdir",
        str(workdir),
        f"--config.data.shards={shards}",
        f"--config.model.init_from={START}",
        f"--config.train.steps={STEPS}",
        "--config.train.batch_size=8",
        "--config.train.log_every=1",
        "--config.train.save_every=3",
        "--config.train.warmup_steps=2",
        *overrides,
    ]


def environment(**more):
    """Every compiled program is kept for the next command, however quickly it was compiled."""
    own = {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return os.environ | own | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"} | more


def train(shards, workdir, *overrides, **more):
    return subprocess.run(
        command(shards, workdir, *overrides),
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))  # none twice, none missing
    return [(line["loss"], line["grad_norm"], line["mlm_loss"]) for line in lines]


def stop_at(shards, workdir, step, how, *overrides):
    """Start a run and send it a signal as soon as it has logged `step`."""
    process = subprocess.Popen(
        command(shards, workdir, *overrides),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    metrics = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and f'"step": {step},' in metrics.read_text().replace('":', '": ').replace("  ", " ")):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


@pytest.fixture(scope="module")
def unbroken(world_shards, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    done = train(world_shards, workdir, JAX_ENABLE_COMPILATION_CACHE="false")
    assert done.returncode == 0, done.stderr
    return workdir


def same_weights(one, other):
    return (one / "export/model.safetensors").read_bytes() == (other / "export/model.safetensors").read_bytes()


def test_kill_9_and_the_same_command_again_give_the_unbroken_run_bit_for_bit(world_shards, unbroken, tmp_path):
    """The model that it started from is gone by then: the workdir is enough. So are the kept compiled programs."""
    shutil.copytree(START, tmp_path / "start")
    start = f"--config.model.init_from={tmp_path / 'start'}"
    code, output = stop_at(world_shards, tmp_path, 7, signal.SIGKILL, start)
    assert code == -signal.SIGKILL
    assert f"begin {STEPS} steps from the model {tmp_path / 'start'}: demo, 8 frames" in output
    shutil.rmtree(tmp_path / "start")
    again = train(world_shards, tmp_path, start)
    assert again.returncode == 0, again.stderr
    assert re.search(rf"go on from step \d of {STEPS}: demo", again.stdout)
    assert losses(tmp_path) == losses(unbroken)
    assert len(losses(tmp_path)) == STEPS
    assert same_weights(tmp_path, unbroken)
    assert max(path.stat().st_size for path in user_folder().glob("*-cache")) > 100_000  # the step
    killed, finished = read_history(tmp_path / "events.jsonl").attempts
    assert (killed.end, finished.end, finished.last_step) == ("", "finished", STEPS)
    assert killed.last_step >= 7
    assert finished.repeated == killed.last_step - finished.first_step > 0
    assert finished.spent["recomputed"] > 0
    assert read_history(unbroken / "events.jsonl").spent["recomputed"] == 0


def test_a_stop_signal_saves_at_once_and_loader_processes_change_nothing(world_shards, unbroken, tmp_path):
    code, output = stop_at(world_shards, tmp_path, 4, signal.SIGTERM)
    assert code == 42, output
    assert "run the same command again" in output
    saved = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    assert max(saved) >= 4
    again = train(world_shards, tmp_path, "--config.data.workers=2", "--profile", "11:2")
    assert again.returncode == 0, again.stderr
    assert f"go on from step {max(saved)}" in again.stdout
    assert list((tmp_path / "profile/step_000011").rglob("*.xplane.pb"))
    assert [one.end for one in read_history(tmp_path / "events.jsonl").attempts] == ["preempted", "finished"]
    assert losses(tmp_path) == losses(unbroken)


@pytest.mark.slow
def test_the_last_steps_see_all_patches_also_when_killed_among_them(world_shards, tmp_path):
    """8 steps, the last 4 with all patches, in 2 pieces: killed at the 6th and gone on from the saved one."""
    stage = ["--config.train.steps=8", "--config.train.unmasked_steps=4", "--config.train.unmasked_accumulate=2"]
    stage += ["--config.train.unmasked_learning_rate=1e-4", "--config.model.num_frames=4"]
    whole = train(world_shards, tmp_path / "whole", *stage)
    assert whole.returncode == 0, whole.stderr
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines]
    assert len(rates) == 8
    assert rates[0] == 0  # warm-up
    assert min(rates[1:4]) > 1e-4 >= max(rates[4:])
    stop_at(world_shards, tmp_path / "killed", 6, signal.SIGKILL, *stage)
    again = train(world_shards, tmp_path / "killed", *stage)
    assert again.returncode == 0, again.stderr
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "killed", tmp_path / "whole")


def test_a_workdir_of_another_config_is_refused_by_name(world_shards, unbroken):
    refused = train(world_shards, unbroken, "--config.train.learning_rate=0.5")
    assert refused.returncode == 5
    assert refused.stderr.count("\n") == 1
    assert "train.learning_rate was 0.002 and is 0.5 now" in refused.stderr


@pytest.mark.slow
def test_more_steps_for_a_finished_run_are_refused_with_the_way_to_go_on(world_shards, unbroken):
    """That way: tests/end_to_end/test_fork.py."""
    refused = train(world_shards, unbroken, "--config.train.steps=24")
    assert refused.returncode == 5
    assert refused.stderr.count("\n") == 1
    assert "train.steps was 12 and is 24 now" in refused.stderr
    assert f"begin another run from its state: --fork {unbroken} --workdir NEW" in refused.stderr


def test_a_finished_run_is_not_trained_again(world_shards, unbroken):
    before = losses(unbroken)
    again = train(world_shards, unbroken, "--config.model.init_from=elsewhere")
    assert again.returncode == 0, again.stderr
    assert f"model.init_from=elsewhere is not read: {unbroken} goes on from its own checkpoint" in again.stderr
    assert losses(unbroken) == before


@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("--config.train.stepps=3", 2, "did you mean train.steps"),
        ("--config.data.split=nothing", 3, "nothing"),
        ("--config.data.shards=nowhere", 3, "nowhere"),
        ("--config.train.batch_size=9", 2, None),
        ("--config.model.init_from=nowhere", 3, "nowhere does not exist"),
    ],
)
def test_mistakes_are_one_line(world_shards, tmp_path, override, code, message, capfd):
    """In this process, which has 8 devices: a batch of 9 cannot be divided."""
    from harvest_jax.cli import main

    arguments = command(world_shards, tmp_path, override)[3:]
    assert main(arguments) == code
    error = capfd.readouterr().err.strip().splitlines()
    assert len([line for line in error if line.startswith("harvest train:")]) == 1
    if message:
        assert message in error[-1]
