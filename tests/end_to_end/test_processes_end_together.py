"""Several processes of the real command end together: by a fault or a signal of one, or before the first step."""

import contextlib
import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.helpers.processes import running, wait_until
from tests.helpers.shard_files import damage
from tests.helpers.train_command import environment, local_command, train_arguments, train_command

OLD = Path(__file__).resolve().parents[1] / "data" / "version_0_1_0"


@pytest.fixture
def shards(tmp_path):
    """Eight clips."""
    return Path(shutil.copytree(OLD / "shards", tmp_path / "shards"))


def error_lines(text):
    """Without those of processes that the launcher stopped, or that ended because another did."""
    lines = [line for line in text.splitlines() if "harvest train: " in line]
    return [line for line in lines if "stopped by SIGTERM" not in line and "ended the run: " not in line]


def test_a_damaged_record_in_one_process_ends_the_run_with_3_and_no_restart(shards, tmp_path):
    damage(shards, "train", 3)
    arguments = train_arguments(shards, tmp_path / "run", "train.batch_size=2")
    done = subprocess.run(
        local_command(arguments, "--processes", "2", "--restarts", "3"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,  # it was five minutes, with status 134
        check=False,
    )
    assert done.returncode == 3, done.stderr
    (line,) = error_lines(done.stderr)
    assert "record 3" in line
    assert "ended with status 3, the first to fail" in done.stderr
    assert "restart" not in done.stderr


@contextlib.contextmanager
def ranks(commands, **variables):
    """The processes of a run, one for each command; they meet on a free port and do not outlive the block."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    where = {"HARVEST_COORDINATOR": f"127.0.0.1:{port}", "HARVEST_NUM_PROCESSES": str(len(commands))}
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                running(
                    [*command, "--config.distributed=true"],
                    env=environment(**where, **variables, HARVEST_PROCESS_ID=str(rank)),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
            )
            for rank, command in enumerate(commands)
        ]


def run_ranks(commands):
    """(status, standard error) of each process of a run."""
    with ranks(commands) as processes:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, errors, strict=True)]


@pytest.mark.slow
def test_a_signal_to_one_process_saves_one_step_in_all(shards, tmp_path):
    workdir = tmp_path / "run"
    command = train_command(shards, workdir, "train.steps=100000", "train.save_every=100000")
    with ranks([command, command]) as processes:
        wait_until(lambda: (workdir / "metrics.jsonl").exists() and len((workdir / "metrics.jsonl").read_text()) > 1000)
        processes[1].terminate()
        errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [42, 42], errors
    (step,) = (workdir / "checkpoints").iterdir()
    assert f"stopped by a signal to another process, saved at step {step.name}" in errors[0]
    assert f"stopped by SIGTERM, saved at step {step.name}" in errors[1]
    assert sorted(path.name for path in (step / "data").iterdir()) == ["process_0-of-2.json", "process_1-of-2.json"]


def test_processes_with_another_learning_rate_do_not_begin(shards, tmp_path):
    commands = [train_command(shards, tmp_path / "run", f"train.learning_rate={rate}") for rate in (0.002, 0.5)]
    for status, errors in run_ranks(commands):
        assert status == 2, errors
        (line,) = error_lines(errors)
        assert "train.learning_rate is 0.002 on rank 0, 0.5 on rank 1" in line


def test_processes_with_other_clips_do_not_begin(shards, world_shards, tmp_path):
    for status, errors in run_ranks([train_command(folder, tmp_path / "run") for folder in (shards, world_shards)]):
        assert status == 2, errors
        (line,) = error_lines(errors)
        assert "the digest of the clips in data.shards is" in line


def test_processes_with_workdirs_of_their_own_do_not_begin(shards, tmp_path):
    for status, errors in run_ranks([train_command(shards, tmp_path / f"run{rank}") for rank in (0, 1)]):
        assert status == 2, errors
        (line,) = error_lines(errors)
        assert "a workdir must be shared by all processes: rank 1" in line
    assert not list((tmp_path / "run0").iterdir())


@pytest.mark.slow
def test_damaged_records_have_one_budget_for_all_processes(shards, tmp_path):
    """One step reads each of the 8 clips once, in two processes; 4 are damaged, and not all in one process's half."""
    for number in range(4):
        damage(shards, "train", number)
    for allowed, status in ((3, 3), (4, 0)):
        overrides = ["train.steps=1", "train.warmup_steps=0", f"data.bad_records={allowed}"]
        done = subprocess.run(
            local_command(train_arguments(shards, tmp_path / f"{allowed}", *overrides), "--processes", "2"),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == status, done.stderr
    lines = [line for line in done.stderr.splitlines() if "is damaged and was replaced" in line]
    assert len(lines) == 4
    assert all(line.startswith("[0] ") for line in lines)
    assert {line.partition("rank ")[2][0] for line in lines} == {"0", "1"}
    (measured,) = (tmp_path / "4" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(measured)["bad_records"] == 4
    states = [json.loads(path.read_text()) for path in (tmp_path / "4/checkpoints/1/data").glob("process_*")]
    assert len(states) == 2
    assert states[0] == states[1] == {"next_batch": 1, "share": "blocks", "damaged": [[0, 0], [0, 1], [0, 2], [0, 3]]}


@pytest.fixture
def disk(tmp_path, request):
    """A file system of a size; a checkpoint takes 4 MB, the frozen parameters 2."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


# The first has no room for the frozen parameters, the second none for the first step, the third none for the third
# step. With the first two, one process found the disk full and the other waited for it.
@pytest.mark.slow
@pytest.mark.parametrize("disk", ["1m", "6m", "14m"], indirect=True)
def test_a_full_disk_ends_all_processes_with_5_and_no_restart(shards, disk):
    overrides = ["train.steps=100", "train.save_every=4", "train.keep_checkpoints=50"]
    done = subprocess.run(
        local_command(train_arguments(shards, disk / "run", *overrides), "--processes", "2", "--restarts", "3"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,  # Orbax waits for 20 minutes
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert "no space left on the disk" in done.stderr
    assert "restart" not in done.stderr
