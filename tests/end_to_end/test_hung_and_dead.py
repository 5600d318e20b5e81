"""The real command when something hangs, a process dies, the terminal goes away or signals come again and again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.test_loader_processes import loaders, saved, steps
from tests.end_to_end.test_processes_end_together import ranks
from tests.helpers.processes import is_running, running, wait_until
from tests.helpers.train_command import ROOT, environment, local_command, train_arguments, train_command
from tests.test_signals import Terminal

SHARDS = ROOT / "tests" / "data" / "version_0_1_0" / "shards"
ENDLESS = ("train.steps=100000", "train.save_every=100000")
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


def begun(workdir, process, lines=3):
    wait_until(lambda: len(steps(workdir)) >= lines or process.poll() is not None)
    assert process.poll() is None


def checkpoint(workdir):
    (step,) = saved(workdir)
    return int(step)


@pytest.mark.slow
def test_a_step_that_hangs_is_named_and_ends_the_run_with_6(tmp_path):
    command = train_command(SHARDS, tmp_path, "data.workers=2", "data.prefetch=2", *ENDLESS)
    with running(command, env=environment(HARVEST_STEP_SECONDS="5"), stderr=subprocess.PIPE) as process:
        begun(tmp_path, process, 12)
        children = loaders(process)
        for pid in children:
            os.kill(pid, signal.SIGSTOP)
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 6, errors
    (line,) = [line for line in errors.splitlines() if "has taken" in line]
    assert line.startswith(f"harvest train: process 0: step {steps(tmp_path)[-1] + 1} (reading its batch) has taken ")
    wait_until(lambda: not any(map(is_running, children)), 20)


HANGING = """
import sys, time
from harvest_jax import cli, signals

def main():
    from harvest_jax.checkpoint import digests
    from harvest_jax.evaluate import evaluation

    write = digests.write_digests
    if sys.argv[1] == "evaluating":
        evaluation.evaluate = lambda *of: time.sleep(3600)
    else:  # the checkpoint of a step is never complete; the frozen parameters are
        digests.write_digests = lambda folder, record: time.sleep(3600) if folder.name == "3" else write(folder, record)
    return cli.main(sys.argv[2:])

cli.keep_compiled_programs()
sys.exit(signals.run_program("harvest", main))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("doing", "step"), [("saving", 6), ("evaluating", 0)])
def test_a_save_or_an_evaluation_that_hangs_is_named_and_ends_the_run_with_6(tmp_path, doing, step):
    """A save hangs in the background: the next one waits for it."""
    evaluation = f"eval.config=eval/retrieval --config.data.shards={SHARDS} --config.data.split=train"
    overrides = ["eval.every=2", evaluation] if doing == "evaluating" else []
    done = subprocess.run(
        [sys.executable, "-c", HANGING, doing, "train", *train_arguments(SHARDS, tmp_path, *overrides)],
        env=environment(HARVEST_STEP_SECONDS="2"),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 6, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"harvest train: process 0: step {step} ({doing}) has come no further for ")
    assert line.endswith("run the same command again to go on from the last checkpoint")
    last = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["error"], last["exit_code"]) == ("failed", "HungError", 6)


@pytest.mark.slow
def test_without_a_launcher_a_killed_process_ends_the_other_with_6(tmp_path):
    """The other gets an error from the broken connection; it is not to take that for its own."""
    command = train_command(SHARDS, tmp_path, *ENDLESS)
    with ranks([command, command], HARVEST_HEARTBEAT_SECONDS="15") as processes:
        begun(tmp_path, processes[0])
        processes[1].kill()
        began = time.monotonic()
        _, errors = processes[0].communicate(timeout=300)
        took = time.monotonic() - began
    assert processes[0].returncode == 6, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("harvest train: ")]
    assert "process 1 has been silent for" in line
    assert "last heard of at: step " in line
    assert "Traceback" not in errors
    assert took < 60, errors


@pytest.mark.slow
def test_a_killed_launcher_leaves_no_process_and_no_lock(tmp_path):
    arguments = train_arguments(SHARDS, tmp_path, *ENDLESS)
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with running(local_command(arguments, "--processes", "2"), env=environment(), **output) as launcher:
        begun(tmp_path, launcher)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        assert len(children) == 2
        launcher.kill()
    wait_until(lambda: not any(map(is_running, children)), 60)
    last = checkpoint(tmp_path)
    with running(train_command(SHARDS, tmp_path, *ENDLESS), env=environment(), stdout=subprocess.PIPE) as again:
        assert f"go on from step {last}" in again.stdout.readline()


@pytest.mark.slow
def test_many_sigterms_that_nobody_reads_of_do_not_stop_the_save(tmp_path):
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with running(train_command(SHARDS, tmp_path, "data.workers=1", *ENDLESS), env=environment(), **output) as process:
        begun(tmp_path, process)
        process.stdout.close()
        process.stderr.close()
        while process.poll() is None:
            process.terminate()
            time.sleep(0.01)
    assert process.returncode == 42
    assert checkpoint(tmp_path) == steps(tmp_path)[-1]


@pytest.mark.slow
def test_a_closed_terminal_saves_like_sigterm(tmp_path):
    terminal = Terminal(train_command(SHARDS, tmp_path, *ENDLESS))
    while len(steps(tmp_path)) < 3:
        assert terminal.show()
    terminal.close()  # the kernel sends SIGHUP, and every write fails from now on
    assert terminal.status() == 42
    assert checkpoint(tmp_path) == steps(tmp_path)[-1]


# Half a second with the program's own handlers, as on a busy machine, before the command ends.
SLOW_END = """
import sys, time
from harvest_jax import cli, signals

def main():
    from harvest_jax.train.preemption import StopSignal

    give_back = StopSignal.__exit__
    StopSignal.__exit__ = lambda *of: (give_back(*of), time.sleep(0.5))[0]
    return cli.main()

sys.exit(signals.run_program("harvest train", main))
"""


@pytest.mark.slow
def test_sigterms_from_the_last_step_on_do_not_stop_the_export(tmp_path):
    arguments = train_arguments(SHARDS, tmp_path, "train.steps=4", "train.save_every=100")
    command = [sys.executable, "-c", SLOW_END, "train", *arguments]
    with running(command, env=environment(), stderr=subprocess.PIPE) as process:
        begun(tmp_path, process, 4)
        while process.poll() is None:
            process.terminate()
            time.sleep(0.01)
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert checkpoint(tmp_path) == 4
    assert json.loads((tmp_path / "export" / "config.json").read_bytes())


@pytest.mark.slow
def test_a_launcher_asked_to_stop_at_the_start_ends_with_its_processes(tmp_path):
    command = local_command(train_arguments(SHARDS, tmp_path, *ENDLESS), "--processes", "2", "--grace", "20")
    with running(command, env=environment(), stderr=subprocess.PIPE) as launcher:
        for line in launcher.stderr:
            if "waiting up to" in line:
                break
        launcher.terminate()
        _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 143, errors
    assert "[launch] stopped by SIGTERM; status 143" in errors
    assert "killed" not in errors


@pytest.mark.slow
def test_a_diverging_loss_and_other_warnings_are_plain_lines(tmp_path):
    overrides = ["train.learning_rate=10", "train.clip_norm=0", "train.warmup_steps=0", "train.steps=20"]
    done = subprocess.run(
        train_command(SHARDS, tmp_path, *overrides),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 4), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "far above its start" in line]
    assert line.startswith("harvest train: warning: the loss is ")
