"""Groups of two captions and two videos: the strict scores, their expectation under ties, and the rows."""

import itertools

import numpy as np
import pytest

from harvest_jax.errors import DataError, NonFiniteError
from harvest_jax.evaluate.tasks import pairs
from tests.helpers.colour_evaluation import evaluate, manifest

# [[video 0 with caption 0, video 0 with caption 1], [video 1 with caption 0, video 1 with caption 1]]
ALL_RIGHT = [[5, 1], [2, 4]]
ONLY_TEXT = [[9, 8], [2, 3]]  # caption 1 finds video 0
ONLY_VIDEO = [[5, 7], [4, 8]]  # video 0 finds caption 1
TEXT_AND_VIDEO_WRONG = [[1, 5], [4, 2]]
TIED = [[1, 1], [1, 1]]


def score(*groups, missing=None, **options):
    missing = np.zeros(len(groups), bool) if missing is None else np.array(missing)
    return pairs.score(np.array(groups, np.float32), missing, **options)


@pytest.mark.parametrize(
    ("group", "text", "video", "both"),
    [
        (ALL_RIGHT, 100, 100, 100),
        (ONLY_TEXT, 100, 0, 0),
        (ONLY_VIDEO, 0, 100, 0),
        (TEXT_AND_VIDEO_WRONG, 0, 0, 0),
        (TIED, 0, 0, 0),
        ([[5, 5], [2, 5]], 0, 0, 0),  # one tie of a video, one of a caption
        ([[5, 1], [5, 9]], 100, 0, 0),  # caption 0 ties
    ],
)
def test_the_three_scores(group, text, video, both):
    found = score(group)
    assert (found["text"], found["video"], found["group"]) == (text, video, both)
    assert found["pessimistic"] == {"text": text, "video": video, "group": both}


def test_scores_are_shares_of_the_groups():
    found = score(ALL_RIGHT, ONLY_TEXT, ONLY_VIDEO, TEXT_AND_VIDEO_WRONG)
    assert (found["text"], found["video"], found["group"], found["n"]) == (50, 50, 25, 4)
    assert found["text_accuracy"] == 100 * (2 + 2 + 1 + 0) / 8
    assert found["video_accuracy"] == 100 * (2 + 1 + 2 + 0) / 8
    assert found["n_tied_queries"] == 0
    assert found["chance"] == pytest.approx(
        {"text": 25, "video": 25, "group": 100 / 6, "text_accuracy": 50, "video_accuracy": 50}
    )


def test_chance_is_the_mean_over_all_orders_of_four_scores():
    found = score(*(np.reshape(order, (2, 2)) for order in itertools.permutations(range(4))))
    assert {name: found[name] for name in pairs.COLUMNS} == pytest.approx(found["chance"])


def test_a_model_that_says_the_same_of_everything_is_at_chance_by_expectation_and_strictly_wrong():
    found = score(TIED)
    assert found["expectation"] == pytest.approx({"text": 25, "video": 25, "group": 100 / 6})
    assert found["optimistic"] == {"text": 100, "video": 100, "group": 100}
    assert (found["text_accuracy"], found["video_accuracy"], found["n_tied_queries"]) == (50, 50, 1)


def test_the_expectation_is_the_mean_over_all_orders_of_ties():
    """By brute force, for all groups of the numbers 0 to 2: ties are broken by the ranks of all 24 permutations."""
    orders = [np.reshape(order, (2, 2)) / 10 for order in itertools.permutations(range(4))]
    for values in itertools.product(range(3), repeat=4):
        group = np.reshape(values, (2, 2))
        mean = score(*(group + order for order in orders))
        found = score(group)
        assert found["expectation"] == pytest.approx({name: mean[name] for name in pairs.STRICT}), values
        for name in ("text_accuracy", "video_accuracy"):
            assert found[name] == pytest.approx(mean[name]), values


def test_near_scores_tie_within_the_tolerance():
    near = [[0.5, 0.5 - 1e-6], [0.1, 0.7]]
    assert score(near)["text"] == 100
    found = score(near, tolerance=1e-5)
    assert (found["text"], found["video"], found["expectation"]["text"]) == (0, 100, 50)
    assert found["expectation"]["group"] == pytest.approx(50)
    all_near = score([[0.5, 0.5 + 1e-6], [0.5 - 1e-6, 0.5]], tolerance=1e-5)
    assert all_near["expectation"] == pytest.approx({"text": 25, "video": 25, "group": 100 / 6})


