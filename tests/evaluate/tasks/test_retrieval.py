"""Retrieval: captions, both directions, dual softmax."""

import numpy as np
import pytest

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate.result.protocol import digest
from harvest_jax.evaluate.tasks import retrieval
from tests.helpers import whole_matrix
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
        whole_matrix.dual_softmax(scores, 10.0, axis=1), scores * weights / weights.sum(axis=1, keepdims=True)
    )
    np.testing.assert_allclose(
        whole_matrix.dual_softmax(scores, 10.0, axis=0), scores * weights / weights.sum(axis=0, keepdims=True)
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


def several_captions():
    return [
        {"id": f"{name}-{n}", "video": f"{name}.mp4", "caption": f"{text} {name}"}
        for name in COLOURS
        for n, text in enumerate(("a", "one"))
    ]


def test_several_captions_have_two_rules_video_to_text(videos, model, tmp_path, capsys):
    result = evaluate("retrieval", manifest(videos, tmp_path, several_captions()), tmp_path)
    assert result["metrics"]["v2t_max_over_captions"]["n_queries"] == 4
    assert "video to text, max over captions" in capsys.readouterr().out
    one = evaluate("retrieval", manifest(videos, tmp_path, captioned(*COLOURS), "one.jsonl"), tmp_path)
    assert "v2t_max_over_captions" not in one["metrics"]


def test_a_paragraph_is_one_query_for_each_clip(videos, model, tmp_path):
    words = manifest(videos, tmp_path, several_captions())
    joined = evaluate("retrieval", [*words, "--config.captions=paragraph"], tmp_path)
    assert (joined["protocol"]["captions"], joined["protocol"]["caption_policy"]) == (4, "paragraph")
    assert joined["metrics"]["t2v"]["n_queries"] == 4
    assert joined["protocol_hash"] != evaluate("retrieval", words, tmp_path)["protocol_hash"]


def test_rows_that_contradict_the_caption_policy_are_refused_before_a_clip_is_read(videos, model, tmp_path, capsys):
    words = [*manifest(videos, tmp_path, several_captions()), "--config.captions=one"]
    evaluate("retrieval", words, tmp_path, code=DataError.exit_code)
    assert "captions=one, but set.jsonl has 8 captions of 4 clips" in capsys.readouterr().err
    assert model.clips_seen == 0


def test_extra_columns_come_last_and_leave_the_plain_figures(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, several_captions())
    bank = tmp_path / "training captions.txt"
    bank.write_text("something red\nsomething blue\n\n", "utf-8")
    extra = ["--config.dual_softmax_scale=(1, 100)", f"--config.querybank={bank}", "--config.querybank_beta=10"]
    plain = evaluate("retrieval", words, tmp_path)
    capsys.readouterr()
    result = evaluate("retrieval", [*words, *extra, "--config.compat=('frozen', 'unmasked_teacher')"], tmp_path)
    metrics = result["metrics"]
    assert {key: metrics[key] for key in plain["metrics"]} == plain["metrics"]
    blocks = ["dual_softmax_1", "dual_softmax_100", "querybank", "compat"]
    assert list(metrics) == [*plain["metrics"], *blocks]
    assert (metrics["querybank"]["beta"], metrics["querybank"]["captions"]) == (10, 2)
    assert list(metrics["compat"]) == ["frozen", "unmasked_teacher"]
    assert metrics["compat"]["frozen"]["t2v"]["R1"] == 100
    assert result["protocol"]["querybank"]["captions"] == 2
    assert result["protocol_hash"] != plain["protocol_hash"]
    shown = capsys.readouterr().out
    order = ["video to text, max over", "dual softmax 1 ", "dual softmax 100", "QB-Norm 10", "frozen t2v: R1 100"]
    assert [shown.index(words) for words in order] == sorted(shown.index(words) for words in order)


def test_figures_of_other_programs_do_not_change_the_protocol(videos, model, tmp_path):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    plain = evaluate("retrieval", words, tmp_path)
    named = evaluate("retrieval", [*words, "--config.compat=('clip4clip', 'open_clip')"], tmp_path)
    assert named["protocol_hash"] == plain["protocol_hash"]
    assert named["metrics"]["compat"]["open_clip"]["v2t"]["image_to_text_R@1"] == 1


@pytest.mark.parametrize("positives", ["same_text", "distinct_text"])
def test_shared_captions_add_means_over_all_right_answers(positives, videos, model, tmp_path, capsys):
    rows = [*captioned(*COLOURS), {"video": "red_then_blue.mp4", "caption": "a red square"}]
    words = [*manifest(videos, tmp_path, rows), f"--config.positives={positives}"]
    result = evaluate("retrieval", words, tmp_path)
    assert result["protocol"]["positives"] == positives
    assert result["metrics"]["t2v"]["n_queries"] == (5 if positives == "same_text" else 4)
    assert 0 < result["metrics"]["t2v"]["mAP"] <= 100
    assert 0 < result["metrics"]["v2t"]["nDCG"] <= 100
    assert "mAP" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.compat=('frozzen',)"], "did you mean frozen?"),
        (["--config.compat=('frozen', 'frozen')"], "names one twice"),
        (["--config.dual_softmax_scale=(5, 5)"], "names one twice"),
        (["--config.dual_softmax_scale=(5, 1e9)"], "outside 0..10000"),
        (["--config.dual_softmax_scale=('x',)"], "expected a number, got 'x'"),
        (["--config.captions=some"], "captions='some' must be one of"),
        (["--config.positives=distinct_text", "--config.compat=('frozen',)"], "not with positives=distinct_text"),
    ],
)
def test_settings_that_cannot_be_used(words, message, videos, model, tmp_path, capsys):
    given = [*manifest(videos, tmp_path, captioned(*COLOURS)), *words]
    evaluate("retrieval", given, tmp_path, code=ConfigError.exit_code)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.querybank=none.txt"], "none.txt"),
        (["--config.compat=('open_clip',)"], "compat=open_clip is for one caption of each video"),
    ],
)
def test_what_the_rows_or_files_rule_out_is_refused_before_a_clip_is_read(
    words, message, videos, model, tmp_path, capsys
):
    given = [*manifest(videos, tmp_path, several_captions()), *words]
    evaluate("retrieval", given, tmp_path, code=DataError.exit_code)
    assert message in capsys.readouterr().err
    assert model.clips_seen == 0


def test_videos_that_share_a_text_are_no_fault_of_the_model():
    captions, owner = ["a kite", "a goat", "a kite", "a sheep", "a sheep"], np.array([0, 0, 1, 2, 2])
    assert retrieval.shared_texts(captions, owner) == pytest.approx(200 / 3)
    assert retrieval.shared_texts(captions[1:2], owner[1:2]) == 0
