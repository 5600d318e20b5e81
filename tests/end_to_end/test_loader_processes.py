"""Loader processes of the real command: signals that reach them, too, and one that hangs."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers.processes import running, wait_until
from tests.helpers.train_command import ROOT, environment, train_command

SHARDS = ROOT / "tests" / "data" / "version_0_1_0" / "shards"
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


def loaders(process):
    """Process ids of the loader processes that have begun."""
    found = []
    for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
        for pid in children.read_text().split():
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found


def begin(workdir):
    command = train_command(
        SHARDS, workdir, "data.workers=2", "data.prefetch=2", "train.steps=100000", "train.save_every=100000"
    )
    return running(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def steps(workdir):
    metrics = workdir / "metrics.jsonl"
    return [json.loads(line)["step"] for line in metrics.read_text().splitlines()] if metrics.exists() else []


def saved(workdir):
    return [path.name for path in (workdir / "checkpoints").iterdir() if (path / "MANIFEST.json").is_file()]


def stands_still(workdir, seconds=3.0):
    """Whether no step is finished for some time."""
    before = len(steps(workdir))
    time.sleep(seconds)
    return len(steps(workdir)) == before


@pytest.mark.slow
def test_a_stopped_loader_process_does_not_keep_the_run_from_saving(tmp_path):
    with begin(tmp_path) as process:
        wait_until(lambda: len(steps(tmp_path)) > 2)
        os.kill(loaders(process)[0], signal.SIGSTOP)
        wait_until(lambda: stands_still(tmp_path))  # what was read before is used up: the run waits for the loader
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 42, errors
    assert len(saved(tmp_path)) == 1


@pytest.mark.slow
def test_a_sigterm_that_reaches_the_loader_processes_at_their_start_does_not_end_them(tmp_path):
    with begin(tmp_path) as process:
        wait_until(lambda: len(loaders(process)) == 2)
        for pid in loaders(process):
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: len(steps(tmp_path)) > 2 or process.poll() is not None)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 42, errors
    assert len(saved(tmp_path)) == 1
