"""Numbers answered at a masked word: squared errors by two rules, ties, missing videos."""

import csv

import numpy as np
import pytest

import harvest_jax
from data_pipeline.decode import pool
from harvest_jax.errors import DataError, NonFiniteError
from harvest_jax.evaluate.tasks import counting
from harvest_jax.input.tokenizer import VOCAB_SIZE
from harvest_jax.model.config import DecoderConfig, HarvestConfig, TextConfig, VideoConfig
from tests.helpers.annotations import ANNOTATIONS
from tests.helpers.colour_evaluation import COLOURS, ColourModel, DecoderInThisProcess, evaluate, manifest, question

NUMBER_OF = dict(zip(COLOURS, ("three", "two", "ten", "zero"), strict=True))


@pytest.fixture
def counter(model, monkeypatch):
    """The model of colours, saying one number for each."""

    def answer_logits(self, videos, ids, slot):
        logits = np.zeros((len(videos), self.tokenizer.vocab_size), np.float32)
        nearest = (self.unit(videos.mean(axis=(1, 2, 3))) @ self.unit(list(COLOURS.values())).T).argmax(axis=1)
        for row, colour in enumerate(nearest):
            logits[row, self.tokenizer.encode(NUMBER_OF[list(COLOURS)[colour]])[0]] = 30
        logits[:, self.tokenizer.encode("horse")[0]] = 99  # no number
        return logits

    monkeypatch.setattr(ColourModel, "answer_logits", answer_logits)
    return model


def test_counting(videos, counter, tmp_path, capsys):
    rows = [question(*row) for row in (("red", "how often?", 3), ("green", "how often?", 5), ("blue", "how often?", 0))]
    words = manifest(videos, tmp_path, [*rows, question("gone", "how often?", 9)])
    result = evaluate("counting", [*words, "--allow_missing"], tmp_path)
    metrics = result["metrics"]
    assert (result["n_expected"], result["n_missing"]) == (4, 1)
    assert metrics["MSE"] == pytest.approx((0 + 9 + 81 + 64) / 4)  # 3 for 3, 2 for 5, 10 for 1, and the worst for 9: 1
    assert metrics["accuracy"] == 25
    assert metrics["MSE_expectation"] == metrics["MSE"]  # the model is certain
    assert metrics["by_rule"]["tgif_qa"]["MSE"] == metrics["MSE"]
    assert metrics["by_rule"]["as_written"]["MSE"] == pytest.approx((0 + 9 + 100 + 81) / 4)
    assert result["protocol"]["numbers"] == list(counting.WORDS[1:])
    assert "MSE_expectation" in capsys.readouterr().out
    written = evaluate("counting", [*manifest(videos, tmp_path, rows), "--config.rule=as_written"], tmp_path)
    assert written["metrics"]["MSE"] == pytest.approx((0 + 9 + 100) / 3)
    assert written["protocol"]["numbers"] == list(counting.WORDS)
    assert written["protocol_hash"] != result["protocol_hash"]


def test_zero_is_said_only_by_the_rule_that_has_it(videos, counter, tmp_path):
    words = manifest(videos, tmp_path, [question("yellow", "how often?", 0)])
    found = evaluate("counting", words, tmp_path)["metrics"]["by_rule"]
    assert (found["as_written"]["MSE"], found["as_written"]["accuracy"]) == (0, 100)
    assert found["tgif_qa"]["n_tied_queries"] == 1  # without zero this model has no opinion


