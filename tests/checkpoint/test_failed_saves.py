"""Saves that fail: the error is raised, once, and older steps stay. Workdirs that cannot be used."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from harvest_jax.errors import CheckpointError, Preempted
from tests.helpers.checkpoints import (
    assert_same,
    finished,
    make_state,
    open_checkpointer,
    restore,
    target,
)
from tests.helpers.disks import small_disk

# Orbax drops the writes that it did not begin when one fails.
pytestmark = pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited:RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

ROOT = Path(__file__).resolve().parents[2]


def fill(disk):
    """A file that takes all the space that is left."""
    path = disk / "filler"
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return path


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", "size=8m") as folder:
        yield folder


def save_until_it_fails(workdir, state):
    with open_checkpointer(workdir, keep=9) as checkpointer:
        checkpointer.save_frozen({})
        for step in range(1, 10):
            checkpointer.save(step, state, None)


def save_then_raise(workdir, error, full=False):
    """Save a step, on a disk that fills up if `full`, and end the run with an error."""
    with open_checkpointer(workdir) as checkpointer:
        checkpointer.save_frozen({})
        if full:
            fill(workdir)
        checkpointer.save(1, make_state(1), None)
        raise error


def test_a_full_disk_ends_the_run_and_leaves_the_older_steps(tmp_path, caplog):
    with small_disk(tmp_path / "disk", "size=2m") as disk:
        big = {"params": {"x": jax.random.normal(jax.random.key(0), (400, 400))}}  # 0.6 MB that does not compress
        with pytest.raises(CheckpointError, match="no space left on the disk") as caught:
            save_until_it_fails(disk, big)
        assert not list((disk / "checkpoints").glob("*tmp"))  # the space is given back
        last = finished(disk)[-1]
        assert last >= 1
        assert f"the last good checkpoint is step {last};" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 5
        with open_checkpointer(disk) as checkpointer:
            state, _ = checkpointer.restore(target(big), {}, None)
        assert_same(state, big)
    assert caplog.text == ""  # Orbax's own tracebacks are suppressed


def test_a_failed_save_is_raised_once_and_can_be_repeated(disk):
    checkpointer = open_checkpointer(disk)
    checkpointer.save_frozen({})
    checkpointer.save(1, make_state(1), None)
    checkpointer.wait()
    filler = fill(disk)
    checkpointer.save(2, make_state(2), None)
    with pytest.raises(CheckpointError, match=r"step 2 was not saved.*no space left.*last good checkpoint is step 1"):
        checkpointer.save(3, make_state(3), None)
    filler.unlink()
    checkpointer.save(2, make_state(2), None)
    checkpointer.close()
    assert finished(disk) == [1, 2]


def test_a_failed_last_save_is_raised_at_the_end(disk):
    checkpointer = open_checkpointer(disk)
    checkpointer.save_frozen({})
    filler = fill(disk)
    checkpointer.save(1, make_state(1), None)
    with pytest.raises(CheckpointError, match=r"step 1 was not saved.*no space left.*last good checkpoint is none"):
        checkpointer.close()
    filler.unlink()
    assert restore(disk) is None


def test_a_failed_save_does_not_hide_the_error_that_ends_the_run(disk, caplog):
    with pytest.raises(ZeroDivisionError):
        save_then_raise(disk, ZeroDivisionError(), full=True)
    assert "step 1 was not saved" in caplog.text


def test_a_run_that_says_it_saved_and_stopped_ends_with_the_error_if_it_did_not(tmp_path, disk):
    with pytest.raises(Preempted):
        save_then_raise(tmp_path / "good", Preempted())
    assert finished(tmp_path / "good") == [1]
    with pytest.raises(CheckpointError, match="step 1 was not saved"):
        save_then_raise(disk, Preempted(), full=True)


def test_a_save_in_progress_is_finished_when_another_error_ends_the_run(tmp_path):
    with pytest.raises(ZeroDivisionError):
        save_then_raise(tmp_path, ZeroDivisionError())
    assert finished(tmp_path) == [1]


def test_a_read_only_workdir_fails_at_once(tmp_path):
    with (
        small_disk(tmp_path / "disk", "ro") as disk,
        pytest.raises(CheckpointError, match="cannot be written: Read-only"),
    ):
        open_checkpointer(disk / "run")


def test_a_workdir_that_cannot_be_made_fails_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written: Not a directory"):
        open_checkpointer(tmp_path / "file" / "run")


def test_two_runs_cannot_share_a_workdir(tmp_path):
    code = f"""
from pathlib import Path
from harvest_jax.checkpoint.checkpointer import Checkpointer
Checkpointer(Path({str(tmp_path)!r}), 1, {{}})
"""
    with open_checkpointer(tmp_path):
        other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert other.returncode
    assert f"is in use by process {os.getpid()}" in other.stderr
