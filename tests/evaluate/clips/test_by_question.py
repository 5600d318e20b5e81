"""Rows with several questions in an evaluation set."""

import json

import pytest

from harvest_jax.errors import DataError
from harvest_jax.evaluate.clips.evaluation_set import open_set
from harvest_jax.evaluate.settings import DataSettings


def opened(tmp_path, *rows):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"video": "a.mp4"} | row) for row in rows))
    return open_set(DataSettings(str(tmp_path / "a.jsonl"), "", "", "", 0))


def test_each_question_is_a_row_of_its_own_about_the_same_clip(tmp_path):
    data = opened(tmp_path, {"id": "a", "question": ["who?", "what?"], "answer": ["man", "run"]},
                  {"id": "b", "question": "how many?", "answer": "two"})  # fmt: skip
    rows = data.by_question()
    assert [sample.id for sample in rows.samples] == ["a#1", "a#2", "b"]
    assert [sample.clip for sample in rows.samples] == [0, 0, 0]
    assert rows.column("question") == ["who?", "what?", "how many?"]
    assert rows.column("answer") == ["man", "run", "two"]
    assert rows.clips == data.clips
    assert len(data.samples) == 2  # tasks about clips see each row once


def test_lists_that_do_not_fit_name_the_row(tmp_path):
    data = opened(tmp_path, {"id": "a", "question": ["who?", "what?"], "answer": ["man"]})
    with pytest.raises(DataError, match=r"a\.jsonl: row a: several questions are lists of equal length"):
        data.by_question()
