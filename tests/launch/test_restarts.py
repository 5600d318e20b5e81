"""The one policy of restarts: which ends are final, how far crashes and missing progress are tolerated."""

import json
import os
import shlex
import signal
import sys

import pytest

from harvest_jax import errors
from harvest_jax.checkpoint.digests import write_digests
from harvest_jax.checkpoint.workdir import Workdir
from launch import restarts
from tests.helpers.launchers import ROOT
from tests.helpers.processes import running, wait_until
from tests.helpers.train_command import environment

CODES = {error.exit_code for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "exit_code")}


def test_every_exit_code_of_the_package_has_its_place():
    assert CODES - {1, 6, 42} == restarts.FINAL  # 1: anything else; 6: hung; 42: the state is saved
    assert not restarts.FINAL & restarts.STOPPED
    assert 42 in restarts.STOPPED


@pytest.mark.parametrize("status", sorted(restarts.FINAL | {0}))
def test_what_would_fail_again_is_final(status):
    assert restarts.Attempts().after(status, 10).refusal(status, 20)


@pytest.mark.parametrize("status", [1, 6, 42, 130, 134, 137, 143])
def test_anything_else_goes_on_while_there_is_progress_and_not_without(status):
    attempts = restarts.Attempts()
    for step in range(10, 100, 10):
        attempts = attempts.after(status, step)
        assert attempts.refusal(status, 20) == ""
    attempts = attempts.after(status, step)
    assert attempts.refusal(status, 20) == ""
    assert "2 attempts in a row without a new checkpoint (still at step 90)" in attempts.after(status, step).refusal(
        status, 20
    )


def test_crashes_have_a_limit_and_requested_stops_have_none():
    attempts = restarts.Attempts()
    for step in range(50):
        attempts = attempts.after(42, step)
    assert attempts.refusal(42, 0) == ""
    crashed = attempts.after(137, 50)
    assert crashed.refusal(137, 1) == ""
    assert "1 restarts, and status 137 again" in crashed.after(137, 51).refusal(137, 1)


def save(workdir, step):
    """What a launcher takes for a complete checkpoint."""
    folder = Workdir(workdir).step(step)
    folder.mkdir(parents=True)
    write_digests(folder, {"step": step})


def decide(workdir, status, job="17", *more):
    return restarts.main(["--status", str(status), "--workdir", str(workdir), "--job", job, *more])


def test_decisions_of_one_job_are_remembered_and_another_job_counts_anew(tmp_path, capsys):
    workdir = tmp_path / "a run"
    assert decide(workdir, 137) == 0
    assert decide(workdir, 137) == 1
    assert "no checkpoint yet" in capsys.readouterr().err
    assert decide(workdir, 137, "18") == 0
    save(workdir, 5)
    assert decide(workdir, 42, "18") == 0
    assert "from step 5" in capsys.readouterr().err
    assert json.loads((workdir / "attempts.json").read_text()) == {"job": "18", "step": 5, "stalled": 0, "crashes": 1}
    assert decide(workdir, 3, "18") == 1
    assert decide(workdir, 0, "18") == 1


def test_a_damaged_record_counts_anew(tmp_path):
    (tmp_path / "attempts.json").write_text('{"job": ')
    assert decide(tmp_path, 137) == 0


def trainer(tmp_path, body):
    """A stand-in for `harvest train` that counts its starts in `starts`; `save(step)` leaves a checkpoint."""
    script = tmp_path / "the trainer.py"
    script.write_text(
        f"""
import os, pathlib, signal, sys, time
from tests.launch.test_restarts import save as save_in
starts = pathlib.Path({str(tmp_path / "starts")!r})
count = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (count + 1))
save = lambda step: save_in(pathlib.Path(sys.argv[sys.argv.index("--workdir") + 1]), step)
{body}
"""
    )
    return [sys.executable, str(script), "--workdir", str(tmp_path / "the run")]


def run(tmp_path, body, *options):
    command = [sys.executable, "-m", "launch.restarts", *options, "--", *trainer(tmp_path, body)]
    with running(command, cwd=ROOT, env=environment(), stderr=-1) as process:
        _, err = process.communicate(timeout=120)
    return process.returncode, len((tmp_path / "starts").read_text()), err


def test_a_command_that_crashes_goes_on_while_it_saves(tmp_path):
    status, starts, err = run(tmp_path, "save(count)\nsys.exit(0) if count == 3 else os.kill(os.getpid(), 9)")
    assert (status, starts) == (0, 4), err
    assert "restart 3 of 20" in err


@pytest.mark.parametrize(
    ("body", "options", "status", "starts"),
    [
        ("sys.exit(3)", (), 3, 1),
        ("sys.exit(42)", (), 42, 1),
        ("sys.exit(1)", (), 7, 2),
        ("save(count)\nsys.exit(1)", ("--restarts", "2"), 7, 3),
    ],
)
def test_a_command_is_left_when_it_cannot_go_on(tmp_path, body, options, status, starts):
    assert run(tmp_path, body, *options)[:2] == (status, starts)


def test_a_stop_reaches_the_command_and_ends_the_restarts(tmp_path):
    body = f"""
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(42)))
pathlib.Path({str(tmp_path / "ready")!r}).touch()
time.sleep(60)
"""
    command = [sys.executable, "-m", "launch.restarts", "--", *trainer(tmp_path, body)]
    with running(command, cwd=ROOT, env=environment()) as process:
        wait_until((tmp_path / "ready").exists)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=60) == 42
    assert (tmp_path / "starts").read_text() == "x"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "give a command after --, or --status"),
        ("--status 1", "--status needs --workdir and --job"),
        ("--job 1 -- harvest train", "give a command after --, or --status"),
        ("--restarts -1 -- harvest train", "at least 0"),
    ],
)
def test_mistakes(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        restarts.main(shlex.split(words))
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_command_without_a_workdir_is_refused(capsys):
    assert restarts.main(["--", "harvest", "train"]) == 2
    assert "has no --workdir" in capsys.readouterr().err
