"""Files of candidate answers, and the tokens that represent them."""

import csv
import json

import pytest

from harvest_jax.errors import DataError
from harvest_jax.input.answers import candidates, read_answers
from tests.helpers.annotations import ANNOTATIONS


def test_candidates_are_distinct_and_say_where_one_token_is_not_enough(tokenizer):
    found = candidates(["Dog", "dog ", "cat", "ice cream", "ice skate"], tokenizer)
    assert found.answers == ("dog", "cat", "ice cream", "ice skate")
    assert found.n_multi_token == 2
    assert found.n_collisions == 2
    assert found.first_token.tolist() == [tokenizer.encode(word)[0] for word in ("dog", "cat", "ice", "ice")]
    with pytest.raises(DataError, match="no candidate"):
        candidates([], tokenizer)
    with pytest.raises(DataError, match="has no words"):
        candidates(["dog", "   "], tokenizer)


def test_answer_files(tmp_path):
    (tmp_path / "a.txt").write_text("dog\n\ncat\n", encoding="utf-8")
    assert read_answers(tmp_path / "a.txt") == ["dog", "cat"]
    (tmp_path / "a.json").write_text(json.dumps(["dog", "cat"]), encoding="utf-8")
    assert read_answers(tmp_path / "a.json") == ["dog", "cat"]
    (tmp_path / "b.json").write_text(json.dumps({"dog": 0, "cat": 1}), encoding="utf-8")
    assert read_answers(tmp_path / "b.json") == ["dog", "cat"]
    for name, content, message in (
        ("c.json", "[1, 2]", "list of texts"),
        ("d.json", "{", "d.json"),
        ("e.txt", "\n", "has no answers"),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_answers(tmp_path / name)


def test_training_questions_name_their_most_frequent_answers(tmp_path):
    rows = [("dog",), ("Cat",), ("dog",), ("ice  cream",), ("cat",), ("ant",)]
    questions = [{"id": i, "question": "what?", "answer": answer, "video_id": 1} for i, (answer,) in enumerate(rows)]
    (tmp_path / "train_qa.json").write_text(json.dumps(questions), encoding="utf-8")
    table = "gif_name\tquestion\tanswer\ttype\r\n" + "".join(f'g\twhat is "it?\t{a}\t0\r\n' for (a,) in rows)
    (tmp_path / "Train_frameqa_question.csv").write_text(table, encoding="utf-8", newline="")
    for name in ("train_qa.json", "Train_frameqa_question.csv"):
        assert read_answers(tmp_path / name) == ["cat", "dog", "ant", "ice cream"]
        assert read_answers(tmp_path / name, most=2) == ["cat", "dog"]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    assert read_answers(tmp_path / "train.jsonl") == ["cat", "dog", "ant", "ice cream"]
    quoted = '"question","answer"\n' + "".join(f'"what, is it?","{a}"\n' for (a,) in rows)
    (tmp_path / "train.csv").write_text(quoted, encoding="utf-8")
    assert read_answers(tmp_path / "train.csv") == ["cat", "dog", "ant", "ice cream"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '[{"question": "what?"}]', "entry 1: no 'answer'"),
        ("a.jsonl", '{"question": "what?", "answer": "cat"}\n{"question": "what?"}', "line 2: no 'answer'"),
        ("a.json", '["cat", 5]', "must be a list of texts"),
        ("a.json", '["cat",', "not JSON"),
        ("a.txt", "\n\n", "has no answers"),
        ("a.csv", "question,answer\nwhat?\n", "1 cells, but 2 columns"),
    ],
)
def test_a_file_of_answers_that_cannot_be_used_is_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as error:
        read_answers(tmp_path / name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not (ANNOTATIONS / "tgif_qa").is_dir(), reason="no annotation files here")
def test_tgif_frame_answers_are_nearly_all_one_token(tokenizer):
    with (ANNOTATIONS / "tgif_qa" / "Test_frameqa_question.csv").open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream, delimiter="\t"))
    assert len(table) == 13691
    found = candidates([row["answer"] for row in table], tokenizer)
    assert (len(found.answers), found.n_multi_token) == (933, 107)
    assert sorted(read_answers(ANNOTATIONS / "tgif_qa" / "Test_frameqa_question.csv")) == sorted(found.answers)
    single = sum(len(tokenizer.encode(row["answer"])) == 1 for row in table)
    assert single > 0.97 * len(table)
