"""`launch/tpu_vm.sh`: the commands that it runs, with a stand-in for gcloud."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.helpers.launchers import TRAIN, check_train_arguments, run

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

    # What ssh hands to each host's shell reaches the program word by word.
    (tmp_path / "harvest_jax/.venv/bin").mkdir(parents=True)
    shutil.copy(stubs.path / "harvest", tmp_path / "harvest_jax/.venv/bin/harvest")
    remote = train[train.index("--command") + 1]
    subprocess.run(["bash", "-c", remote], cwd=tmp_path, env=os.environ | stubs.environment, check=True)
    program, command, *words = stubs.calls()[-1]
    assert (program, command) == ("harvest", "train")
    check_train_arguments(words)


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
