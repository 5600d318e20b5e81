"""`launch/slurm.sbatch`: the commands that it runs, with stand-ins for srun and scontrol, and its exit status."""

import os
import shlex
import subprocess
import time

from harvest_jax.errors import Preempted
from tests.helpers.launchers import ROOT, TRAIN, check_train_arguments, run

SAVED = Preempted.exit_code  # slurm.sbatch has the number itself


def test_slurm_runs_what_its_dry_run_prints(stubs):
    environment = stubs.environment | {"HARVEST": str(stubs.path / "harvest")}
    printed = run("bash", "launch/slurm.sbatch", "--dry_run", *TRAIN, **environment)
    assert printed.returncode == 0
    assert stubs.calls() == []
    done = run("bash", "launch/slurm.sbatch", *TRAIN, **environment)
    assert done.returncode == 0, done.stderr
    (call,) = stubs.calls()
    assert call == shlex.split(printed.stdout)
    start = call.index(str(stubs.path / "harvest"))
    assert call[start + 1] == "train"
    check_train_arguments(call[start + 2 :])


def test_a_saved_slurm_job_goes_back_into_the_queue(stubs):
    environment = stubs.environment | {"HARVEST": str(stubs.path / "harvest"), "SLURM_JOB_ID": "17"}
    assert run("bash", "launch/slurm.sbatch", *TRAIN, **environment, STUB_STATUS=str(SAVED)).returncode == SAVED
    assert stubs.calls()[1:] == [["scontrol", "requeue", "17"]]
    assert run("bash", "launch/slurm.sbatch", *TRAIN, **environment, STUB_STATUS="4").returncode == 4
    assert len(stubs.calls()) == 3


def test_slurm_waits_through_its_own_sigterm(stubs, tmp_path):
    (stubs.path / "srun").write_text(f"#!/bin/bash\ntouch '{tmp_path}/started'\nsleep 0.5\nexit 42\n")
    environment = os.environ | stubs.environment | {"HARVEST": str(stubs.path / "harvest"), "SLURM_JOB_ID": "17"}
    job = subprocess.Popen(
        ["bash", "launch/slurm.sbatch", *TRAIN], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    job.terminate()
    assert job.wait(timeout=20) == 42
    assert stubs.calls() == [["scontrol", "requeue", "17"]]


def test_slurm_mistakes(stubs, tmp_path):
    assert run("bash", "launch/slurm.sbatch").returncode == 2
    done = run("bash", "launch/slurm.sbatch", *TRAIN, **stubs.environment, HARVEST=str(tmp_path / "none"))
    assert done.returncode == 2
    assert "no program" in done.stderr
    assert stubs.calls() == []
