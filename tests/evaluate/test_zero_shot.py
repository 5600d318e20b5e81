"""Class names in sentences: the three ensembles, top-k, what missing videos and ties do, class files."""

import re
from pathlib import Path

import numpy as np
import pytest

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate import prompts, zero_shot

SHARED = Path(__file__).resolve().parents[3] / "shared"
CLASSNAMES = SHARED / "data" / "annotations" / "classnames"


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
    orders = [np.argsort(zero_shot.class_scores(video, text[:1], name, 20.0), axis=1) for name in zero_shot.ENSEMBLES]
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


def test_scores_of_a_hand_worked_table():
    classes = [f"c{i}" for i in range(8)]
    scores = np.zeros((4, 8), np.float32)
    scores[0] = [9, 1, 2, 3, 4, 5, 6, 7]  # label 0: rank 1
    scores[1] = [9, 5, 8, 7, 6, 1, 2, 3]  # label 1: rank 5
    scores[2] = [9, 5, 8, 7, 6, 5.5, 2, 3]  # label 1: rank 6
    scores[3] = [1, 2, 3, 9, 0, 0, 0, 9]  # label 3: ties for rank 1
    found = zero_shot.score(scores, np.array([0, 1, 1, 3]), np.zeros(4, bool), classes)
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
    found = zero_shot.score(scores, np.array([0, 0]), np.array([False, True]), ["a", "b"])
    assert (found["top1"], found["top5"], found["n"]) == (50, 50, 2)
    assert found["optimistic"]["top1"] == 50


def test_prompt_sets_have_the_sizes_that_papers_state():
    assert len(set(prompts.ACTION_16)) == 16
    assert len(set(prompts.KINETICS_28)) == 28
    for name in prompts.SETS:
        assert all(sentence.count("{}") == 1 for sentence in prompts.templates(name))


@pytest.mark.skipif(not (CLASSNAMES / "clip_prompts.md").is_file(), reason="no annotation files here")
def test_the_28_are_clips_own():
    text = (CLASSNAMES / "clip_prompts.md").read_text("utf-8").partition("## Kinetics700")[2].partition("templates")[2]
    assert tuple(re.findall(r"^ +'(.*)',$", text.partition("]")[0], re.MULTILINE)) == prompts.KINETICS_28


def test_prompts_are_named_or_given():
    assert prompts.templates("a clip of {}!") == ("a clip of {}!",)
    assert prompts.templates(["{} one", "two {}"]) == ("{} one", "two {}")
    with pytest.raises(ConfigError, match="action_16, kinetics_28"):
        prompts.templates("kinetics28")
    with pytest.raises(ConfigError, match="once"):
        prompts.templates(["{} and {}"])
    with pytest.raises(ConfigError, match="empty"):
        prompts.templates([])


def test_names_and_sentences_are_put_together_sentence_by_sentence():
    assert prompts.class_text(" brush_hair  now ") == "brush hair now"
    assert prompts.fill(["a {}", "{} b"], ["x", "y{}"]) == ["a x", "a y{}", "x b", "y{} b"]


def test_class_files(tmp_path):
    (tmp_path / "names.txt").write_text("brush_hair\n\n  cart wheel\n", encoding="utf-8")
    assert zero_shot.read_classes(tmp_path / "names.txt") == ["brush hair", "cart wheel"]
    (tmp_path / "names.csv").write_text('id,name\n0,"a, b"\n1,c\n', encoding="utf-8")
    assert zero_shot.read_classes(tmp_path / "names.csv") == ["a, b", "c"]
    for name, content, message in (
        ("none.txt", " \n", "names none"),
        ("twice.txt", "a_b\na b\n", "'a b' stands there more than once"),
        ("wrong.csv", "id,label\n0,x\n", "no column `name`"),
        ("bytes.txt", b"\xff\xfe\xfa", "utf-8"),
    ):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(DataError, match=message):
            zero_shot.read_classes(tmp_path / name)
    with pytest.raises(DataError, match=r"gone\.txt"):
        zero_shot.read_classes(tmp_path / "gone.txt")


def test_labels_are_found_among_the_classes_as_words():
    assert zero_shot.label_columns(["b_c", "a"], ["x", "y"], ["a", "b c"]).tolist() == [1, 0]
    with pytest.raises(DataError, match="2 labels are no class, the first: 'z' of r2"):
        zero_shot.label_columns(["a", "z", "q"], ["r1", "r2", "r3"], ["a"])


@pytest.mark.skipif(not CLASSNAMES.is_dir(), reason="no annotation files here")
@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("xclip_kinetics_400_labels.csv", 400),
        ("xclip_kinetics_600_labels.csv", 600),
        ("mmaction_kinetics_label_map_k400.txt", 400),
        ("mmaction_kinetics_label_map_k700.txt", 700),
        ("mmaction_ucf101_label_map.txt", 101),
        ("mmaction_hmdb51_label_map.txt", 51),
    ],
)
def test_class_lists_in_use_are_read(file, count):
    assert len(zero_shot.read_classes(CLASSNAMES / file)) == count
