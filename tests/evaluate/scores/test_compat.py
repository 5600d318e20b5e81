"""Figures of other programs. tests/data/evaluation/compat.json holds what their own code printed for these matrices.

The functions that make the figures were run on them as they are: ArrowLuo/CLIP4Clip metrics.py and the reshaping of
main_task_retrieval.py (with torch's stable sort), albanie/collaborative-experts model/metric.py (with query masks where
videos have different numbers of captions), m-bain/frozen-in-time model/metric.py, mlfoundations/open_clip
src/open_clip_train/metrics.py (with the scores in place of features), facebookresearch/perception_models
apps/pe/clip_benchmark/metrics/zeroshot_retrieval.py and OpenGVLab/unmasked_teacher multi_modality/tasks/
retrieval_utils.py. The last two sort without a fixed order of ties, so that their figures are of matrices without ties.
"""

import json

import numpy as np
import pytest

from harvest_jax.errors import DataError
from harvest_jax.evaluate.scores import compat, ranking, relevance
from tests.helpers import whole_matrix
from tests.helpers.colour_evaluation import REPOSITORY

EXPECTED = json.loads((REPOSITORY / "tests" / "data" / "evaluation" / "compat.json").read_text())
ROUNDED = ("Std_Rank", "geometric_mean_R1-R5-R10")  # by logarithms and sums, which processors round differently


