"""Zero-shot classification: the three ensembles, top-k, missing videos, ties."""

from typing import get_args

import numpy as np
import pytest

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate.half_classes import half_classes
from harvest_jax.evaluate.scores import ranking
from harvest_jax.evaluate.tasks import zero_shot
from tests.helpers.colour_evaluation import COLOURS, evaluate, manifest


def test_zero_shot(videos, model, tmp_path, capsys):
    rows = [{"video": f"{name}.mp4", "label": name} for name in COLOURS] + [{"video": "broken.mp4", "label": "red"}]
    (tmp_path / "classes.txt").write_text("\n".join([*COLOURS, "grey_stone"]), encoding="utf-8")
    words = manifest(videos, tmp_path, rows)
    result = evaluate("zero_shot", [*words, f"--config.classes={tmp_path / 'classes.txt'}"], tmp_path)
    assert (result["n_expected"], result["n_missing"]) == (5, 1)
    assert (result["metrics"]["top1"], result["metrics"]["top5"], result["metrics"]["AVG"]) == (80, 80, 80)
    assert result["metrics"]["per_class"]["red"] == {"n": 2, "top1": 50}
    assert result["metrics"]["chance"] == 20
    assert len(result["protocol"]["prompts"]) == 16
    assert "top1" in capsys.readouterr().out
    hashes = {result["protocol_hash"]}
    for word in ("ensemble=mean_cosine", "ensemble=mean_probability", "prompts=kinetics_28", "prompts=one {} here"):
        hashes.add(evaluate("zero_shot", [*words, f"--config.{word}"], tmp_path)["protocol_hash"])
    assert len(hashes) == 5


def test_labels_may_stand_in_another_column_and_must_be_classes(videos, model, tmp_path, capsys):
    rows = [{"video": f"{name}.mp4", "caption": "c", "category": name} for name in COLOURS]
    words = manifest(videos, tmp_path, rows)
    assert evaluate("zero_shot", [*words, "--config.label_column=category"], tmp_path)["metrics"]["top1"] == 100
    evaluate("zero_shot", words, tmp_path, code=DataError.exit_code)
    assert "4 rows have no `label`, the first: red" in capsys.readouterr().err


def test_half_of_the_classes(videos, model, tmp_path, capsys):
    """A seed leaves the same two of four classes, and the clips of these."""
    rows = [{"video": f"{name}.mp4", "label": name} for name in COLOURS]
    rows.append({"video": "red.mp4", "id": "again", "label": "blue"})
    words = manifest(videos, tmp_path, rows)
    whole = evaluate("zero_shot", words, tmp_path)
    halves = [evaluate("zero_shot", [*words, f"--config.half_of_classes={seed}"], tmp_path) for seed in (0, 3)]
    for seed, result in zip((0, 3), halves, strict=True):
        drawn = half_classes(sorted(COLOURS), seed)
        assert list(result["metrics"]["per_class"]) == list(drawn)
        assert (result["protocol"]["classes"], result["metrics"]["chance"]) == (2, 50)
        assert result["n_expected"] == result["metrics"]["n"] == 2 + ("blue" in drawn)
        assert result["protocol"]["half_of_classes"] == seed
    assert half_classes(sorted(COLOURS), 0) != half_classes(sorted(COLOURS), 3)
    assert len({result["protocol_hash"] for result in (whole, *halves)}) == 3
    assert "half_of_classes" not in whole["protocol"]
    wrong = [*words, "--config.half_of_classes=0", "--config.answer_from=head"]
    evaluate("zero_shot", wrong, tmp_path, ConfigError.exit_code)
    assert "half_of_classes is for classes that no head was trained on" in capsys.readouterr().err


