"""Questions answered at a masked word, and what counts as right."""

import numpy as np
import pytest

from harvest_jax.errors import ConfigError, DataError, NonFiniteError
from harvest_jax.evaluate.scores import ranking
from harvest_jax.evaluate.tasks import videoqa
from harvest_jax.input.answers import candidates
from tests.helpers.colour_evaluation import COLOURS, evaluate, manifest, question

OWN = "--config.answers=test_set"


def test_videoqa(videos, model, tmp_path):
    rows = [question(name, "what colour is it?", name) for name in COLOURS]
    rows += [question("red", "who is it?", "nobody"), question("gone", "what is it?", "red")]
    (tmp_path / "answers.txt").write_text("\n".join(COLOURS), encoding="utf-8")
    words = [*manifest(videos, tmp_path, rows), f"--config.answers={tmp_path / 'answers.txt'}"]
    result = evaluate("videoqa", [*words, "--allow_missing"], tmp_path)
    assert (result["n_expected"], result["n_missing"]) == (6, 1)
    metrics = result["metrics"]
    assert metrics["acc_all"] == pytest.approx(400 / 6)
    assert metrics["acc_in_vocab"] == pytest.approx(400 / 5)
    assert metrics["coverage"] == pytest.approx(500 / 6)
    assert metrics["per_type"] == {"what": {"n": 5, "acc_all": 80}, "who": {"n": 1, "acc_all": 0}}
    assert (metrics["n_answers"], metrics["n_colliding_answers"], metrics["n_cut_questions"]) == (4, 0, 0)
    assert sum(model.batches) == 5  # one answer a question whose video is there, none twice


def test_videoqa_batches_and_types_of_the_manifest(videos, model, tmp_path):
    rows = [
        question(name, f"what {n}?", name, type="even" if n % 2 == 0 else "odd") for name in COLOURS for n in range(5)
    ]
    result = evaluate("videoqa", [*manifest(videos, tmp_path, rows), OWN, "--config.batch_size=3"], tmp_path)
    assert result["metrics"]["acc_all"] == 100
    assert result["metrics"]["per_type"] == {"even": {"n": 12, "acc_all": 100}, "odd": {"n": 8, "acc_all": 100}}
    assert result["protocol"]["answers_from"] == "answers of the set itself"
    assert sum(model.batches) == 20
    assert max(model.batches) <= 3


def test_a_model_without_decoder_cannot_answer(videos, model, tmp_path, capsys):
    model.config.decoder = None
    words = manifest(videos, tmp_path, [question("red", "what?", "red")])
    evaluate("videoqa", [*words, OWN], tmp_path, code=DataError.exit_code)
    assert "has no decoder" in capsys.readouterr().err


def test_the_test_sets_own_answers_are_candidates_only_if_asked_for(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, [question("red", "what?", "red")])
    evaluate("videoqa", words, tmp_path, code=ConfigError.exit_code)
    error = capsys.readouterr().err
    assert "answers is empty: name a file of candidate answers" in error
    assert "answers=test_set" in error
    assert error.count("\n") == 1
    assert model.batches == []


def test_a_text_longer_than_the_model_takes_is_an_error(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, [question("red", "what?", "red")])
    evaluate("videoqa", [*words, OWN, "--config.text_length=77"], tmp_path, code=ConfigError.exit_code)
    assert "text_length=77, but this model takes 24" in capsys.readouterr().err


def test_types_by_the_first_word():
    asked = ["What is it?", "who's there", "  HOW many", "'where", "when ?", "is it?", "", "whatever"]
    assert videoqa.question_types(asked) == ["what", "who", "how", "where", "when", "other", "other", "other"]


def answered(logits, answer, answers, tokenizer, types=None, readable=None):
    """The scores of these logits; `answer` is the number of the right candidate, -1 for none."""
    allowed = candidates(answers, tokenizer)
    answer = np.array(answer)
    ranks = ranking.choice(logits[:, allowed.first_token], np.maximum(answer, 0))
    readable = np.ones(len(answer), bool) if readable is None else np.array(readable)
    return videoqa.score(ranks, readable, answer >= 0, types or ["other"] * len(answer), allowed)


def test_only_candidates_compete(tokenizer):
    logits = np.zeros((2, tokenizer.vocab_size), np.float32)
    logits[:, tokenizer.encode("horse")[0]] = 9  # no candidate
    logits[0, tokenizer.encode("cat")[0]] = 2
    logits[1, tokenizer.encode("dog")[0]] = 2
    found = answered(logits, [1, 1], ["dog", "cat"], tokenizer, types=["what", "who"])
    assert (found["acc_all"], found["acc_in_vocab"], found["coverage"], found["chance"]) == (50, 50, 100, 50)
    assert found["per_type"] == {"what": {"n": 1, "acc_all": 100}, "who": {"n": 1, "acc_all": 0}}


def test_an_answer_outside_the_candidates_is_wrong_in_acc_all_and_left_out_of_acc_in_vocab(tokenizer):
    logits = np.zeros((4, tokenizer.vocab_size), np.float32)
    logits[:, tokenizer.encode("dog")[0]] = 2
    found = answered(logits, [0, 0, 1, -1], ["dog", "cat"], tokenizer)
    assert found["acc_all"] == 50
    assert found["acc_in_vocab"] == pytest.approx(200 / 3)
    assert (found["coverage"], found["n"], found["n_in_vocab"]) == (75, 4, 3)


def test_candidates_that_share_the_first_token_share_the_credit(tokenizer):
    logits = np.zeros((3, tokenizer.vocab_size), np.float32)
    logits[:, tokenizer.encode("ice")[0]] = 5
    found = answered(logits, [0, 1, 2], ["ice cream", "ice skate", "dog"], tokenizer, types=["a", "b", "c"])
    assert [found["per_type"][one]["acc_all"] for one in "abc"] == [50, 50, 0]
    assert found["acc_all"] == pytest.approx(100 / 3)
    assert found["optimistic"]["acc_all"] == pytest.approx(200 / 3)
    assert found["pessimistic"]["acc_all"] == 0
    assert (found["n_colliding_answers"], found["n_tied_queries"]) == (2, 2)


def test_questions_of_missing_videos_are_wrong(tokenizer):
    logits = np.zeros((2, tokenizer.vocab_size), np.float32)
    found = answered(logits, [0, -1], ["dog"], tokenizer, readable=[False, True])
    assert (found["acc_all"], found["acc_in_vocab"], found["n_tied_queries"]) == (0, 0, 0)
    none = answered(logits[:1], [-1], ["dog"], tokenizer)
    assert (none["acc_in_vocab"], none["coverage"]) == (0, 0)


def test_logits_that_are_no_numbers_are_an_error(tokenizer):
    logits = np.full((1, tokenizer.vocab_size), np.nan, np.float32)
    with pytest.raises(NonFiniteError):
        answered(logits, [0], ["dog", "cat"], tokenizer)
