"""Readers of benchmarks with questions, on the official files where they are."""

from collections import Counter

import pytest

from harvest_jax.evaluate.benchmarks.benchmark import counts
from harvest_jax.evaluate.datasets import nextqa, tgif_qa
from tests.helpers.annotations import ANNOTATIONS

FILES = {
    "nextqa": "nextqa/val.csv",
    "tgif_action": "tgif_qa/Test_action_question.csv",
    "tgif_transition": "tgif_qa/Test_transition_question.csv",
    "tgif_frame": "tgif_qa/Test_frameqa_question.csv",
    "tgif_count": "tgif_qa/Test_count_question.csv",
}
BENCHMARKS = {benchmark.name: benchmark for benchmark in (*nextqa.BENCHMARKS, *tgif_qa.BENCHMARKS)}


def rows_of(name):
    path = ANNOTATIONS / FILES[name]
    if not path.is_file():
        pytest.skip("no annotation files here; see tests/helpers/annotations.py")
    return BENCHMARKS[name].read({"questions": path})


@pytest.mark.parametrize("name", FILES)
def test_the_official_file_has_the_expected_counts(name):
    found = counts(rows_of(name))
    assert {key: found[key] for key in BENCHMARKS[name].expected} == dict(BENCHMARKS[name].expected)


@pytest.mark.parametrize("name", ["nextqa", "tgif_action", "tgif_transition"])
def test_every_option_is_right_about_equally_often(name):
    answers = Counter(row.extra["answer"] for row in rows_of(name))
    assert sorted(answers) == [0, 1, 2, 3, 4]
    assert min(answers.values()) > 0.17 * answers.total()


def test_types_of_nextqa():
    rows = rows_of("nextqa")
    assert Counter(row.extra["type"] for row in rows) == {
        "CW": 1924, "CH": 683, "TN": 895 + 54, "TC": 663, "DC": 177, "DL": 295, "DO": 305,
    }  # fmt: skip
    assert Counter(row.extra["group"] for row in rows) == {"causal": 2607, "temporal": 1612, "descriptive": 777}


def test_types_of_tgif_frames():
    rows = rows_of("tgif_frame")
    types = Counter(row.extra["type"] for row in rows)
    assert types == {"object": 5586, "number": 3148, "color": 3904, "location": 1053}
    assert len({row.extra["answer"] for row in rows}) == 933


def test_counts_of_tgif():
    answers = Counter(row.extra["answer"] for row in rows_of("tgif_count"))
    assert (answers[0], answers[1], answers[10]) == (918, 0, 164)