@pytest.mark.parametrize(("count", "says"), [(1, "has 1 class"), (4, "no row has a class of the half of 2")])
def test_a_half_without_rows_is_one_line(videos, model, tmp_path, capsys, count, says):
    (tmp_path / "classes.txt").write_text("\n".join(sorted(COLOURS)[:count]), encoding="utf-8")
    lost = next(name for name in sorted(COLOURS) if name not in half_classes(sorted(COLOURS), 0))
    words = manifest(videos, tmp_path, [{"video": "red.mp4", "label": sorted(COLOURS)[0] if count == 1 else lost}])
    words += [f"--config.classes={tmp_path / 'classes.txt'}", "--config.half_of_classes=0"]
    evaluate("zero_shot", words, tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def embeddings():
    rng = np.random.default_rng(3)
    return rng.normal(size=(6, 16)).astype(np.float32), rng.normal(size=(4, 5, 16)).astype(np.float32)


def test_mean_vector_is_the_cosine_with_the_renormalised_mean(embeddings):
    video, text = embeddings
    expected = unit(video) @ unit(unit(text).mean(axis=0)).T
    np.testing.assert_allclose(zero_shot.class_scores(video, text, "mean_vector", 100.0), expected, atol=1e-6)


def test_mean_cosine_is_the_mean_over_sentences(embeddings):
    video, text = embeddings
    expected = np.mean([unit(video) @ unit(sentence).T for sentence in text], axis=0)
    np.testing.assert_allclose(zero_shot.class_scores(video, text, "mean_cosine", 100.0), expected, atol=1e-6)


def test_mean_probability_averages_softmaxes_and_needs_the_scale(embeddings):
    video, text = embeddings
    for scale in (1.0, 100.0):
        odds = [np.exp(scale * (unit(video) @ unit(sentence).T).astype(np.float64)) for sentence in text]
        expected = np.mean([o / o.sum(axis=1, keepdims=True) for o in odds], axis=0)
        found = zero_shot.class_scores(video, text, "mean_probability", scale)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_one_sentence_makes_the_ensembles_rank_alike(embeddings):
    video, text = embeddings
    orders = [
        np.argsort(zero_shot.class_scores(video, text[:1], name, 20.0), axis=1) for name in get_args(zero_shot.Ensemble)
    ]
    np.testing.assert_array_equal(orders[0], orders[1])
    np.testing.assert_array_equal(orders[0], orders[2])


def test_mean_cosine_and_mean_vector_rank_alike_only_if_the_class_means_are_equally_long():
    video = np.array([[1.0, 0.2, 0.0]], np.float32)
    agreed = np.array([[1.0, 0.8, 0.0], [1.0, 0.8, 0.0]])  # a class whose sentences agree: mean of length 1
    spread = np.array([[1.0, 0.3, 1.2], [1.0, 0.3, -1.2]])  # closer in direction of the mean, which is short
    text = np.stack([agreed, spread], axis=1).astype(np.float32)
    by_vector = zero_shot.class_scores(video, text, "mean_vector", 1.0)[0]
    by_cosine = zero_shot.class_scores(video, text, "mean_cosine", 1.0)[0]
    assert by_vector.argmax() == 1
    assert by_cosine.argmax() == 0
    same_length = np.stack([agreed[:, [1, 0, 2]], agreed], axis=1).astype(np.float32)
    for name in ("mean_vector", "mean_cosine"):
        assert zero_shot.class_scores(video, same_length, name, 1.0)[0].argmax() == 1


def scored(scores, label, missing, classes):
    return zero_shot.score(ranking.choice(scores, label, missing), label, missing, classes)


def test_scores_of_a_hand_worked_table():
    classes = [f"c{i}" for i in range(8)]
    scores = np.zeros((4, 8), np.float32)
    scores[0] = [9, 1, 2, 3, 4, 5, 6, 7]  # label 0: rank 1
    scores[1] = [9, 5, 8, 7, 6, 1, 2, 3]  # label 1: rank 5
    scores[2] = [9, 5, 8, 7, 6, 5.5, 2, 3]  # label 1: rank 6
    scores[3] = [1, 2, 3, 9, 0, 0, 0, 9]  # label 3: ties for rank 1
    found = scored(scores, np.array([0, 1, 1, 3]), np.zeros(4, bool), classes)
    assert found["top1"] == pytest.approx(100 * 1.5 / 4)
    assert found["top5"] == pytest.approx(75)
    assert found["AVG"] == pytest.approx((37.5 + 75) / 2)
    assert found["n_tied_queries"] == 1
    assert (found["optimistic"]["top1"], found["pessimistic"]["top1"]) == (50, 25)
    assert found["chance"] == 12.5
    assert found["per_class"] == {"c0": {"n": 1, "top1": 100}, "c1": {"n": 2, "top1": 0}, "c3": {"n": 1, "top1": 50}}
    assert found["mean_class_top1"] == pytest.approx(50)


def test_a_missing_video_is_wrong_even_where_all_classes_are_within_five():
    scores = np.array([[1, 0], [np.nan, np.nan]], np.float32)
    found = scored(scores, np.array([0, 0]), np.array([False, True]), ["a", "b"])
    assert (found["top1"], found["top5"], found["n"]) == (50, 50, 2)
    assert found["optimistic"]["top1"] == 50
