"""A disk or a network that fails while checkpoints are read: nothing is moved, and no run begins anew by itself."""

import errno
import io
import os
import shutil
from pathlib import Path

import pytest

from harvest_jax.checkpoint import digests
from harvest_jax.checkpoint.scores import SCORES, StepScores, best_step, write_scores
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.errors import CheckpointError
from tests.helpers.checkpoints import cut_largest, files, finished, restore, save_steps, step_folder


@pytest.fixture
def failing(monkeypatch):
    """Makes every read of what lies below a folder fail with an error of the system."""

    def fail(folder, code):
        def guarded(real):
            def call(path, *args, **options):
                if isinstance(path, str | Path) and Path(path).is_relative_to(folder):
                    raise OSError(code, os.strerror(code), str(path))
                return real(path, *args, **options)

            return call

        monkeypatch.setattr("builtins.open", guarded(open))
        monkeypatch.setattr(io, "open", guarded(io.open))  # that of pathlib
        if code == errno.ESTALE:  # a network file system whose server has gone knows not even the names
            monkeypatch.setattr(os, "stat", guarded(os.stat))
            monkeypatch.setattr(os, "listdir", guarded(os.listdir))

    return fail


def contents(workdir):
    return {path.relative_to(workdir): path.read_bytes() for path in files(workdir) if path.name != ".lock"}


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("what", ["a file", "a manifest", "one step", "all steps"])
def test_an_error_of_the_disk_moves_nothing_and_ends_with_5(tmp_path, monkeypatch, failing, code, what):
    save_steps(tmp_path, 1, 2)
    before = contents(tmp_path)
    newest = step_folder(tmp_path, 2)
    below = {
        "a file": max(files(newest / "params"), key=lambda path: path.stat().st_size),
        "a manifest": newest / digests.MANIFEST,
        "one step": newest,
        "all steps": tmp_path / "checkpoints",
    }[what]
    with monkeypatch.context():
        failing(below, code)
        with pytest.raises(CheckpointError, match="nothing was moved or deleted") as caught:
            restore(tmp_path)
    monkeypatch.undo()
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    assert str(below) in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert contents(tmp_path) == before
    assert not (tmp_path / "quarantine").exists()
    assert restore(tmp_path) == 2  # the disk is there again


def test_the_scores_that_say_which_step_is_kept_are_not_taken_for_missing(tmp_path, failing):
    workdir = Workdir(tmp_path)
    for step, score in ((10, 9.0), (20, 1.0)):
        workdir.step(step).mkdir(parents=True)
        digests.write_digests(workdir.step(step), {"step": step})
        write_scores(workdir, step, StepScores({"r": score}, {}, "r"))
    assert best_step(workdir)[0] == 10
    failing(workdir.step(10) / SCORES, errno.EIO)
    with pytest.raises(CheckpointError, match=SCORES):  # and not "the best step is 20", which would delete step 10
        best_step(workdir)


def test_checkpoints_none_of_which_is_good_are_no_fresh_start(tmp_path, caplog):
    save_steps(tmp_path, 1, 2)
    for step in (1, 2):
        cut_largest(step_folder(tmp_path, step))
    before = contents(tmp_path)
    for _ in range(2):  # a launcher that tries again changes nothing
        with pytest.raises(CheckpointError, match="none of them is good") as caught:
            restore(tmp_path)
    assert "begin anew on purpose: rename that folder" in str(caught.value)
    assert "step 2: params/" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before
    assert caplog.text == ""
    (tmp_path / "checkpoints").rename(tmp_path / "old")
    assert restore(tmp_path) is None  # anew, on purpose


def test_a_first_save_that_was_interrupted_begins_anew(tmp_path, caplog):
    save_steps(tmp_path, 3)
    (step_folder(tmp_path, 3) / digests.MANIFEST).unlink()
    assert restore(tmp_path) is None
    assert "the save was not finished" in caplog.text
    assert (tmp_path / "quarantine" / "3").is_dir()


@pytest.mark.parametrize("how", [shutil.copytree, os.rename])
def test_a_step_under_the_name_of_another_is_not_restored(tmp_path, caplog, how):
    save_steps(tmp_path, 1, 2)
    how(step_folder(tmp_path, 1), step_folder(tmp_path, 7))
    assert finished(tmp_path) == ([1, 2] if how is shutil.copytree else [2])
    assert restore(tmp_path) == 2
    assert "step 7 is rejected: it holds step 1 (the folder was renamed or copied)" in caplog.text
    assert (tmp_path / "quarantine" / "7").is_dir()
