"""Rows with several questions."""

import pytest

from harvest_jax.input.question_lists import each_question


def test_a_row_comes_once_for_each_of_its_questions():
    row = {"question": ["who?", "what?"], "answer": ["a man", 3], "split": "train"}
    assert each_question(row) == [
        {"question": "who?", "answer": "a man", "split": "train"},
        {"question": "what?", "answer": 3, "split": "train"},
    ]
    typed = each_question(row | {"type": ["x", "y"]})
    assert [one["type"] for one in typed] == ["x", "y"]


@pytest.mark.parametrize("row", [{}, {"question": "who?", "answer": "a"}, {"label": "run"}])
def test_other_rows_stay_as_they_are(row):
    assert each_question(row) == [row]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": ["a", "b"], "answer": ["c"]}, "not `question` 2, `answer` 1"),
        ({"question": ["a"], "answer": "c"}, "not `question` 1, `answer` no list"),
        ({"question": [], "answer": []}, "not `question` 0, `answer` 0"),
        ({"question": "a", "answer": ["c"]}, "`answer` is a list and `question` is not"),
        ({"question": ["a", "b"], "answer": ["c", "d"], "type": "x"}, "`type` no list"),
    ],
)
def test_lists_that_do_not_fit_are_refused(row, message):
    with pytest.raises(ValueError, match=message):
        each_question(row)
