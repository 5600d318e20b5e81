"""`launch/slurm.sbatch`: what it runs and what it decides, with stand-ins for srun and scontrol. The real ones:
tests/slurm/."""

import json
import os
import shlex
import subprocess
import sys
import time

import pytest

from harvest_jax.errors import Preempted
from tests.helpers.launchers import ROOT, TRAIN, check_train_arguments, run
from tests.launch.test_restarts import save

SAVED = Preempted.exit_code
RUNNING = "JobId=17 JobState=RUNNING Reason=None Requeue=1"
CANCELLED = "JobId=17 JobState=COMPLETING Reason=None Requeue=1"
REQUEUE = ["scontrol", "requeue", "17"]


@pytest.fixture
def slurm(stubs, tmp_path):
    """Runs the script as a job; `state` is what scontrol shows of it."""

    class Slurm:
        environment = stubs.environment | {
            "HARVEST": str(stubs.path / "harvest"),
            "HARVEST_PYTHON": sys.executable,
            "SLURM_JOB_ID": "17",
        }
        workdir = tmp_path / "the run"
        calls = staticmethod(stubs.calls)
        path = stubs.path

        def __call__(self, status, state=RUNNING, **more):
            arguments = ["--config", "base", "--workdir", str(self.workdir)]
            shown = {"STUB_STATUS": str(status), "STUB_PRINTS_scontrol": state}
            # scontrol ends with STUB_STATUS too; the script must not mind
            return run("bash", "launch/slurm.sbatch", *arguments, **self.environment | shown | more)

        def requeued(self):
            return REQUEUE in self.calls()

    return Slurm()


def test_slurm_runs_what_its_dry_run_prints(stubs):
    environment = stubs.environment | {"HARVEST": str(stubs.path / "harvest")}
    printed = run("bash", "launch/slurm.sbatch", "--dry_run", *TRAIN, **environment)
    assert printed.returncode == 0
    assert stubs.calls() == []
    done = run("bash", "launch/slurm.sbatch", *TRAIN, **environment)
    assert done.returncode == 0, done.stderr
    (call,) = stubs.calls()
    assert call == words_of(printed.stdout)
    start = call.index(str(stubs.path / "harvest"))
    assert call[start + 1] == "train"
    check_train_arguments(call[start + 2 :])


def words_of(line):
    """As bash reads them: a quoted word may hold line breaks ($'...')."""
    show = f"{shlex.quote(sys.executable)} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' {line}"
    return json.loads(subprocess.run(["bash", "-c", show], capture_output=True, text=True, check=True).stdout)


def test_an_array_task_takes_its_line(stubs, tmp_path):
    runs = tmp_path / "the runs.txt"
    runs.write_text(f"--config other --workdir x\n{shlex.join(TRAIN)}\n")
    environment = stubs.environment | {"HARVEST": str(stubs.path / "harvest"), "SLURM_ARRAY_TASK_ID": "1"}
    done = run("bash", "launch/slurm.sbatch", "--runs", str(runs), **environment)
    assert done.returncode == 0, done.stderr
    (call,) = stubs.calls()
    check_train_arguments(call[call.index("train") + 1 :])


@pytest.mark.parametrize("status", [1, 6, SAVED, 134, 137, 143])
def test_what_may_go_on_goes_back_into_the_queue(slurm, status):
    assert slurm(status).returncode == status
    assert slurm.requeued()


@pytest.mark.parametrize("status", [0, 2, 3, 4, 5])
def test_what_is_done_or_would_fail_again_does_not(slurm, status):
    assert slurm(status).returncode == status
    assert not slurm.requeued()


@pytest.mark.parametrize("status", [SAVED, 137, 143])
def test_a_cancelled_job_does_not(slurm, status):
    done = slurm(status, CANCELLED)
    assert done.returncode == status
    assert "cancelled" in done.stderr
    assert not slurm.requeued()


def test_a_job_past_its_time_limit_goes_back(slurm):
    assert slurm(SAVED, CANCELLED.replace("None", "TimeLimit")).returncode == SAVED
    assert slurm.requeued()


def test_a_job_that_makes_no_progress_does_not(slurm):
    slurm(137)
    assert slurm.requeued()
    second = slurm(137)
    assert "2 attempts in a row without a new checkpoint" in second.stderr
    assert slurm.calls().count(REQUEUE) == 1
    save(slurm.workdir, 10)
    slurm(137)
    assert slurm.calls().count(REQUEUE) == 2


def test_a_task_of_an_array_is_requeued_alone(slurm):
    slurm(137, SLURM_ARRAY_JOB_ID="17", SLURM_ARRAY_TASK_ID="3")
    assert ["scontrol", "show", "job", "--oneliner", "17_3"] in slurm.calls()
    assert slurm.calls()[-1] == ["scontrol", "requeue", "17_3"]


def test_restarts_have_a_limit(slurm):
    for step in (1, 2, 3):
        save(slurm.workdir, step)
        done = slurm(137, HARVEST_RESTARTS="2")
    assert "2 restarts, and status 137 again" in done.stderr
    assert slurm.calls().count(REQUEUE) == 2


SRUN = """#!/bin/bash
trap : TERM # srun hands it on
# Runs the command of one process; then ends as srun does when it has killed the others.
while [[ "$1" == -* ]]; do shift; done
"$@"
exit ${SRUN_STATUS:-$?}
"""


def test_the_first_cause_decides_though_srun_reports_the_processes_that_it_killed(slurm):
    (slurm.path / "srun").write_text(SRUN)
    slurm(3, SRUN_STATUS="137")
    words = "attempt 0 ended with status"
    assert ["scontrol", "update", "job", "17", f"comment={words} 3"] in slurm.calls()
    done = slurm(6, f"{RUNNING} Comment={words} 3", SRUN_STATUS="137")
    assert done.returncode == 3
    assert ["scontrol", "update", "job", "17", f"comment={words} 6"] not in slurm.calls()
    assert slurm.calls().count(REQUEUE) == 1  # the first call showed no comment yet
    slurm(137, f"{RUNNING} Comment={words} 3", SRUN_STATUS="137", SLURM_RESTART_COUNT="1")
    assert slurm.calls().count(REQUEUE) == 1  # a second attempt without a checkpoint


def test_a_process_waits_through_sigterm_for_the_training(slurm, tmp_path):
    (slurm.path / "srun").write_text(SRUN)
    (slurm.path / "harvest").write_text(
        "#!/bin/bash\ntrap 'sleep 0.5; exit 42' TERM\n"
        f"touch '{tmp_path}/started'\nfor i in {{1..600}}; do sleep 0.1; done\n"
    )
    environment = os.environ | slurm.environment | {"STUB_PRINTS_scontrol": RUNNING}
    words = ["bash", "launch/slurm.sbatch", "--config", "base", "--workdir", str(slurm.workdir)]
    job = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    os.killpg(job.pid, 15)  # as scancel: every process of the job
    assert job.wait(timeout=60) == SAVED
    assert slurm.requeued()


def test_slurm_mistakes(stubs, tmp_path):
    assert run("bash", "launch/slurm.sbatch").returncode == 2
    done = run("bash", "launch/slurm.sbatch", *TRAIN, **stubs.environment, HARVEST=str(tmp_path / "none"))
    assert done.returncode == 2
    assert "no program" in done.stderr
    assert stubs.calls() == []
