"""The protocol of a result: what is in it, and what changes its hash."""

import shutil

import numpy as np
import pytest

from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.spec import DecodeSpec
from harvest_jax.errors import ConfigError
from harvest_jax.evaluate.clips.frame_readers import VideoSpan, named
from harvest_jax.pixels.square import prepare_clip
from tests.helpers import video_files
from tests.helpers.colour_evaluation import COLOURS, ColourModel, captioned, evaluate, manifest, question, write_shards


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_pictures_are_shown_as_in_the_models_training(videos, model, tmp_path, resize, stored, monkeypatch):
    """Blue margins left and right of a red square: a model trained on crops never sees them."""
    frame = np.full((32, 64, 3), COLOURS["blue"], np.uint8)
    frame[:, 16:48] = COLOURS["red"]
    frame[::3, 20:44:3] = 90  # something fine, by which to tell one scaler from another
    video_files.write_video(tmp_path / "margins.mp4", np.stack([frame] * 8))
    seen = []
    monkeypatch.setattr(model.config.preprocessing, "resize", resize)
    monkeypatch.setattr(
        model, "encode_video", lambda clips: seen.append(clips) or model.unit(clips.mean(axis=(1, 2, 3)))
    )
    if stored:
        words = write_shards(tmp_path / "shards", tmp_path, [("m", "margins", ("red",), {})])
    else:
        words = manifest(tmp_path, tmp_path, captioned("margins"))
    evaluate("retrieval", words, tmp_path)
    red, _, blue = seen[0][0].mean(axis=(0, 1, 2))  # the others fill up the batch
    assert (red > 190) == (resize == "crop")
    assert (blue > 100) == (resize == "squash")
    if not stored:
        whole = decode_clip(tmp_path / "margins.mp4", DecodeSpec(num_frames=4)).frames
        assert np.array_equal(seen[0][0], prepare_clip(whole, 4, 16, resize))


