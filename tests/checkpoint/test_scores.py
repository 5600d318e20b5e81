"""Scores beside checkpoints: which one is the best, and that it is kept."""

import json

import pytest

from harvest_jax.checkpoint import digests
from harvest_jax.checkpoint.scores import SCORES, StepScores, best_step, read_scores, write_scores
from harvest_jax.checkpoint.step_folders import StepFolders
from harvest_jax.checkpoint.workdir import Workdir


def complete(workdir, *steps):
    for step in steps:
        workdir.step(step).mkdir(parents=True)
        digests.write_digests(workdir.step(step), {"step": step})


def score(workdir, step, value, metric="r/R@1", protocol="a", lower=False, **more):
    values = {"r/R@1": value} | more
    write_scores(workdir, step, StepScores(values, {"r": protocol}, metric, lower))


@pytest.fixture
def workdir(tmp_path):
    found = Workdir(tmp_path)
    complete(found, 10, 20, 30, 40)
    return found


def test_scores_are_read_as_they_were_written(workdir):
    found = StepScores({"r/R@1": 12.5}, {"r": "abc"}, "r/R@1", False)
    write_scores(workdir, 20, found)
    assert read_scores(workdir, 20) == found
    assert digests.verify(workdir.step(20))["step"] == 20  # the checkpoint is sound with them
    assert read_scores(workdir, 10) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"values": 3, "protocols": {}, "metric": "", "lower_is_better": 0}'])
def test_what_cannot_be_read_is_no_score(workdir, text):
    (workdir.step(10) / SCORES).write_text(text)
    assert read_scores(workdir, 10) is None
    assert best_step(workdir) is None


def test_the_best_is_the_highest_or_the_lowest_and_the_earliest_of_equal_ones(workdir):
    assert best_step(workdir) is None
    for step, value in ((10, 1.0), (20, 3.0), (30, 3.0), (40, 2.0)):
        score(workdir, step, value)
    assert best_step(workdir) == (20, 3.0, "r/R@1")
    for step, value in ((10, 1.0), (20, 3.0), (30, 3.0), (40, 2.0)):
        score(workdir, step, value, lower=True)
    assert best_step(workdir) == (10, 1.0, "r/R@1")


def test_only_scores_of_the_newest_protocol_are_compared_by_its_metric(workdir):
    score(workdir, 10, 9.0, protocol="old")
    score(workdir, 20, 2.0, **{"r/R@5": 8.0})
    score(workdir, 30, 3.0, metric="r/R@5", **{"r/R@5": 5.0})
    assert best_step(workdir) == (20, 8.0, "r/R@5")
    score(workdir, 40, 3.0, metric="")
    assert best_step(workdir) is None


def test_a_step_without_a_manifest_or_with_a_score_that_is_no_number_is_never_the_best(workdir):
    score(workdir, 10, 9.0)
    (workdir.step(10) / digests.MANIFEST).unlink()
    score(workdir, 20, float("nan"))
    score(workdir, 30, 1.0)
    assert best_step(workdir) == (30, 1.0, "r/R@1")


def test_the_best_is_kept_beside_the_newest(workdir):
    for step, value in ((10, 1.0), (20, 3.0), (30, 2.0)):
        score(workdir, step, value)
    folders = StepFolders(workdir)
    folders.prune(1)
    folders.close()
    assert workdir.complete_steps() == [20, 40]
    assert json.loads((workdir.step(20) / SCORES).read_text())["values"] == {"r/R@1": 3.0}
