"""`launch/tpu_vm.sh`: the commands that it runs, with a stand-in for gcloud."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.helpers.launchers import ROOT, TRAIN, check_train_arguments, run
from tests.helpers.processes import running

WHERE = ["--name", "my-tpu", "--zone", "us-central1-a", "--project", "my-project"]


def test_tpu_runs_what_its_dry_run_prints(stubs, tmp_path):
    options = [*WHERE, "--type", "v5litepod-16", "--spot", "--steps", "create,train,delete"]
    printed = run("launch/tpu_vm.sh", *options, "--dry_run", "--", *TRAIN, **stubs.environment)
    assert printed.returncode == 0, printed.stderr
    assert stubs.calls() == []
    done = run("launch/tpu_vm.sh", *options, "--", *TRAIN, **stubs.environment)
    assert done.returncode == 0, done.stderr
    create, train, delete = calls = stubs.calls()
    assert calls == [shlex.split(line) for line in printed.stdout.splitlines()]
    assert create[4:6] == ["create", "my-tpu"]
    assert create[create.index("--version") + 1] == "v2-alpha-tpuv5-lite"
    assert "--spot" in create
    assert delete[4:6] == ["delete", "my-tpu"]
    assert train[4:6] == ["ssh", "my-tpu"]
    assert "--worker=all" in train


@pytest.fixture
def host(stubs, tmp_path):
    """A host with the copied checkout, where `harvest` is the stand-in; runs what ssh would run there."""
    top = tmp_path / "harvest_jax"
    (top / ".venv/bin").mkdir(parents=True)
    (top / ".venv/bin/python").write_text(f"#!/bin/bash\nexec '{sys.executable}' \"$@\"\n")
    (top / ".venv/bin/python").chmod(0o755)
    shutil.copy(stubs.path / "harvest", top / ".venv/bin/harvest")
    (top / "harvest_jax").symlink_to(ROOT / "harvest_jax")
    shutil.copytree(ROOT / "launch", top / "launch", ignore=shutil.ignore_patterns("colab"))

    class Host:
        folder = top
        harvest = top / ".venv/bin/harvest"

        def start(self, *options):
            printed = run("launch/tpu_vm.sh", *WHERE, "--dry_run", *options, **stubs.environment)
            assert printed.returncode == 0, printed.stderr
            ((*_, remote),) = split_lines(printed.stdout)
            environment = os.environ | stubs.environment | {"PYTHONPATH": str(top)}
            command = ["bash", "-c", remote]
            return stack.enter_context(running(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE))

    with contextlib.ExitStack() as stack:
        yield Host()


def test_what_ssh_runs_reaches_the_program_word_by_word(host, stubs):
    started = host.start("--steps", "train", "--", *TRAIN)
    started.communicate(timeout=60)
    assert started.returncode == 0
    program, command, *words = stubs.calls()[-1]
    assert (program, command) == ("harvest", "train")
    check_train_arguments(words)


SLOW = """#!/bin/bash
trap 'sleep 0.3; echo saved; exit 42' TERM
echo begun
until [[ -e finish ]]; do sleep 0.1; done
echo finished
"""


def test_a_run_outlives_its_connection_and_is_followed_again(host):
    host.harvest.write_text(SLOW)
    first = host.start("--steps", "train", "--", *TRAIN)
    assert first.stdout.readline() == "begun\n"
    first.kill()
    first.wait()
    again = host.start("--steps", "train", "--", *TRAIN)
    assert again.stdout.readline() == "begun\n"  # the end of the log: the same run
    (host.folder / "finish").touch()
    assert again.communicate(timeout=60)[0] == "finished\n"
    assert again.returncode == 0


def test_stop_saves_and_ends_a_run(host):
    host.harvest.write_text(SLOW)
    training = host.start("--steps", "train", "--", *TRAIN)
    assert training.stdout.readline() == "begun\n"
    stopping = host.start("--steps", "stop")
    assert stopping.wait(timeout=60) == 0
    assert training.communicate(timeout=60)[0] == "saved\n"
    assert training.returncode == 42


def test_a_queued_machine_is_waited_for(stubs):
    (stubs.path / "gcloud").write_text(QUEUE)
    options = [*WHERE, "--type", "v6e-8", "--queued", "--spot", "--steps", "create,delete"]
    polling = {"HARVEST_POLL_SECONDS": "0", "STATES": str(stubs.path / "states")}
    (stubs.path / "states").write_text("WAITING_FOR_RESOURCES\nPROVISIONING\nACTIVE\n")
    done = run("launch/tpu_vm.sh", *options, **stubs.environment, **polling)
    assert done.returncode == 0, done.stderr
    lines = (stubs.path / "called").read_text().splitlines()
    assert lines[0].startswith("compute tpus queued-resources create my-tpu --node-id my-tpu")
    assert "--runtime-version v2-alpha-tpuv6e" in lines[0]
    assert lines[-1].startswith("compute tpus queued-resources delete my-tpu")
    (stubs.path / "states").write_text("FAILED\n" * 2)
    failed = run("launch/tpu_vm.sh", *options, **stubs.environment, **polling)
    assert failed.returncode == 2
    assert "my-tpu is FAILED" in failed.stderr


QUEUE = """#!/bin/bash
# gcloud, with one line of the file STATES for each question
echo "$*" >> "$(dirname "$0")/called"
if [[ "$*" == *describe* ]]; then
  head -n 1 "$STATES"
  sed -i 1d "$STATES"
fi
"""


def test_tpu_copies_the_commit_and_the_setup_to_every_host(stubs, tmp_path):
    setup = tmp_path / "mount it.sh"
    setup.write_text("true\n")
    options = [*WHERE, "--steps", "copy", "--setup", setup, "--dry_run"]
    done = run("launch/tpu_vm.sh", *options, **stubs.environment)
    archive, send, install, send_setup, run_setup = (words for words in split_lines(done.stdout))
    assert archive[:2] == ["git", "-C"]
    assert archive[-1] == "HEAD"
    assert send[4:7] == ["scp", archive[archive.index("--output") + 1], "my-tpu:harvest_jax.tar.gz"]
    assert subprocess.run(["bash", "-n", "-c", install[-1]], check=False).returncode == 0
    assert '-c constraints.txt -e ".[tpu]"' in install[-1]
    assert send_setup[5] == str(setup)
    assert run_setup[-1] == "bash harvest_setup.sh"


def split_lines(text):
    """Shell lines to words; a quoted word may hold line breaks ($'...\\n...'), which bash itself has to read."""
    shell = f"set -- {{}}; {sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' \"$@\""
    for line in text.splitlines():
        done = subprocess.run(["bash", "-c", shell.format(line)], capture_output=True, text=True, check=True)
        yield json.loads(done.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "train", "--", *TRAIN], "--name and --zone"),
        ([*WHERE, "--", *TRAIN], "--type is needed"),
        ([*WHERE, "--steps", "train"], "after --"),
        ([*WHERE, "--steps", "trian", "--", *TRAIN], "one of create"),
        ([*WHERE, "--setup", "no such.sh", "--steps", "train", "--", *TRAIN], "no file"),
        ([*WHERE, "--config", "x"], "unknown option --config"),
        (["--name"], "needs a value"),
    ],
)
def test_tpu_mistakes(stubs, arguments, message):
    done = run("launch/tpu_vm.sh", *arguments, **stubs.environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert stubs.calls() == []
