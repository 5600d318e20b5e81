"""Several right videos of a caption: who is right, and mAP and nDCG against every order of the ties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harvest_jax.evaluate.scores import ranking, relevance
from harvest_jax.evaluate.tasks import retrieval
from tests.helpers.tie_orders import orders

TEXTS = ["a", "b", "a", "c", "b", "a"]
OWNER = np.array([0, 1, 2, 2, 1, 3])


def pairs(right):
    return list(zip(right.caption.tolist(), right.video.tolist(), strict=True))


def test_a_caption_is_right_for_its_own_video():
    assert pairs(relevance.own(OWNER)) == [(0, 0), (1, 1), (2, 2), (3, 2), (4, 1), (5, 3)]


def test_captions_of_one_text_share_their_videos():
    right = relevance.same_text(OWNER, TEXTS)
    of_a = [0, 2, 3]
    expected = [*((0, v) for v in of_a), (1, 1), *((2, v) for v in of_a), (3, 2), (4, 1), *((5, v) for v in of_a)]
    assert pairs(right) == expected


def test_each_text_can_be_one_query():
    right, number = relevance.distinct_texts(OWNER, TEXTS)
    assert number.tolist() == [0, 1, 0, 2, 1, 0]
    assert pairs(right) == [(0, 0), (0, 2), (0, 3), (1, 1), (2, 2)]


def test_distinct_captions_share_nothing():
    right = relevance.same_text(OWNER, list("uvwxyz"))
    assert pairs(right) == pairs(relevance.own(OWNER))


# --- every order of the ties ------------------------------------------------------------------------------------


def precision_and_gain(order, right):
    places = [place for place, answer in enumerate(order, start=1) if answer in right]
    precision = sum(number / place for number, place in enumerate(places, start=1)) / len(right)
    ideal = sum(1 / math.log2(1 + place) for place in range(1, len(right) + 1))
    return precision, sum(1 / math.log2(1 + place) for place in places) / ideal


def counted(queries):
    """`RightAnswers` of queries that are (scores, set of right answers)."""
    rows = [
        (number, scores[answer], sum(s > scores[answer] for s in scores), scores.count(scores[answer]))
        for number, (scores, right) in enumerate(queries)
        for answer in right
    ]
    query, score, before, tied = (np.array(column) for column in zip(*rows, strict=True))
    lost = np.zeros(len(query), bool)
    return relevance.right_answers(query, score.astype(np.float32), before, tied, lost, len(queries[0][0]))


@st.composite
def some_queries(draw):
    answers = draw(st.integers(1, 6))
    scores = st.lists(st.integers(0, 2), min_size=answers, max_size=answers)
    return draw(st.lists(st.tuples(scores, st.sets(st.integers(0, answers - 1), min_size=1)), min_size=1, max_size=3))


@settings(max_examples=60, deadline=None)
@given(some_queries())
def test_means_over_all_orders_of_the_ties(queries):
    right = counted(queries)
    found = relevance.average_precision(right), relevance.ndcg(right)
    best = relevance.average_precision(right.optimistic), relevance.ndcg(right.optimistic)
    worst = relevance.average_precision(right.pessimistic), relevance.ndcg(right.pessimistic)
    for number, (scores, answers) in enumerate(queries):
        values = np.array([precision_and_gain(order, answers) for order in orders(scores)])
        for kind in (0, 1):
            assert found[kind][number] == pytest.approx(values[:, kind].mean())
            assert best[kind][number] == pytest.approx(values[:, kind].max())
            assert worst[kind][number] == pytest.approx(values[:, kind].min())


@settings(max_examples=30, deadline=None)
@given(some_queries(), st.integers(1, 7))
def test_a_cut_gain_is_the_mean_too(queries, k):
    found = relevance.ndcg(counted(queries), k)
    for number, (scores, right) in enumerate(queries):
        ideal = sum(1 / math.log2(1 + place) for place in range(1, min(len(right), k) + 1))
        gains = [
            sum(1 / math.log2(1 + place) for place, answer in enumerate(order[:k], start=1) if answer in right)
            for order in orders(scores)
        ]
        assert found[number] == pytest.approx(np.mean(gains) / ideal)


def test_a_hand_worked_query():
    right = counted([([5, 4, 3, 2, 1], {0, 2, 4})])
    assert relevance.average_precision(right)[0] == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    gain = 1 / math.log2(2) + 1 / math.log2(4) + 1 / math.log2(6)
    assert relevance.ndcg(right)[0] == pytest.approx(gain / (1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)))


def test_right_answers_that_cannot_be_read_stand_last():
    query, zero = np.array([0, 0, 0]), np.zeros(3, np.int64)
    lost = np.array([True, False, True])
    right = relevance.right_answers(query, np.zeros(3, np.float32), zero, zero + 1, lost, 10)
    assert relevance.average_precision(right)[0] == pytest.approx((1 / 1 + 2 / 9 + 3 / 10) / 3)


# --- through the task's own function ----------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_both_directions_of_shared_captions(data):
    """Embeddings of three directions tie in most pairs; the figures are those of every order, query by query."""
    videos = data.draw(st.integers(1, 5))
    captions = data.draw(st.integers(videos, 6))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    owner = np.concatenate([np.arange(videos), rng.integers(0, videos, captions - videos)])
    texts = [str(rng.integers(0, 3)) for _ in range(captions)]
    directions = rng.normal(size=(3, 8)).astype(np.float32)
    video = directions[rng.integers(0, 3, videos)]
    text = directions[[int(t) for t in texts]]
    positives = data.draw(st.sampled_from(["same_text", "distinct_text"]))
    found = retrieval.rank(video, text, owner, np.zeros(videos, bool), retrieval.Extra(), positives, texts).metrics

    kept = list(range(captions)) if positives == "same_text" else [texts.index(t) for t in dict.fromkeys(texts)]
    right = {c: {int(owner[o]) for o in range(captions) if texts[o] == texts[c]} for c in kept}
    scores = ranking.similarity(video, text[kept])
    t2v = [(scores[:, i].tolist(), right[c]) for i, c in enumerate(kept)]
    v2t = [(scores[v].tolist(), {i for i, c in enumerate(kept) if v in right[c]}) for v in range(videos)]
    for direction, queries in (("t2v", t2v), ("v2t", v2t)):
        block = found[direction]
        assert block["n_queries"] == len(queries)
        every = [np.array([precision_and_gain(order, r) for order in orders(s)]).mean(axis=0) for s, r in queries]
        assert block["mAP"] == pytest.approx(100 * np.mean([one[0] for one in every]))
        assert block["nDCG"] == pytest.approx(100 * np.mean([one[1] for one in every]))
        for k in (1, 5):
            first = [np.mean([bool(set(order[:k]) & r) for order in orders(s)]) for s, r in queries]
            assert block[f"R@{k}"] == pytest.approx(100 * np.mean(first))
        for name in ("mAP", "nDCG", "R@1", "R@5"):
            assert block["pessimistic"][name] - 1e-9 <= block[name] <= block["optimistic"][name] + 1e-9


def test_a_text_whose_videos_cannot_be_read_is_last():
    video = np.eye(4, dtype=np.float32)
    text = np.eye(4, dtype=np.float32)[[0, 1, 2, 0]]
    missing = np.array([False, True, True, False])
    owner, texts = np.array([0, 1, 2, 3]), ["x", "y", "y", "x"]
    found = retrieval.rank(video, text, owner, missing, retrieval.Extra(), "distinct_text", texts)
    assert found.caption.tolist() == [0, 1]
    assert found.t2v.greater.tolist() == [0, 2]  # "x" is first; of four videos the two of "y" are the last two
    assert found.v2t.greater.tolist() == [0, 1, 1, 0]
    assert found.metrics["t2v"]["mAP"] == pytest.approx(100 * (1 + (1 / 3 + 2 / 4) / 2) / 2)


def test_a_plain_recall_counts_only_the_own_video():
    """Two videos with one caption text: without sharing, each finds its own half of the time."""
    video = text = np.array([[1, 0], [1, 0]], np.float32)
    owner, missing = np.arange(2), np.zeros(2, bool)
    plain = retrieval.rank(video, text, owner, missing, retrieval.Extra()).metrics
    shared = retrieval.rank(video, text, owner, missing, retrieval.Extra(), "same_text", ["x", "x"]).metrics
    assert (plain["t2v"]["R@1"], shared["t2v"]["R@1"], shared["v2t"]["R@1"]) == (50, 100, 100)
    assert shared["t2v"]["mAP"] == pytest.approx(100)
