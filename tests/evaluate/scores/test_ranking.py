"""The ranking core against hand-worked matrices and against every order of the ties, tried one by one."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest_jax.errors import DataError, NonFiniteError
from harvest_jax.evaluate.scores import ranking
from tests.helpers import whole_matrix
from tests.helpers.tie_orders import orders

FIVE = ("R@1", "R@5", "R@10", "MedR", "MnR")


def scores_of(rows):
    return np.array(rows, np.float32)


def both(scores, owner=None, missing=None):
    owner = np.arange(scores.shape[1]) if owner is None else np.array(owner)
    t2v = ranking.summary(whole_matrix.text_to_video(scores, owner, missing))
    v2t = ranking.summary(whole_matrix.video_to_text(scores, owner, missing))
    return t2v, v2t


def test_identity_is_perfect():
    for direction in both(np.eye(12, dtype=np.float32)):
        assert {name: direction[name] for name in FIVE} == {"R@1": 100, "R@5": 100, "R@10": 100, "MedR": 1, "MnR": 1}
        # the zeros of the identity tie with each other, never with the right answer
        assert direction["n_tied_queries"] == 0
        assert direction["n_queries"] == 12


def test_reversed_is_as_bad_as_can_be():
    for direction in both(-np.eye(12, dtype=np.float32)):
        assert {name: direction[name] for name in FIVE} == {"R@1": 0, "R@5": 0, "R@10": 0, "MedR": 12, "MnR": 12}


def test_a_constant_matrix_has_the_ranks_of_chance():
    # rank uniform over 1..20; the median of 20 such ranks is symmetric about 10.5
    for direction in both(np.full((20, 20), 0.25, np.float32)):
        assert direction["R@1"] == pytest.approx(5)
        assert direction["R@5"] == pytest.approx(25)
        assert direction["R@10"] == pytest.approx(50)
        assert direction["MedR"] == pytest.approx(10.5)
        assert direction["MnR"] == pytest.approx(10.5)
        assert direction["n_tied_queries"] == 20
        assert direction["optimistic"] == {"R@1": 100, "R@5": 100, "R@10": 100, "MedR": 1, "MnR": 1}
        assert direction["pessimistic"] == {"R@1": 0, "R@5": 0, "R@10": 0, "MedR": 20, "MnR": 20}


def test_a_hand_worked_matrix():
    scores = scores_of([[0.9, 0.2, 0.1], [0.8, 0.3, 0.7], [0.1, 0.4, 0.6]])
    t2v, v2t = both(scores)  # columns: ranks 1, 2, 2; rows: ranks 1, 3, 1
    assert (t2v["R@1"], t2v["MedR"], t2v["MnR"]) == (pytest.approx(100 / 3), 2, pytest.approx(5 / 3))
    assert (v2t["R@1"], v2t["MedR"], v2t["MnR"]) == (pytest.approx(200 / 3), 1, pytest.approx(5 / 3))


def test_a_duplicated_column_ties_video_to_text_only():
    scores = scores_of([[0.9, 0.9, 0.1], [0.3, 0.3, 0.2], [0.1, 0.1, 0.8]])  # captions 0 and 1 are the same sentence
    t2v, v2t = both(scores)
    assert t2v["n_tied_queries"] == 0
    assert t2v["R@1"] == pytest.approx(200 / 3)
    assert v2t["n_tied_queries"] == 2
    assert v2t["R@1"] == pytest.approx(100 * (0.5 + 0.5 + 1) / 3)
    assert v2t["optimistic"]["R@1"] == 100
    assert v2t["pessimistic"]["R@1"] == pytest.approx(100 / 3)
    assert v2t["MnR"] == pytest.approx((1.5 + 1.5 + 1) / 3)


def test_ragged_captions_count_the_best_own_one():
    # video 0 owns captions 0, 1, 2; video 1 owns caption 3
    scores = scores_of([[0.1, 0.9, 0.2, 0.8], [0.3, 0.2, 0.5, 0.4]])
    t2v, v2t = both(scores, owner=[0, 0, 0, 1])
    assert t2v["n_queries"] == 4
    assert t2v["MnR"] == pytest.approx((2 + 1 + 2 + 2) / 4)
    assert v2t["n_queries"] == 2
    assert (v2t["R@1"], v2t["MnR"]) == (50, 1.5)  # video 0 finds caption 1 first, video 1 is behind caption 2


def test_several_own_captions_in_a_tie():
    # two own and two other captions tie: P(first is own) = 1/2, E[wrong ones before it] = 2/3
    scores = scores_of([[0.5, 0.5, 0.5, 0.5, 0.9], [0.0, 0.0, 0.1, 0.1, 0.2]])
    ranks = whole_matrix.video_to_text(scores, np.array([0, 0, 1, 1, 1]))
    assert ranks.greater[0] == 1
    assert ranking.probability_within(ranks, 2)[0] == pytest.approx(1 / 2)
    assert ranking.probability_within(ranks, 3)[0] == pytest.approx(5 / 6)
    assert ranking.probability_within(ranks, 4)[0] == 1
    assert ranking.expected_rank(ranks)[0] == pytest.approx(1 + 1 + 2 / 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_scores_are_an_error(value):
    scores = np.eye(4, dtype=np.float32)
    scores[1, 2] = value
    for function in (whole_matrix.text_to_video, whole_matrix.video_to_text, ranking.choice):
        with pytest.raises(NonFiniteError, match="1 of 16 scores are not finite"):
            function(scores, np.arange(4))
    with pytest.raises(NonFiniteError):
        whole_matrix.text_to_video(np.full((4, 4), value, np.float32), np.arange(4))


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_embeddings_without_direction_are_an_error(bad):
    embeddings = np.ones((3, 4), np.float32)
    embeddings[1] = bad
    with pytest.raises(NonFiniteError, match=r"1 of 3 video embeddings .* number 1"):
        ranking.similarity(embeddings, np.ones((2, 4), np.float32))
    with pytest.raises(NonFiniteError, match="text"):
        ranking.similarity(np.ones((2, 4), np.float32), embeddings)


def test_owners_and_answers_must_exist():
    scores = np.eye(3, dtype=np.float32)
    with pytest.raises(DataError, match=r"video numbers 0\.\.3, of 3"):
        whole_matrix.text_to_video(scores, np.array([0, 1, 3]))
    with pytest.raises(DataError, match="video number 1 has no caption"):
        whole_matrix.video_to_text(scores, np.array([0, 0, 2]))
    with pytest.raises(DataError, match="no captions"):
        whole_matrix.text_to_video(np.zeros((3, 0), np.float32), np.zeros(0, np.int64))
    with pytest.raises(DataError, match=r"0\.\.2"):
        ranking.choice(scores, np.array([0, 1, 3]))


def test_similarity_is_the_cosine_and_float32():
    rng = np.random.default_rng(0)
    video, text = rng.normal(size=(2100, 5)) * 9, rng.normal(size=(7, 5))  # more rows than one block
    exact = (video @ text.T) / np.linalg.norm(video, axis=1)[:, None] / np.linalg.norm(text, axis=1)
    cosine = ranking.similarity(video.astype(np.float32), text.astype(np.float32))
    assert cosine.dtype == np.float32
    np.testing.assert_allclose(cosine, exact, atol=3e-7)


@pytest.mark.parametrize("width", [32, 512])
def test_equal_embeddings_tie_wherever_they_stand(width):
    rng = np.random.default_rng(1)
    for texts in (5, 6, 7, 33, 301):  # a float32 product rounds the columns at the edge of a block differently
        text = np.repeat(rng.normal(size=(1, width)), texts, axis=0).astype(np.float32)
        cosine = ranking.similarity(rng.normal(size=(5, width)).astype(np.float32), text)
        np.testing.assert_array_equal(cosine, cosine[:, [0] * texts])


def test_missing_videos_have_the_last_rank_and_keep_their_place():
    scores = np.eye(5, dtype=np.float32)
    scores[2] = np.nan  # whatever a missing row holds is not looked at
    missing = np.arange(5) == 2
    t2v, v2t = both(scores, missing=missing)
    assert (t2v["R@1"], t2v["MnR"], t2v["n_queries"]) == (80, (4 * 1 + 5) / 5, 5)
    assert (v2t["R@1"], v2t["MnR"], v2t["n_queries"]) == (80, (4 * 1 + 5) / 5, 5)
    assert t2v["pessimistic"]["R@1"] == 80  # two missing videos do not tie with each other either
    t2v, v2t = both(scores, missing=(np.arange(5) == 2) | (np.arange(5) == 4))
    assert (t2v["MnR"], t2v["n_tied_queries"]) == ((3 * 1 + 2 * 5) / 5, 0)
    assert (v2t["MnR"], v2t["n_tied_queries"]) == ((3 * 1 + 2 * 5) / 5, 0)


def test_a_missing_video_never_ranks_before_a_readable_one():
    scores = -np.ones((3, 3), np.float32)  # worst cosine there is
    scores[2] = 0  # what the matrix holds for the missing video
    t2v, _ = both(scores, missing=np.array([False, False, True]))
    assert t2v["MnR"] == pytest.approx((1.5 + 1.5 + 3) / 3)


def test_a_missing_video_with_several_captions_is_behind_all_others():
    scores = np.zeros((2, 5), np.float32)
    ranks = whole_matrix.video_to_text(scores, np.array([0, 0, 0, 1, 1]), np.array([True, False]))
    assert ranks.greater.tolist() == [2, 0]  # two captions of the other video, then the first of its own
    assert ranks.tied.tolist() == [0, 3]


# --- every order of the ties, one by one ------------------------------------------------------------------------


def brute_force(queries):
    """The five scores as means over all tie orders of all queries; a query is (scores, set of right positions)."""
    ranks = [[1 + min(order.index(i) for i in right) for order in orders(scores)] for scores, right in queries]
    expected = {f"R@{k}": 100 * np.mean([np.mean(np.array(r) <= k) for r in ranks]) for k in (1, 5, 10)}
    expected["MnR"] = np.mean([np.mean(r) for r in ranks])
    # equally likely orders in every query, independent of the other queries: distributions, then their product
    weights = [{rank: r.count(rank) / len(r) for rank in set(r)} for r in ranks]
    expected["MedR"] = sum(
        math.prod(p for _, p in combination) * np.median([rank for rank, _ in combination])
        for combination in itertools.product(*(w.items() for w in weights))
    )
    return expected


@st.composite
def small_retrieval(draw):
    videos = draw(st.integers(1, 4))
    owner = list(range(videos)) + draw(st.lists(st.integers(0, videos - 1), max_size=5 - videos))
    values = draw(st.lists(st.integers(0, 2), min_size=videos * len(owner), max_size=videos * len(owner)))
    owner = draw(st.permutations(owner))
    return np.array(values, np.float32).reshape(videos, len(owner)) / 2, np.array(owner)


@settings(max_examples=40, deadline=None)
@given(small_retrieval())
def test_scores_are_the_mean_over_all_orders_of_the_ties(case):
    scores, owner = case
    t2v, v2t = both(scores, owner)
    columns = [(scores[:, c].tolist(), {int(owner[c])}) for c in range(len(owner))]
    rows = [(scores[v].tolist(), set(np.flatnonzero(owner == v).tolist())) for v in range(len(scores))]
    for found, expected in ((t2v, brute_force(columns)), (v2t, brute_force(rows))):
        for name in FIVE:
            assert found[name] == pytest.approx(expected[name]), name
        for k in (1, 5, 10):
            assert found["pessimistic"][f"R@{k}"] - 1e-9 <= found[f"R@{k}"] <= found["optimistic"][f"R@{k}"] + 1e-9


@settings(max_examples=40, deadline=None)
@given(small_retrieval(), st.randoms(use_true_random=False))
def test_the_order_of_videos_and_captions_changes_nothing(case, random):
    scores, owner = case
    videos, captions = list(range(len(scores))), list(range(len(owner)))
    random.shuffle(videos)
    random.shuffle(captions)
    place = np.argsort(videos)
    shuffled = both(scores[np.ix_(videos, captions)], place[owner[captions]])
    for found, expected in zip(shuffled, both(scores, owner), strict=True):
        for name in (*FIVE, "n_tied_queries"):
            assert found[name] == pytest.approx(expected[name]), name


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=5))
def test_tails_and_means_come_from_one_distribution(entries):
    ranks = ranking.Ranks(*(np.array(column) for column in zip(*entries, strict=True)))
    within = np.array([ranking.probability_within(ranks, k) for k in range(8)])
    assert np.all(np.diff(within, axis=0) >= -1e-12)
    assert np.allclose(within[-1], 1)
    np.testing.assert_allclose((1 - within).sum(axis=0), ranking.expected_rank(ranks))  # E = sum of P(rank > k)


def test_the_median_of_many_tied_queries_is_exact_enough_and_quick():
    ranks = ranking.Ranks(np.zeros(201, np.int64), np.full(201, 200), np.ones(201, np.int64))
    assert ranking.expected_median(ranks) == pytest.approx(101, abs=1e-9)  # symmetric about the middle of 1..201
