"""Prompts with a masked answer, candidates and their first tokens, and what counts as right."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from harvest_jax.errors import ConfigError, DataError, NonFiniteError
from harvest_jax.evaluate import question_answering as qa
from harvest_jax.input.tokenizer import Tokenizer

ANNOTATIONS = Path(__file__).resolve().parents[3] / "shared" / "data" / "annotations"
PROMPT = "Question: {question} Answer: {mask}"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer()


def test_the_prompt_has_the_mask_after_the_answer_and_the_end_after_it(tokenizer):
    ids, slot, cut = qa.prompt_ids(tokenizer, PROMPT, "what is it?", 20)
    words = tokenizer.encode("question: what is it? answer:")
    assert ids.dtype == np.int32
    assert ids[: len(words) + 1].tolist() == [tokenizer.sot, *words]
    assert slot == len(words) + 1
    assert ids[slot + 1 :].tolist() == [tokenizer.eot] + [0] * (20 - slot - 2)
    assert not cut


def test_words_after_the_mask_stay(tokenizer):
    ids, slot, _ = qa.prompt_ids(tokenizer, "{question} it {mask} now", "does", 10)
    assert ids[:slot].tolist() == [tokenizer.sot, *tokenizer.encode("does it")]
    assert ids[slot + 1 : slot + 3].tolist() == [*tokenizer.encode("now"), tokenizer.eot]


def test_a_long_question_loses_its_own_last_words_only(tokenizer):
    question = "what " * 40
    ids, slot, cut = qa.prompt_ids(tokenizer, PROMPT, question, 16)
    assert cut
    assert slot == 14
    assert ids[-1] == tokenizer.eot
    assert tokenizer.decode(ids[:slot]) == "question : what what what what what what what what what answer :"


def test_a_prompt_must_fit_and_hold_both_places(tokenizer):
    with pytest.raises(ConfigError, match="leaves no room"):
        qa.prompt_ids(tokenizer, PROMPT, "what", 7)
    for prompt in ("Question: {question}", "{mask}", "{question} {mask} {mask}", "{question} {question} {mask}"):
        with pytest.raises(ConfigError, match="each once"):
            qa.split_prompt(prompt)
    with pytest.raises(ConfigError, match="before"):
        qa.split_prompt("{mask} {question}")


def test_candidates_are_distinct_and_say_where_one_token_is_not_enough(tokenizer):
    found = qa.candidates(["Dog", "dog ", "cat", "ice cream", "ice skate"], tokenizer)
    assert found.answers == ("dog", "cat", "ice cream", "ice skate")
    assert found.n_multi_token == 2
    assert found.n_collisions == 2
    assert found.first_token.tolist() == [tokenizer.encode(word)[0] for word in ("dog", "cat", "ice", "ice")]
    with pytest.raises(DataError, match="no candidate"):
        qa.candidates([], tokenizer)
    with pytest.raises(DataError, match="has no words"):
        qa.candidates(["dog", "   "], tokenizer)


def test_answer_files(tmp_path):
    (tmp_path / "a.txt").write_text("dog\n\ncat\n", encoding="utf-8")
    assert qa.read_answers(tmp_path / "a.txt") == ["dog", "cat"]
    (tmp_path / "a.json").write_text(json.dumps(["dog", "cat"]), encoding="utf-8")
    assert qa.read_answers(tmp_path / "a.json") == ["dog", "cat"]
    (tmp_path / "b.json").write_text(json.dumps({"dog": 0, "cat": 1}), encoding="utf-8")
    assert qa.read_answers(tmp_path / "b.json") == ["dog", "cat"]
    for name, content, message in (
        ("c.json", "[1, 2]", "list of words"),
        ("d.json", "{", "d.json"),
        ("e.txt", "\n", "holds none"),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            qa.read_answers(tmp_path / name)


def test_types_by_the_first_word():
    asked = ["What is it?", "who's there", "  HOW many", "'where", "when ?", "is it?", "", "whatever"]
    assert qa.question_kinds(asked) == ["what", "who", "how", "where", "when", "other", "other", "other"]


def marked(logits, answer, answers, tokenizer):
    allowed = qa.candidates(answers, tokenizer)
    marks = qa.Marks.empty(len(answer))
    for row in range(len(answer)):  # one at a time: batches must not matter
        marks.add(np.array([row]), logits[[row]], np.array([answer[row]]), allowed)
    return marks, allowed


def test_only_candidates_compete(tokenizer):
    logits = np.zeros((2, tokenizer.vocab_size), np.float32)
    logits[:, tokenizer.encode("horse")[0]] = 9  # no candidate
    logits[0, tokenizer.encode("cat")[0]] = 2
    logits[1, tokenizer.encode("dog")[0]] = 2
    marks, allowed = marked(logits, [1, 1], ["dog", "cat"], tokenizer)
    assert marks.expected.tolist() == [1, 0]
    found = qa.score(marks, np.array([True, True]), ["what", "who"], allowed)
    assert (found["acc_all"], found["acc_in_vocab"], found["coverage"], found["chance"]) == (50, 50, 100, 50)
    assert found["per_type"] == {"what": {"n": 1, "acc_all": 100}, "who": {"n": 1, "acc_all": 0}}


def test_an_answer_outside_the_candidates_is_wrong_in_acc_all_and_left_out_of_acc_in_vocab(tokenizer):
    logits = np.zeros((4, tokenizer.vocab_size), np.float32)
    logits[:, tokenizer.encode("dog")[0]] = 2
    marks, allowed = marked(logits, [0, 0, 1, -1], ["dog", "cat"], tokenizer)
    found = qa.score(marks, np.array([True, True, True, False]), ["other"] * 4, allowed)
    assert found["acc_all"] == 50
    assert found["acc_in_vocab"] == pytest.approx(200 / 3)
    assert (found["coverage"], found["n"], found["n_in_vocab"]) == (75, 4, 3)


def test_candidates_that_share_the_first_token_share_the_credit(tokenizer):
    logits = np.zeros((3, tokenizer.vocab_size), np.float32)
    logits[:, tokenizer.encode("ice")[0]] = 5
    marks, allowed = marked(logits, [0, 1, 2], ["ice cream", "ice skate", "dog"], tokenizer)
    assert marks.expected.tolist() == [0.5, 0.5, 0]
    found = qa.score(marks, np.ones(3, bool), ["other"] * 3, allowed)
    assert found["acc_all"] == pytest.approx(100 / 3)
    assert found["optimistic"]["acc_all"] == pytest.approx(200 / 3)
    assert found["pessimistic"]["acc_all"] == 0
    assert (found["n_colliding_answers"], found["n_tied_queries"]) == (2, 2)


def test_what_is_never_marked_is_wrong(tokenizer):
    allowed = qa.candidates(["dog"], tokenizer)
    found = qa.score(qa.Marks.empty(2), np.array([True, False]), ["other"] * 2, allowed)
    assert (found["acc_all"], found["acc_in_vocab"], found["n_tied_queries"]) == (0, 0, 0)
    none = qa.score(qa.Marks.empty(1), np.array([False]), ["other"], allowed)
    assert (none["acc_in_vocab"], none["coverage"]) == (0, 0)


def test_logits_that_are_no_numbers_are_an_error(tokenizer):
    logits = np.full((1, tokenizer.vocab_size), np.nan, np.float32)
    with pytest.raises(NonFiniteError):
        marked(logits, [0], ["dog", "cat"], tokenizer)


@pytest.mark.skipif(not (ANNOTATIONS / "tgif_qa").is_dir(), reason="no annotation files here")
def test_tgif_frame_answers_are_nearly_all_one_token(tokenizer):
    with (ANNOTATIONS / "tgif_qa" / "Test_frameqa_question.csv").open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream, delimiter="\t"))
    assert len(table) == 13691
    found = qa.candidates([row["answer"] for row in table], tokenizer)
    single = sum(len(tokenizer.encode(row["answer"])) == 1 for row in table)
    assert single > 0.97 * len(table)
    assert found.n_multi_token < 0.2 * len(found.answers)