def matrix(kind, videos, captions, seed):
    """Cosines like a model's; `kind` says how they are rounded. A fifth of the captions repeat a text."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0.18, 0.04, (videos, captions)).astype(np.float32)
    owner = np.concatenate([np.arange(videos), rng.integers(0, videos, captions - videos)])
    if captions > videos:
        owner = rng.permutation(owner)
    scores[owner, np.arange(captions)] += np.float32(0.05)
    if kind == "tied":
        scores = np.round(scores * 25) / np.float32(25)
    elif kind == "bfloat16":
        bits = scores.view(np.uint32)
        scores = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    elif kind == "constant":
        scores[:] = 0.25
    return scores, owner, [f"text {n % (captions - captions // 5)}" for n in range(captions)]


def case(name):
    kind, *numbers = name.split()
    return matrix(kind, *map(int, numbers))


@pytest.mark.parametrize(("name", "program"), [(name, program) for name in EXPECTED for program in EXPECTED[name]])
def test_figures_are_those_of_the_programs_own_code(name, program):
    found = compat.figures([program], *case(name))[program]
    for direction, expected in EXPECTED[name][program].items():
        assert list(found[direction]) == list(expected)
        for key, value in expected.items():
            assert found[direction][key] == (pytest.approx(value, rel=1e-12) if key in ROUNDED else value), key


def test_every_program_is_compared_with_ties_and_without_in_both_shapes():
    programs = {program for name in EXPECTED for program in EXPECTED[name]}
    assert programs == set(compat.Program.__args__)
    assert {name.split()[0] for name in EXPECTED} == {"random", "tied", "bfloat16", "constant"}
    tied = [
        whole_matrix.text_to_video(*case(name)[:2]).tied.sum() for name in EXPECTED if name.startswith(("tied", "bf"))
    ]
    assert min(tied) > 0


def r1(found):
    """The first figure of a direction in percent: R@1 in every program."""
    key, value = next(iter(found.items())) if "mean_rank" not in next(iter(found)) else list(found.items())[2]
    assert key.lower().endswith(("r1", "r@1", "recall@1"))
    return value * (1 if key.startswith(("R", "img", "txt")) else 100)


def test_programs_agree_without_ties_and_differ_with_them():
    scores, owner, _ = case("random 60 60 0")
    texts = [str(n) for n in range(60)]
    ours = ranking.summary(whole_matrix.text_to_video(scores, owner))["R@1"]
    for program, found in compat.figures(compat.Program.__args__, scores, owner, texts).items():
        assert r1(found["t2v"]) == pytest.approx(ours, abs=0.005), program
    scores, owner, _ = case("tied 60 60 3")
    found = compat.figures(compat.Program.__args__, scores, owner, texts)
    assert len({round(r1(one["t2v"]), 3) for one in found.values()}) >= 4


@pytest.mark.parametrize("name", [name for name in EXPECTED if not name.startswith("random")])
def test_programs_without_an_order_of_ties_stay_within_the_bounds(name):
    scores, owner, texts = case(name)
    shared = relevance.same_text(owner, texts)
    for program, right, prefix in (
        ("unmasked_teacher", relevance.own(owner), {"t2v": "img_r", "v2t": "txt_r"}),
        ("perception_models", shared, {"t2v": "video_retrieval_recall@", "v2t": "text_retrieval_recall@"}),
    ):
        found = compat.figures([program], scores, owner, texts)[program]
        unit = 1 if program == "unmasked_teacher" else 100
        for direction, place in (
            ("t2v", compat.places(scores.T, right.caption, right.video)),
            ("v2t", compat.places(scores, right.video, right.caption)),
        ):
            for k in (1, 5, 10):
                first, last = 100 * np.mean(place.greater < k), 100 * np.mean(place.greater + place.equal - 1 < k)
                assert last - 0.01 <= unit * found[direction][f"{prefix[direction]}{k}"] <= first + 0.01


def test_a_reversed_sort_is_taken_as_it_comes():
    """unmasked_teacher's figures with ties are those of numpy's sort on this machine."""
    scores, owner, texts = case("tied 25 83 4")
    found = compat.figures(["unmasked_teacher"], scores, owner, texts)["unmasked_teacher"]
    place = [np.flatnonzero(np.argsort(scores[:, c])[::-1] == owner[c])[0] for c in range(len(owner))]
    assert found["t2v"]["img_r1"] == round(100 * np.mean(np.array(place) < 1), 2)
    place = [
        min(np.flatnonzero(np.isin(np.argsort(row)[::-1], np.flatnonzero(owner == v)))) for v, row in enumerate(scores)
    ]
    assert found["v2t"]["txt_r5"] == round(100 * np.mean(np.array(place) < 5), 2)


def test_the_first_of_a_tie_by_number():
    place = compat.places(np.array([[1, 2, 2, 2, 3]], np.float32), np.array([0, 0]), np.array([3, 2]))
    assert (place.greater[0], place.equal[0], place.earlier[0]) == (1, 3, 1)  # answer 1 is before the right answer 2
    assert (place.by_number[0], place.mean[0]) == (2, 2)


def test_videos_that_could_not_be_read_are_below_all_others():
    scores, owner, texts = case("random 60 60 0")
    missing = np.arange(60) < 6
    broken = np.where(missing[:, None], np.nan, scores).astype(np.float32)
    found = compat.figures(["frozen", "clip4clip"], broken, owner, texts, missing)
    below = np.where(missing[:, None], np.float32(-2), scores)
    assert found == compat.figures(["frozen", "clip4clip"], below, owner, texts)
    assert found["frozen"]["t2v"]["R1"] < compat.figures(["frozen"], scores, owner, texts)["frozen"]["t2v"]["R1"]


@pytest.mark.parametrize("program", compat.ONE_CAPTION)
def test_programs_for_one_caption_refuse_several(program):
    scores, owner, texts = case("random 25 83 1")
    with pytest.raises(DataError, match=f"compat={program} is for one caption of each video, and here 83 captions"):
        compat.figures([program], scores, owner, texts)


def test_a_constant_matrix_shows_each_rule():
    scores, owner, texts = np.zeros((100, 100), np.float32), np.arange(100), [str(n) for n in range(100)]
    found = compat.figures(compat.Program.__args__, scores, owner, texts)
    assert found["frozen"]["t2v"]["R1"] == 100  # the right answer is first
    assert found["collaborative_experts"]["t2v"]["R1"] == 0  # it is in the middle
    assert found["clip4clip"]["t2v"]["R1"] == found["clip4clip_multi_sentence"]["t2v"]["R1"] == 1  # of 10,000 samples
    assert found["open_clip"]["t2v"]["text_to_image_R@10"] == pytest.approx(0.1)