def flat(metrics, path=""):
    """{path: number} of nested metrics."""
    parts = [flat(v, f"{path}/{k}") if isinstance(v, dict) else {f"{path}/{k}": v} for k, v in metrics.items()]
    return {key: value for part in parts for key, value in part.items()}


def test_the_order_of_groups_and_of_the_two_sides_makes_no_difference():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 4, (40, 2, 2)).astype(np.float32)
    missing = rng.random(40) < 0.2
    types = [("a", "b"), ("b",), ("c",)] * 13 + [("a",)]
    found = pairs.score(groups, missing, types)
    order = rng.permutation(40)
    swapped = groups[order][:, ::-1, ::-1]
    again = pairs.score(swapped, missing[order], [types[i] for i in order])
    assert flat(again) == pytest.approx(flat(found))


def test_a_group_with_a_missing_video_is_wrong_in_everything():
    nothing = [[np.nan, np.nan], [np.nan, np.nan]]
    found = score(ALL_RIGHT, nothing, missing=[False, True])
    for block in (found, found["expectation"], found["optimistic"]):
        assert (block["text"], block["video"], block["group"]) == (50, 50, 50)
    assert (found["text_accuracy"], found["n"], found["n_tied_queries"]) == (50, 2, 0)
    with pytest.raises(NonFiniteError):
        score(ALL_RIGHT, nothing)


def test_a_group_counts_for_each_of_its_types():
    found = score(ALL_RIGHT, ONLY_TEXT, ONLY_VIDEO, types=[("object", "spatial"), ("object",), ("spatial", "spatial")])
    assert list(found["per_type"]) == ["object", "spatial"]
    assert found["per_type"]["object"] == {"n": 2, "text": 100, "video": 50, "group": 50}
    assert found["per_type"]["spatial"] == {"n": 2, "text": 50, "video": 100, "group": 50}


def rows(*groups):
    """One row for each (group, video, caption)."""
    return [
        {"id": str(i), "group": group, "video": f"{video}.mp4", "caption": caption}
        for i, (group, video, caption) in enumerate(groups)
    ]


def test_pairs_of_films(videos, model, tmp_path, capsys):
    """`red_then_blue` has the mean of both colours, which is nearer to neither text than the films of one colour."""
    table = rows(
        ("a", "red", "it is red"), ("b", "blue", "green"), ("a", "blue", "it is blue"), ("b", "green", "blue"),
        ("c", "red", "red"), ("c", "broken", "yellow"), ("d", "red", "the same"), ("d", "yellow", "the same"),
    )  # fmt: skip
    for row, kind in zip(table, "wxwxyyzz", strict=True):
        row["type"] = {"w": "colour; right", "x": "colour;wrong", "y": "missing", "z": "tie"}[kind]
    result = evaluate("pairs", manifest(videos, tmp_path, table), tmp_path)
    metrics = result["metrics"]
    assert (result["n_expected"], result["n_missing"], model.clips_seen) == (4, 1, 4 + 4 * 4)
    assert (metrics["text"], metrics["video"], metrics["group"]) == (25, 25, 25)
    assert metrics["expectation"]["text"] == pytest.approx(100 * (1 + 0 + 0 + 1 / 4) / 4)
    assert metrics["per_type"]["colour"] == {"n": 2, "text": 50, "video": 50, "group": 50}
    assert metrics["per_type"]["wrong"]["text"] == 0
    average = metrics["frame_average"]
    assert {name: average[name] for name in pairs.COLUMNS} == {name: metrics[name] for name in pairs.COLUMNS}
    assert "optimistic" not in average
    assert "stills" not in result["protocol"]
    assert any("equal scores" in warning for warning in result["warnings"])
    shown = capsys.readouterr().out
    for word in ("average of frames", "chance", "16.67", "colour"):
        assert word in shown


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            rows(("a", "red", "x"), ("a", "blue", "y"), ("b", "green", "z")),
            "1 groups have not two rows, the first: 'b'",
        ),
        (rows(("a", "red", "x"), ("a", "blue", "y"), ("a", "green", "z")), "(3 rows)"),
        (rows(("a", "red", "x"), ("a", "red", "y")), "one clip for both captions, the first: 'a'"),
        (rows(("a", "red", ["x", "y"]), ("a", "blue", "z")), "no caption or several, the first: 0"),
        (rows(("", "red", "x"), ("a", "blue", "z")), "1 rows have no `group`"),
    ],
)
def test_rows_that_are_no_pairs_are_refused(videos, model, tmp_path, capsys, table, message):
    evaluate("pairs", manifest(videos, tmp_path, table), tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