@pytest.mark.parametrize("answer", ["-1", "11", "two", "2.5", "٣"])
def test_an_answer_must_be_a_number_from_0_to_10(videos, counter, tmp_path, capsys, answer):
    rows = [question("red", "how often?", "0"), question("blue", "how often?", answer)]
    evaluate("counting", manifest(videos, tmp_path, rows), tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err
    assert "row blue how often? of set.jsonl: `answer` must be a whole number from 0 to 10" in error
    assert error.count("\n") == 1


def test_a_real_model_folder_is_scored_as_its_own_api_says(videos, tmp_path, monkeypatch, capsys):
    import jax

    from harvest_jax.input.question_prompt import prompt_ids
    from harvest_jax.model.harvest import Harvest
    from harvest_jax.weights.folder import save_model

    monkeypatch.setattr(pool, "VideoDecoder", DecoderInThisProcess)
    rng = np.random.default_rng(0)
    models = {}
    for vocab in (600, VOCAB_SIZE):
        config = HarvestConfig(
            "tiny",
            VideoConfig(16, 8, 2, 8, 1, 2, 8),
            TextConfig(vocab, 24, 8, 1, 2, 8),
            DecoderConfig(1, 8, 2, 8, vocab),
        )
        shapes = jax.eval_shape(Harvest(config).init, jax.random.key(0))
        params = jax.tree.map(lambda leaf: np.asarray(rng.normal(size=leaf.shape), np.float32), shapes)
        save_model(tmp_path / str(vocab), config, params, {})
        models[vocab] = harvest_jax.load(tmp_path / str(vocab))
    answers = dict(zip(COLOURS, (0, 2, 5, 10), strict=True))
    words = manifest(videos, tmp_path, [question(name, f"how often {name}?", n) for name, n in answers.items()])

    monkeypatch.setitem(harvest_jax.__dict__, "load", lambda folder: models[600])
    evaluate("counting", words, tmp_path, code=DataError.exit_code)
    assert "tokenizer gives several of zero, one, two" in capsys.readouterr().err

    model = models[VOCAB_SIZE]
    monkeypatch.setitem(harvest_jax.__dict__, "load", lambda folder: model)
    found = evaluate("counting", words, tmp_path)["metrics"]
    prompt = "Question: {question} Answer: {mask}"
    asked = [prompt_ids(model.tokenizer, prompt, f"how often {name}?", 24) for name in answers]
    clips = model.prepare([videos / f"{name}.mp4" for name in answers])
    logits = model.answer_logits(
        clips, np.stack([ids for ids, _, _ in asked]), np.array([slot for _, slot, _ in asked])
    )
    numbers = logits[:, [model.tokenizer.encode(word)[0] for word in counting.WORDS[1:]]]
    said = 1 + np.argmax(numbers, axis=1)
    assert found["MSE"] == np.mean((said - [1, 2, 5, 10]) ** 2)
    assert (found["n"], found["n_tied_queries"]) == (4, 0)


def scored(logits, answers, missing=None, rule="tgif_qa"):
    """`logits` {number: logit} of each question; all other numbers have -50."""
    table = np.full((len(logits), 11), -50, np.float32)
    for row, given in enumerate(logits):
        for number, logit in given.items():
            table[row, number] = logit
    missing = np.zeros(len(logits), bool) if missing is None else np.array(missing)
    return counting.score(table, np.array(answers), missing, rule)


def test_an_answer_of_0_counts_as_1_by_tgif_qas_rule_and_cannot_be_predicted():
    assert scored([{0: 9, 1: 8}], [0])["MSE"] == 0
    assert scored([{0: 9, 4: 8}], [0])["MSE"] == 9
    assert scored([{0: 9, 4: 8}], [0], rule="as_written")["MSE"] == 0
    assert scored([{1: 9}], [0], rule="as_written")["MSE"] == 1


def test_the_expectation_is_rounded_and_can_be_a_number_that_is_not_likeliest():
    found = scored([{2: 0, 6: 0.1}], [4])  # likeliest 6; expected 4.1
    assert (found["MSE"], found["MSE_expectation"]) == (4, 0)
    assert (found["accuracy"], found["accuracy_expectation"]) == (0, 100)


def test_ties_count_as_the_mean_over_them():
    found = scored([{2: 5, 4: 5, 9: 1}], [4])
    assert (found["MSE"], found["accuracy"], found["n_tied_queries"]) == (2, 50, 1)
    assert found["optimistic"] == {"MSE": 0, "accuracy": 100}
    assert found["pessimistic"] == {"MSE": 4, "accuracy": 0}
    clear = scored([{4: 5}], [4])
    assert clear["optimistic"] == clear["pessimistic"] == {"MSE": 0, "accuracy": 100}


def test_a_missing_video_has_the_largest_possible_error():
    found = scored([{3: np.nan}, {3: 1}, {3: 1}], [3, 10, 3], missing=[True, True, False])
    assert found["MSE"] == found["MSE_expectation"] == pytest.approx((49 + 81 + 0) / 3)
    assert (found["accuracy"], found["accuracy_expectation"]) == pytest.approx((100 / 3, 100 / 3))
    assert found["optimistic"] == {"MSE": found["MSE"], "accuracy": found["accuracy"]}
    with pytest.raises(NonFiniteError, match="1 questions"):
        scored([{3: np.nan}, {3: 1}], [3, 3])


def test_what_needs_no_video_stands_beside_it():
    found = scored([{1: 1}] * 3, [1, 1, 7])
    assert found["constant_MSE"] == pytest.approx((4 + 4 + 16) / 3)  # always 3
    assert found["chance_MSE"] == pytest.approx(np.mean([(n - a) ** 2 for a in (1, 1, 7) for n in range(1, 11)]))
    assert found["chance"] == 10


@pytest.mark.skipif(not (ANNOTATIONS / "tgif_qa").is_dir(), reason="no annotation files here")
def test_tgif_qa_never_writes_1():
    with (ANNOTATIONS / "tgif_qa" / "Test_count_question.csv").open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream, delimiter="\t"))
    answers = counting.read_counts([row["answer"] for row in table], [row["vid_id"] for row in table])
    assert np.bincount(answers).tolist() == [918, 0, 914, 582, 394, 222, 161, 85, 73, 41, 164]
    right = np.full((len(answers), 11), -9, np.float32)
    right[np.arange(len(answers)), np.maximum(answers, 1)] = 9
    missing = np.zeros(len(answers), bool)
    by_rule = {rule: counting.score(right, answers, missing, rule) for rule in counting.LOWEST}
    assert by_rule["tgif_qa"]["MSE"] == 0
    assert by_rule["as_written"]["MSE"] == pytest.approx(918 / 3554)
