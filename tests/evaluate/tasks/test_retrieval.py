"""Retrieval: captions, both directions, dual softmax."""

import numpy as np

from harvest_jax.evaluate.protocol import digest
from harvest_jax.evaluate.tasks import retrieval
from tests.helpers.colour_evaluation import COLOURS, captioned, evaluate, manifest


def test_retrieval_of_readable_videos(videos, model, tmp_path, capsys):
    result = evaluate("retrieval", manifest(videos, tmp_path, captioned(*COLOURS)), tmp_path)
    fields = (
        "format task protocol protocol_hash model data n_expected n_missing missing metrics warnings texts inputs run"
    )
    assert list(result) == [*fields.split(), "queries"]
    assert (result["task"], result["n_expected"], result["n_missing"], result["missing"]) == ("retrieval", 4, 0, [])
    assert result["metrics"]["t2v"]["R@1"] == result["metrics"]["v2t"]["R@1"] == 100
    assert result["protocol_hash"] == digest(result["protocol"])
    assert result["warnings"] == []
    shown = capsys.readouterr().out
    assert "text to video" in shown
    assert "100.00" in shown
    assert result["protocol_hash"][:12] in shown


def test_rows_of_one_video_are_one_clip_with_several_captions(videos, model, tmp_path):
    rows = [
        {"id": f"{name}-{n}", "video": f"{name}.mp4", "caption": f"{name} {n}"} for name in COLOURS for n in range(3)
    ]
    rows.append({"id": "list", "video": "red.mp4", "caption": ["red four", "red five"]})
    result = evaluate("retrieval", manifest(videos, tmp_path, rows), tmp_path)
    assert (result["n_expected"], result["protocol"]["captions"], model.clips_seen) == (4, 14, 4)
    assert result["metrics"]["t2v"]["n_queries"] == 14
    assert result["metrics"]["v2t"]["n_queries"] == 4
    assert result["metrics"]["v2t"]["R@1"] == 100


def test_the_average_of_frames_stands_beside_where_asked_for(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    plain = evaluate("retrieval", words, tmp_path)
    beside = evaluate("retrieval", [*words, "--config.frame_average=True"], tmp_path)
    average = beside["metrics"].pop("frame_average")
    assert beside["metrics"] == plain["metrics"]
    assert average["t2v"]["R@1"] == average["v2t"]["R@1"] == 100
    assert beside["protocol_hash"] != plain["protocol_hash"]
    assert "text to video, average of frames" in capsys.readouterr().out


def test_dual_softmax_is_a_block_of_its_own(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    plain = evaluate("retrieval", words, tmp_path)
    boosted = evaluate("retrieval", [*words, "--config.dual_softmax_scale=100"], tmp_path)
    assert boosted["metrics"]["dual_softmax"]["scale"] == 100
    assert {key: boosted["metrics"][key] for key in ("t2v", "v2t")} == plain["metrics"]
    assert boosted["protocol_hash"] != plain["protocol_hash"]
    assert "dual softmax 100" in capsys.readouterr().out


def test_dual_softmax_multiplies_by_the_share_of_the_other_queries():
    scores = np.array([[0.5, 0.2], [0.4, 0.1]], np.float32)
    weights = np.exp(10 * scores.astype(np.float64))
    np.testing.assert_allclose(
        retrieval.dual_softmax(scores, 10.0, axis=1), scores * weights / weights.sum(axis=1, keepdims=True)
    )
    np.testing.assert_allclose(
        retrieval.dual_softmax(scores, 10.0, axis=0), scores * weights / weights.sum(axis=0, keepdims=True)
    )


def hub_case():
    """A video that every caption is somewhat like: it is first for both captions, though caption 1 is not its own."""
    video = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    text = np.array([[1.0, 0.05], [0.95, 0.3]], np.float32)
    return video, text


def test_dual_softmax_stands_apart_and_the_plain_figures_stay():
    video, text = hub_case()
    owner, missing = np.arange(2), np.zeros(2, bool)
    plain = retrieval.score(video, text, owner, missing)
    boosted = retrieval.score(video, text, owner, missing, dual_softmax_scale=100.0)
    assert "dual_softmax" not in plain
    assert {key: boosted[key] for key in ("t2v", "v2t")} == plain
    assert plain["t2v"]["R@1"] == 50
    assert boosted["dual_softmax"]["scale"] == 100
    assert boosted["dual_softmax"]["t2v"]["R@1"] == 100


def test_dual_softmax_leaves_missing_videos_out_of_the_softmax():
    video, text = hub_case()
    with_missing = np.concatenate([video, np.zeros((1, 2), np.float32)])
    captions = np.concatenate([text, np.array([[0.0, 1.0]], np.float32)])
    result = retrieval.score(with_missing, captions, np.arange(3), np.array([False, False, True]), 1.0)
    assert result["t2v"]["n_queries"] == 3
    assert result["dual_softmax"]["t2v"]["R@1"] <= 200 / 3
    assert result["dual_softmax"]["v2t"]["MnR"] >= 1 + 2 / 3
