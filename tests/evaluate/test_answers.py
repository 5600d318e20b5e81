"""Files of candidate answers, and the tokens that represent them."""

import csv
import json

import pytest

from harvest_jax.errors import DataError
from harvest_jax.evaluate.answers import candidates, read_answers
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


@pytest.mark.skipif(not (ANNOTATIONS / "tgif_qa").is_dir(), reason="no annotation files here")
def test_tgif_frame_answers_are_nearly_all_one_token(tokenizer):
    with (ANNOTATIONS / "tgif_qa" / "Test_frameqa_question.csv").open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream, delimiter="\t"))
    assert len(table) == 13691
    found = candidates([row["answer"] for row in table], tokenizer)
    single = sum(len(tokenizer.encode(row["answer"])) == 1 for row in table)
    assert single > 0.97 * len(table)
    assert found.n_multi_token < 0.2 * len(found.answers)
