"""`launch/slurm.sbatch` on a real Slurm of two nodes: stopped, killed and cancelled runs, with the real training and,
where the time counts, with a stand-in. Needs root and slurm-wlm; `make slurm`."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.files import sha256_of
from launch import sweep_runs
from tests.helpers.launchers import ROOT
from tests.helpers.train_command import train_arguments
from tests.launch.test_sweep import CONFIG
from tests.slurm.cluster import ONE_PROCESS_A_NODE

pytestmark = pytest.mark.slurm
STEPS = 200  # more than a fast machine takes between two looks at the checkpoints
HARVEST = f'#!/bin/bash\nexec {sys.executable} -m harvest_jax "$@"\n'


@pytest.fixture
def shards(tmp_path):
    """Eight clips."""
    return shutil.copytree(ROOT / "tests/data/version_0_1_0/shards", tmp_path / "the shards")


@pytest.fixture
def train(cluster, shards, tmp_path):
    """Submits a run of the real command in two processes, saved every 20 steps: train(name, sbatch options, fields)."""

    def submit(name, *options, **fields):
        words = {"train.steps": STEPS, "train.batch_size": 4, "train.save_every": 20} | fields
        workdir = tmp_path / name / "the workdir"
        arguments = train_arguments(shards, workdir, *(f"{field}={value}" for field, value in words.items()))
        return cluster.submit(tmp_path / name, HARVEST, arguments, *options), Workdir(workdir)

    return submit


@pytest.fixture
def stand_in(cluster, tmp_path):
    """Submits a program of two ranks that is quick to start: lines of bash."""

    def submit(body, *options):
        arguments = ["--config", "base", "--workdir", str(tmp_path / "run")]
        return cluster.submit(tmp_path / "job", f"#!/bin/bash\n{body}\n", arguments, *options)

    return submit


def measured(workdir):
    lines = [json.loads(line) for line in workdir.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return [(line["loss"], line["grad_norm"]) for line in lines]


def test_a_killed_and_a_stopped_run_end_as_an_unbroken_one(cluster, train):
    unbroken, whole = train("unbroken")
    killed, broken = train("killed")
    stopped, saved = train("stopped", **{"data.workers": 1})

    cluster.wait(broken.complete_steps)
    (victim,) = [pid for pid in killed.processes(rank=1) if b"harvest_jax" in cmdline(pid)]
    os.kill(victim, signal.SIGKILL)
    died = time.monotonic()
    cluster.wait(lambda: killed.field("JobState") != "RUNNING")
    waited = time.monotonic() - died

    cluster.wait(saved.complete_steps)
    cluster.ask("scancel", "--signal=TERM", stopped.id)  # as before the time limit: to every process of the job

    for job in (unbroken, killed, stopped):
        job.wait_for("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED")
        assert job.field("JobState") == "COMPLETED", job.log
    assert [job.field("Restarts") for job in (unbroken, killed, stopped)] == ["0", "1", "1"]
    assert "status 137: to be started again from step" in killed.log
    assert "SIGTERM: saving and stopping" in stopped.log
    assert "status 42: to be started again from step" in stopped.log
    print(f"from kill -9 of a process to the end of the attempt: {waited:.0f} s")
    assert measured(broken) == measured(saved) == measured(whole)
    weights = {sha256_of(workdir.export / "model.safetensors") for workdir in (whole, broken, saved)}
    assert len(weights) == 1


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_scancel_saves_ends_all_processes_and_stays_cancelled(cluster, train):
    job, workdir = train("cancelled", **{"data.workers": 1, "train.steps": 100000})
    cluster.wait(lambda: workdir.complete_steps())
    before = max(workdir.complete_steps())
    assert len(job.processes()) >= 4  # two ranks, each with a loader process
    cluster.ask("scancel", job.id)
    job.wait_for("CANCELLED")
    assert "the job was cancelled: not back into the queue" in job.log
    assert "saved at step" in job.log
    assert max(workdir.complete_steps()) >= before
    assert job.processes() == []
    assert job.field("Restarts") == "0"


def test_a_killed_rank_does_not_keep_the_other_for_long(stand_in):
    job = stand_in("if [[ $SLURM_PROCID == 1 ]]; then sleep 1; kill -9 $$; fi\nexec sleep 600")
    began = time.monotonic()
    job.wait_for("FAILED")
    assert "2 attempts in a row without a new checkpoint (no checkpoint yet)" in job.log
    assert job.field("Restarts") == "1"
    assert time.monotonic() - began < 300


def test_an_error_of_one_rank_that_would_repeat_is_the_jobs_own(stand_in):
    job = stand_in("if [[ $SLURM_PROCID == 1 ]]; then sleep 1; exit 3; fi\nexec sleep 600")
    job.wait_for("FAILED")
    assert job.field("ExitCode") == "3:0"
    assert job.field("Restarts") == "0"
    assert "status 3: the same command would end the same way" in job.log


def test_a_signal_from_the_operator_requeues(cluster, stand_in):
    job = stand_in(
        '[[ "${SLURM_RESTART_COUNT:-0}" == 1 ]] && exit 0\n'
        "trap 'sleep 1; exit 42' TERM\necho started\nfor i in {1..6000}; do sleep 0.1; done"
    )
    cluster.wait(lambda: job.log.count("started") == 2)
    cluster.ask("scancel", "--signal=TERM", job.id)
    job.wait_for("COMPLETED", "FAILED")
    assert (job.field("JobState"), job.field("Restarts")) == ("COMPLETED", "1"), job.log


def test_a_save_that_ends_after_the_time_limit_requeues(stand_in):
    """The notice is 20 s before the limit of a minute, the save takes 70 s; KillWait leaves it the time."""
    job = stand_in(
        '[[ "${SLURM_RESTART_COUNT:-0}" == 1 ]] && exit 0\n'
        "trap 'sleep 70; exit 42' TERM\necho started\nfor i in {1..6000}; do sleep 0.1; done",
        *("--time=1", "--signal=TERM@20"),
    )
    job.wait_for("COMPLETED", "FAILED", "TIMEOUT")
    assert "DUE TO TIME LIMIT" in job.log
    assert (job.field("JobState"), job.field("Restarts")) == ("COMPLETED", "1"), job.log


def test_a_killed_slurmstepd_does_not_keep_the_job_for_long(cluster, stand_in):
    """As of a training: who cannot print any more dies of it, and who has lost the other ends with 6."""
    job = stand_in(
        '[[ "${SLURM_RESTART_COUNT:-0}" == 1 ]] && exit 0\n'
        'echo $$ >"$5.$SLURM_PROCID"; until [[ -s "$5.0" && -s "$5.1" ]]; do sleep 0.1; done; echo started\n'
        'while sleep 1; do echo -n .; kill -0 "$(<"$5.$((1 - SLURM_PROCID))")" || exit 6; done'
    )
    cluster.wait(lambda: job.log.count("started") == 2)
    found = cluster.ask("pgrep", "-f", f"slurmstepd: .{job.id}\\.0.").split()
    os.kill(int(found[0]), signal.SIGKILL)
    died = time.monotonic()
    cluster.wait(lambda: job.field("JobState") != "RUNNING")
    print(f"from kill -9 of a slurmstepd to the end of the attempt: {time.monotonic() - died:.0f} s")
    job.wait_for("COMPLETED", "FAILED")
    assert (job.field("JobState"), job.field("Restarts")) == ("COMPLETED", "1"), job.log


def test_a_task_of_an_array_goes_back_into_the_queue_alone(cluster, tmp_path):
    (tmp_path / "job").mkdir()
    runs = tmp_path / "job" / "the runs.txt"
    runs.write_text("".join(f"--config base --workdir '{tmp_path}/run {number}'\n" for number in range(3)))
    body = (
        'mkdir -p "$5"; touch "$5/${SLURM_RESTART_COUNT:-0}"\n'
        '[[ "$5" == *1 && "${SLURM_RESTART_COUNT:-0}" == 0 ]] && kill -9 $$\nexit 0'
    )
    job = cluster.submit(tmp_path / "job", f"#!/bin/bash\n{body}\n", ["--runs", str(runs)], "--array=0-2")

    def ended():
        for task in cluster.ask("squeue", "-h", "-r", "-t", "PD", "-o", "%i").split():
            cluster.hurry(task)
        return not cluster.ask("squeue", "-h", "-j", job.id)

    cluster.wait(ended)
    attempts = [sorted(path.name for path in (tmp_path / f"run {number}").iterdir()) for number in range(3)]
    assert [names[:2] for names in attempts] == [["0"], ["0", "1"], ["0"]], job.log


def test_a_sweep_as_an_array_ends_with_the_table_of_a_local_one(cluster, tmp_path):
    config = tmp_path / "my sweep.py"
    config.write_text(CONFIG)
    harvest = tmp_path / "harvest"
    harvest.write_text('#!/bin/bash\nmkdir -p "$5/export" && echo "{}" >"$5/export/config.json"\n')
    harvest.chmod(0o755)
    options = ["--config", str(config), "--workdir_root", str(tmp_path / "the runs"), "--backend", "slurm"]
    sbatch = ["--command", shlex.join(["sbatch", *ONE_PROCESS_A_NODE, "launch/slurm.sbatch"])]
    environment = cluster.environment | {"HARVEST": str(harvest), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "launch.sweep", *options, *sbatch],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "4 of 4 runs" in done.stderr
    cluster.wait(lambda: not cluster.ask("squeue", "-h"))
    table = (tmp_path / "the runs" / "results.csv").read_text()
    for run in sweep_runs.expand(str(config), tmp_path / "the runs"):
        assert run.complete
        assert f"{run.workdir.name},True" in table