def test_fewer_frames_are_another_protocol_and_more_are_an_error(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    plain = evaluate("retrieval", words, tmp_path)
    model.frames_expected = 1
    still = evaluate("retrieval", [*words, "--config.frames=1"], tmp_path)
    assert (plain["protocol"]["frames"], still["protocol"]["frames"]) == (4, 1)
    assert plain["protocol_hash"] != still["protocol_hash"]
    capsys.readouterr()
    evaluate("retrieval", [*words, "--config.frames=5"], tmp_path, code=ConfigError.exit_code)
    assert "frames=5, but this model takes 4" in capsys.readouterr().err


def test_the_protocol_names_no_folder(videos, model, tmp_path):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    here = evaluate("retrieval", words, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(videos, elsewhere)
    shutil.copy(tmp_path / "set.jsonl", elsewhere / "set.jsonl")
    there = evaluate("retrieval", [f"--config.data.manifest={elsewhere / 'set.jsonl'}"], tmp_path)
    assert here["protocol_hash"] == there["protocol_hash"]
    changed = evaluate("retrieval", manifest(videos, tmp_path, captioned("red", "green", "blue")), tmp_path)
    assert changed["protocol_hash"] != here["protocol_hash"]


ROWS = [
    {"id": n, "video": f"{n}.mp4", "caption": f"a {n} square", "label": n, "options": [n, "grey"], "answer": 0}
    for n in COLOURS
]
QUESTIONS = [question(n, "what colour?", n, type="what") for n in COLOURS]
SETS = {
    "retrieval": ROWS,
    "multiple_choice": ROWS,
    "zero_shot": ROWS,
    "videoqa": QUESTIONS,
}


@pytest.mark.parametrize("task", SETS)
def test_what_does_not_decide_does_not_change_the_hash(videos, model, tmp_path, task):
    """The manifest's name, the order of its rows, their ids, a column that the task does not use, a split's name."""
    rows, answers = SETS[task], ["--config.answers=test_set"] if task == "videoqa" else []
    first = evaluate(task, [*manifest(videos, tmp_path, rows), *answers], tmp_path)
    changed = [
        {**row, "id": f"other {number}", "unused": number, "split": "test"} for number, row in enumerate(reversed(rows))
    ]
    second = evaluate(task, [*manifest(videos, tmp_path, changed, "other.jsonl"), *answers], tmp_path)
    assert second["protocol"] == first["protocol"]
    assert second["protocol_hash"] == first["protocol_hash"]
    assert second["metrics"] == first["metrics"]
    assert (first["data"]["name"], second["data"]["name"]) == ("set.jsonl", "other.jsonl")
    assert first["inputs"]["manifest"]["sha256"] != second["inputs"]["manifest"]["sha256"]


@pytest.mark.parametrize(
    ("task", "change"),
    [
        ("retrieval", {"caption": "a square of red"}),
        ("retrieval", {"video": "blue.mp4"}),
        ("retrieval", {"start": 0.0, "end": 0.5}),
        ("multiple_choice", {"options": ["red", "white"]}),
        ("multiple_choice", {"answer": 1}),
        ("multiple_choice", {"video": "red_then_blue.mp4"}),
        ("zero_shot", {"label": "blue"}),
        ("zero_shot", {"video": "red_then_blue.mp4"}),
        ("videoqa", {"question": "which colour?"}),
        ("videoqa", {"answer": "blue"}),
        ("videoqa", {"type": "which"}),
        ("videoqa", {"video": "red_then_blue.mp4"}),
    ],
)
def test_what_decides_changes_the_hash(videos, model, tmp_path, task, change):
    rows = SETS[task]
    words = [f"--config.answers={tmp_path / 'answers.txt'}"] if task == "videoqa" else []
    (tmp_path / "answers.txt").write_text("\n".join(COLOURS))
    first = evaluate(task, [*manifest(videos, tmp_path, rows), *words], tmp_path)
    second = evaluate(task, [*manifest(videos, tmp_path, [{**rows[0], **change}, *rows[1:]]), *words], tmp_path)
    assert first["protocol"]["data"]["sha256"] != second["protocol"]["data"]["sha256"]
    assert first["protocol_hash"] != second["protocol_hash"]


def test_what_shards_store_is_part_of_the_protocol(videos, model, tmp_path):
    """Two frames of 32 pixels and eight are two protocols; both differ from the files', and the reason can be read."""
    rows = [(n, n, (f"a {n} square",), {}) for n in COLOURS]
    files = evaluate("retrieval", manifest(videos, tmp_path, ROWS), tmp_path)
    eight = evaluate("retrieval", write_shards(tmp_path / "eight", videos, rows), tmp_path)
    two = evaluate("retrieval", write_shards(tmp_path / "two", videos, rows, num_frames=2, short_side=16), tmp_path)
    assert len({result["protocol_hash"] for result in (files, eight, two)}) == 3
    assert files["protocol"]["frame_source"]["from"] == "video files"
    stored = [result["protocol"]["frame_source"] for result in (eight, two)]
    assert [(source["stored_frames"], source["stored_short_side"]) for source in stored] == [(8, 32), (2, 16)]
    assert [source["jpeg_quality"] for source in stored] == [[90], [90]]
    # Frames of a manifest over shards are known by the manifest's names, as files are.
    over = evaluate(
        "retrieval", [*manifest(videos, tmp_path, ROWS), f"--config.data.shards={tmp_path / 'eight'}"], tmp_path
    )
    assert over["protocol"]["data"] == files["protocol"]["data"]
    assert over["protocol"]["frame_source"] == eight["protocol"]["frame_source"]
    assert [result["inputs"]["distinct_frames"] for result in (files, eight, two)] == [
        {"min": 4, "mean": 4, "max": 4},
        {"min": 4, "mean": 4, "max": 4},
        {"min": 2, "mean": 2, "max": 2},
    ]
    assert two["warnings"] == ["4 of 4 clips have fewer than 4 different frames: some repeat"]
    renamed = [(f"id {n}", *row) for n, *row in rows]
    again = evaluate("retrieval", write_shards(tmp_path / "again", videos, renamed), tmp_path)
    assert again["protocol_hash"] == eight["protocol_hash"]
    other = [(n, video, *row) for (n, _, *row), video in zip(rows, [*list(COLOURS)[1:], "red"], strict=True)]
    swapped = evaluate("retrieval", write_shards(tmp_path / "swapped", videos, other), tmp_path)
    assert swapped["protocol_hash"] != eight["protocol_hash"]


def test_another_model_has_the_same_protocol(videos, model, tmp_path, monkeypatch):
    words = manifest(videos, tmp_path, ROWS)
    first = evaluate("retrieval", words, tmp_path)
    monkeypatch.setattr(ColourModel, "digest", "others")
    second = evaluate("retrieval", words, tmp_path)
    assert first["protocol_hash"] == second["protocol_hash"]
    assert first["model"]["sha256"] != second["model"]["sha256"]


@pytest.mark.parametrize(("column", "split"), [({}, ""), ({"split": "test"}, "test")])
def test_a_split_is_recorded_where_the_rows_name_one(videos, model, tmp_path, column, split):
    result = evaluate("retrieval", manifest(videos, tmp_path, [row | column for row in ROWS]), tmp_path)
    assert result["data"]["split"] == split


def test_files_of_one_name_in_two_folders_are_two_clips(videos, model, tmp_path):
    for folder, colour in (("run", "red"), ("jump", "blue")):
        (tmp_path / folder).mkdir()
        shutil.copy(videos / f"{colour}.mp4", tmp_path / folder / "0.mp4")
    labels = [("run", "red", "blue"), ("jump", "blue", "red")]
    right = [{"video": f"{folder}/0.mp4", "label": label} for folder, label, _ in labels]
    wrong = [{"video": f"{folder}/0.mp4", "label": label} for folder, _, label in labels]
    first, second = (evaluate("zero_shot", manifest(tmp_path, tmp_path, rows), tmp_path) for rows in (right, wrong))
    assert (first["metrics"]["top1"], second["metrics"]["top1"]) == (100, 0)
    assert first["protocol_hash"] != second["protocol_hash"]


@pytest.mark.parametrize(
    ("videos_of_set", "names"),
    [
        (["a.mp4", "b.mp4"], ["a", "b"]),
        (["x/a.mp4", "x/b.mp4"], ["a", "b"]),
        (["x/a.mp4", "y/a.mp4", "z/b.mp4"], ["x/a", "y/a", "b"]),
        (["a.mp4", "x/a.mp4"], ["a", "x/a"]),
        (["1/x/a.mp4", "2/x/a.mp4"], ["1/x/a", "2/x/a"]),
        (["a.mp4", "a.avi"], ["a.mp4", "a.avi"]),
    ],
)
def test_clips_have_the_shortest_names_that_tell_them_apart(videos_of_set, names):
    found = named([VideoSpan(video, 1.0, 2.0) for video in videos_of_set])
    assert [clip.key for clip in found] == [[name, 1.0, 2.0] for name in names]
