"""Each clip forwards and backwards: accuracy, ties, reversed captions, and models without a sense of order."""

import jax
import numpy as np
import pytest

import harvest_jax
from data_pipeline.decode import pool
from harvest_jax.errors import DataError, NonFiniteError
from harvest_jax.evaluate.tasks import reversal
from tests.evaluate.test_frame_average import small
from tests.helpers.colour_evaluation import COLOURS, ColourModel, DecoderInThisProcess, evaluate, manifest
from tests.helpers.video_files import write_video

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]


def array(*rows):
    return np.array(rows, np.float32)


def test_accuracy_ties_and_differences():
    forward, backward = array(EAST, EAST, EAST), array(NORTH, NORTH, EAST)
    text = array(EAST, NORTH, EAST, [1, 1])  # right, wrong, tied (clip 2), tied (between both)
    found = reversal.score(forward, backward, text, np.array([0, 1, 2, 0]), np.zeros(3, bool))
    assert found["accuracy"] == pytest.approx(100 * (1 + 0 + 0.5 + 0.5) / 4)
    assert (found["chance"], found["n"], found["n_tied_queries"]) == (50, 4, 2)
    assert found["difference"] == pytest.approx((1 - 1 + 0 + 0) / 4)
    assert found["moved"] == pytest.approx(2 / 3)
    assert (found["optimistic"]["accuracy"], found["pessimistic"]["accuracy"]) == (75, 25)


def test_rounding_does_not_decide():
    text = array(EAST, EAST)
    near = array([1, 0.0], [1, 0.0])
    moved = array([1, 1e-3], [1, 1e-2])  # cosines 1 - 5e-7 and 1 - 5e-5
    found = reversal.score(near, moved, text, np.arange(2), np.zeros(2, bool))
    assert (found["n_tied_queries"], found["accuracy"]) == (1, 75)


def test_a_missing_clip_is_wrong_and_in_no_mean():
    forward, backward = array(EAST, [0, 0]), array(NORTH, [0, 0])
    missing = np.array([False, True])
    found = reversal.score(forward, backward, array(EAST, EAST), np.arange(2), missing, ["seen", "lost"])
    assert (found["accuracy"], found["n"], found["difference"], found["moved"]) == (50, 2, 1, 1)
    assert found["per_type"] == {"lost": {"n": 1, "accuracy": 0}, "seen": {"n": 1, "accuracy": 100}}
    with pytest.raises(NonFiniteError):
        reversal.score(forward, backward, array(EAST, EAST), np.arange(2), np.zeros(2, bool))


def test_the_order_of_captions_makes_no_difference():
    rng = np.random.default_rng(0)
    forward, backward, text = (rng.normal(size=(12, 5)).astype(np.float32) for _ in range(3))
    owner, missing = rng.integers(0, 12, 12), rng.random(12) < 0.3
    found = reversal.score(forward, backward, text, owner, missing)
    order = rng.permutation(12)
    again = reversal.score(forward, backward, text[order], owner[order], missing)
    assert again["accuracy"] == pytest.approx(found["accuracy"])
    assert again["difference"] == pytest.approx(found["difference"])


def test_captions_of_both_ways():
    """Clip 0 is right in all four choices, clip 1 in none."""
    forward, backward = array(EAST, NORTH), array(NORTH, EAST)
    caption, reversed_caption = array(EAST, [0.9, 0.1]), array(NORTH, [0.1, 0.9])
    found = reversal.score_both_ways(forward, backward, caption, reversed_caption, np.zeros(2, bool))
    assert (found["both_ways"]["text_accuracy"], found["both_ways"]["video_accuracy"]) == (50, 50)
    assert (found["both_ways"]["group"], found["both_ways"]["n"]) == (50, 2)
    assert found["retrieval"]["t2v"]["n_queries"] == found["retrieval"]["v2t"]["n_queries"] == 4
    assert found["retrieval"]["t2v"]["R@1"] == pytest.approx(100 * (0.5 + 0.5 + 0 + 0) / 4)
    lost = reversal.score_both_ways(forward, backward, caption, reversed_caption, np.array([False, True]))
    assert (lost["both_ways"]["video_accuracy"], lost["retrieval"]["t2v"]["R@1"]) == (50, 50)


def test_rounding_does_not_decide_among_all_clips():
    """A model without a sense of order embeds a clip and the clip backwards alike but for the last bits."""
    rng = np.random.default_rng(0)
    forward = rng.normal(size=(20, 8)).astype(np.float32)
    backward = (forward * (1 + 1e-7 * rng.normal(size=forward.shape))).astype(np.float32)
    caption, reversed_caption = ((forward + rng.normal(size=forward.shape) / 9).astype(np.float32) for _ in range(2))
    found = reversal.score_both_ways(forward, backward, caption, reversed_caption, np.zeros(20, bool))["retrieval"]
    # every caption finds its clip, and ties between the clip and the clip backwards
    assert (found["t2v"]["R@1"], found["t2v"]["n_tied_queries"]) == (50, 40)
    exact = reversal.score_both_ways(forward, forward, caption, reversed_caption, np.zeros(20, bool))["retrieval"]
    assert found["t2v"] == exact["t2v"]
    assert found["v2t"] == exact["v2t"]


class FirstColourModel(ColourModel):
    """Sees the first frame three times as much as the last one, and no other."""

    def encode_video(self, videos):
        return super().encode_video(videos[:, [0, 0, -1, 0]])


@pytest.fixture
def first_colour(model, monkeypatch):
    watching = FirstColourModel()
    monkeypatch.setitem(harvest_jax.__dict__, "load", lambda folder: watching)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for first in COLOURS:
        for last in COLOURS:
            frames = [np.full((4, 32, 32, 3), COLOURS[colour], np.uint8) for colour in (first, last)]
            write_video(folder / f"{first}_{last}.mp4", np.concatenate(frames), rate=8)
    return folder


def changing():
    names = list(COLOURS)
    return [(first, last) for first in names for last in names if first != last]


def test_a_model_that_sees_the_order_and_the_average_of_its_frames(films, first_colour, tmp_path, capsys):
    rows = [
        {"video": f"{a}_{b}.mp4", "caption": f"{a} comes first", "reversed_caption": f"{b} comes first", "type": a}
        for a, b in changing()
    ]
    result = evaluate("reversal", manifest(films, tmp_path, rows), tmp_path)
    metrics, average = result["metrics"], result["metrics"]["frame_average"]
    assert (metrics["accuracy"], metrics["n"], metrics["both_ways"]["group"]) == (100, 12, 100)
    assert metrics["both_ways"]["text_accuracy"] == metrics["both_ways"]["video_accuracy"] == 100
    assert metrics["difference"] > 0.1 < metrics["moved"]
    assert metrics["per_type"]["red"] == {"n": 3, "accuracy": 100}
    assert metrics["retrieval"]["t2v"]["n_queries"] == 24
    assert (average["accuracy"], average["n_tied_queries"], average["difference"]) == (50, 12, 0)
    assert (average["both_ways"]["video_accuracy"], average["both_ways"]["video"]) == (50, 0)
    assert average["both_ways"]["text_accuracy"] == 50
    assert average["moved"] == pytest.approx(0, abs=1e-6)
    shown = capsys.readouterr().out
    assert "average of frames" in shown
    assert "chance 50" in shown


def test_rows_without_reversed_captions_have_the_first_score_alone(films, first_colour, tmp_path):
    rows = [{"video": f"{a}_{b}.mp4", "caption": [f"{a} comes first", f"it is {b} first"]} for a, b in changing()]
    rows.append({"video": "lost.mp4", "caption": "red"})
    result = evaluate("reversal", [*manifest(films, tmp_path, rows), "--allow_missing"], tmp_path)
    assert result["metrics"]["accuracy"] == pytest.approx(100 * 12 / 25)
    assert (result["n_expected"], result["n_missing"], "both_ways" in result["metrics"]) == (13, 1, False)


@pytest.mark.parametrize("kind", ["average", "image", "zeros"])
def test_a_model_without_a_sense_of_order_is_exactly_at_chance(films, model, monkeypatch, tmp_path, kind):
    """The colour model and image models average frames; with a temporal table of zeros a video has no first frame."""
    if kind != "average":
        blind = small(1 if kind == "image" else 3)
        if kind == "zeros":
            blind.params["video"]["temporal_embedding"] = jax.numpy.zeros_like(
                blind.params["video"]["temporal_embedding"]
            )
        monkeypatch.setitem(harvest_jax.__dict__, "load", lambda folder: blind)
    rows = [
        {"video": f"{a}_{b}.mp4", "caption": f"{a} then {b}", "reversed_caption": f"{b} then {a}"}
        for a, b in changing()
    ]
    result = evaluate("reversal", [*manifest(films, tmp_path, rows), "--config.strict=True"], tmp_path)
    metrics = result["metrics"]
    assert result["warnings"] == []  # ties are this model's answer, not a fault
    assert metrics["retrieval"]["t2v"]["n_tied_queries"] == 24
    assert metrics["accuracy"] == metrics["both_ways"]["video_accuracy"] == 50
    assert (metrics["n_tied_queries"], metrics["both_ways"]["text_accuracy"]) == (12, 50)
    assert (metrics["both_ways"]["video"], metrics["both_ways"]["group"]) == (0, 0)
    assert metrics["moved"] == pytest.approx(0, abs=1e-6)


def test_a_model_with_a_temporal_table_is_not_at_chance_by_construction(films, monkeypatch, tmp_path):
    monkeypatch.setattr(pool, "VideoDecoder", DecoderInThisProcess)
    monkeypatch.setitem(harvest_jax.__dict__, "load", lambda folder: small(3))
    rows = [{"video": f"{a}_{b}.mp4", "caption": f"{a} then {b}"} for a, b in changing()]
    metrics = evaluate("reversal", manifest(films, tmp_path, rows), tmp_path)["metrics"]
    assert metrics["n_tied_queries"] < 12
    assert metrics["moved"] > 1e-5
    assert metrics["frame_average"]["accuracy"] == 50


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"caption": ["a", "b"], "reversed_caption": "c"}, "row r: a clip with a `reversed_caption` needs exactly one"),
        ({"caption": "a", "reversed_caption": 3}, "row r: `reversed_caption` must be a sentence, not 3"),
        ({"caption": "a", "reversed_caption": ["c"]}, "must be a sentence, not ['c']"),
        ({"label": "z", "reversed_caption": "c"}, "have no caption, the first: r"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(films, model, tmp_path, capsys, row, message):
    rows = [{"id": "q", "video": "red_blue.mp4", "caption": "x"}, {"id": "r", "video": "blue_red.mp4", **row}]
    evaluate("reversal", manifest(films, tmp_path, rows), tmp_path, code=DataError.exit_code)
    assert message in capsys.readouterr().err
