"""Rows and clips out of manifests, shards, and published annotation files."""

import csv
import json

import numpy as np
import pytest

from data_pipeline.decode import pool
from harvest_jax.errors import DataError
from harvest_jax.evaluate.clips.evaluation_set import EvaluationSet, open_set
from harvest_jax.evaluate.clips.frame_readers import VideoSpan
from harvest_jax.evaluate.settings import DataSettings
from tests.helpers import sabotaged_worker
from tests.helpers.annotations import ANNOTATIONS
from tests.helpers.colour_evaluation import COLOURS, captioned, evaluate, manifest, write_shards
from tests.helpers.video_files import numbered_frames, read_number, write_video


def test_shards_are_scored_like_videos(videos, model, tmp_path):
    words = write_shards(
        tmp_path / "shards", videos, [(f"id {n}", n, (f"a {n} one", f"a {n} two"), {}) for n in COLOURS]
    )
    result = evaluate("retrieval", words, tmp_path)
    assert (result["n_expected"], result["n_missing"], result["protocol"]["captions"]) == (4, 0, 8)
    assert result["metrics"]["t2v"]["R@1"] == result["metrics"]["v2t"]["R@1"] == 100
    assert result["data"]["kind"] == "shards"


def test_other_columns_come_out_of_shards(videos, model, tmp_path, capsys):
    rows = [(n, n, (), {"label": n, "question": "what is it?", "answer": n}) for n in ("green", "red")]
    words = write_shards(tmp_path / "shards", videos, rows)
    assert evaluate("zero_shot", words, tmp_path)["metrics"]["top1"] == 100
    assert evaluate("videoqa", [*words, "--config.answers=test_set"], tmp_path)["metrics"]["acc_all"] == 100
    evaluate("retrieval", words, tmp_path, code=DataError.exit_code)
    assert "2 rows have no caption, the first: green" in capsys.readouterr().err


def test_zero_is_a_value_of_a_column(videos, model, tmp_path):
    """In shards and manifests, as a number and as text."""
    columns = {"label": 0, "type": 0, "question": "which?", "options": ["red", "blue"], "answer": 0}
    shards = write_shards(tmp_path / "shards", videos, [("red", "red", (), columns)])
    for words in (shards, manifest(videos, tmp_path, [{"video": "red.mp4", **columns}])):
        assert evaluate("zero_shot", words, tmp_path)["metrics"]["per_class"] == {"0": {"n": 1, "top1": 100}}
        assert evaluate("multiple_choice", words, tmp_path)["metrics"]["per_type"] == {"0": {"n": 1, "accuracy": 100}}
        asked = evaluate("videoqa", [*words, "--config.answers=test_set"], tmp_path)["metrics"]
        assert (asked["acc_all"], asked["per_type"]) == (100, {"0": {"n": 1, "acc_all": 100}})


def test_a_manifest_over_shards_says_which_clips_are_missing_there(videos, model, tmp_path, capsys):
    rows = captioned(*COLOURS)
    shards = write_shards(tmp_path / "shards", videos, [(n, n, (n,), {}) for n in ("red", "blue")])
    (tmp_path / "shards" / "rejects-test.tsv").write_text("id\tvideo\treason\nyellow\tyellow.mp4\tdamaged: cut\n")
    (tmp_path / "empty").mkdir()
    words = [*manifest(tmp_path / "empty", tmp_path, rows), *shards]
    evaluate("retrieval", words, tmp_path, code=DataError.exit_code)
    assert "2 of the 4 videos of set.jsonl are not there, the first: green.mp4" in capsys.readouterr().err
    result = evaluate("retrieval", [*words, "--allow_missing"], tmp_path)
    assert (result["n_expected"], result["n_missing"]) == (4, 2)
    assert {entry["video"]: entry["reason"] for entry in result["missing"]} == {
        "green.mp4": "not in split test of the shards",
        "yellow.mp4": "damaged: cut",
    }
    assert result["metrics"]["t2v"]["R@1"] == 50
    assert len(result["warnings"]) == 1
    alone = evaluate("retrieval", shards, tmp_path)
    assert (alone["n_expected"], alone["n_missing"]) == (2, 0)
    assert alone["warnings"] == [
        "1 rows were rejected when the shards were made and are not counted: give data.manifest too"
    ]


@pytest.mark.parametrize("content", [b"id\tvideo\treason\n\xff\tv\tr\n", b"id\tvideo\treason\nonly an id\n"])
def test_a_damaged_table_of_rejects_is_one_line(videos, model, tmp_path, capsys, content):
    shards = write_shards(tmp_path / "shards", videos, [("red", "red", ("x",), {})])
    (tmp_path / "shards" / "rejects-test.tsv").write_bytes(content)
    evaluate("retrieval", shards, tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err
    assert "rejects-test.tsv is damaged" in error
    assert error.count("\n") == 1


def test_a_split_that_is_not_there_is_one_line(videos, model, tmp_path, capsys):
    words = write_shards(tmp_path / "shards", videos, [("red", "red", ("x",), {})])
    evaluate("retrieval", [*words, "--config.data.split=val"], tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err
    assert "no split 'val'" in error
    assert error.count("\n") == 1


def test_spans_of_one_file_are_different_clips(videos, model, tmp_path):
    rows = [
        {"id": "first", "video": "red_then_blue.mp4", "start": 0, "end": 0.9, "caption": "red"},
        {"id": "second", "video": "red_then_blue.mp4", "start": 1.1, "end": 2, "caption": "blue"},
    ]
    result = evaluate("retrieval", manifest(videos, tmp_path, rows), tmp_path)
    assert result["n_expected"] == 2
    assert result["metrics"]["t2v"]["R@1"] == 100


class Reader:
    """Gives no frames but reasons, for the clips of these numbers."""

    def __init__(self, numbers):
        self.numbers = numbers

    def read(self, num_frames, image_size, resize, sampling, known=None):
        return ((number, "reason") for number in self.numbers)

    def absent(self):
        return {}

    def described(self):
        return {}

    def digest(self, number):
        return None

    def preparation(self):
        return {}


def test_a_reader_that_loses_or_doubles_a_clip_is_caught():
    def of(numbers):
        pair = (VideoSpan("a"), VideoSpan("b"))
        return EvaluationSet("x", "manifest", "", (), pair, Reader(numbers))

    assert len(list(of([1, 0]).frames(1, 1, "crop"))) == 2
    with pytest.raises(DataError, match="1 of 2 clips were not read"):
        list(of([0]).frames(1, 1, "crop"))
    with pytest.raises(DataError, match="was read twice"):
        list(of([0, 0]).frames(1, 1, "crop"))


def opened(tmp_path, rows):
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return open_set(DataSettings(str(path), "", "", "test", 1))


@pytest.mark.skipif(not (ANNOTATIONS / "msrvtt").is_dir(), reason="no annotation files here")
def test_msrvtt_1k_a_is_one_caption_for_each_of_a_thousand_videos(tmp_path):
    with (ANNOTATIONS / "msrvtt" / "MSRVTT_JSFUSION_test.csv").open(encoding="utf-8") as stream:
        rows = [{"video": f"{row['video_id']}.mp4", "caption": row["sentence"]} for row in csv.DictReader(stream)]
    data = opened(tmp_path, rows)
    assert (len(data.clips), len(data.samples)) == (1000, 1000)
    assert all(len(sample.captions) == 1 for sample in data.samples)


@pytest.mark.skipif(not (ANNOTATIONS / "msvd").is_dir(), reason="no annotation files here")
def test_msvd_is_many_captions_for_each_of_670_videos(tmp_path):
    table = json.loads((ANNOTATIONS / "msvd" / "msvd_caption_test.json").read_text("utf-8"))
    data = opened(tmp_path, table)
    assert len(data.clips) == 670
    assert sum(len(sample.captions) for sample in data.samples) == sum(len(row["caption"]) for row in table)
    flat = [
        {"id": f"{row['video']} {n}", "video": row["video"], "caption": caption}
        for row in table[:40]
        for n, caption in enumerate(row["caption"])
    ]
    one_a_row = opened(tmp_path, flat)  # the same set, written one caption a row
    assert one_a_row.clips == data.clips[:40]
    assert len(one_a_row.samples) == len(flat)


def test_spans_of_one_video_are_decoded_by_all_workers(tmp_path, monkeypatch):
    """Each of the first two spans waits until the other is being decoded: one alone would time out."""
    monkeypatch.setattr(pool, "WORKER_COMMAND", sabotaged_worker.WORKER_COMMAND)
    write_video(tmp_path / "meeting.mp4", numbered_frames(50, 48, 48))
    rows = ["a,0,1,first", "b,3,4,second", "c,90,99,after its end", "d,,,all of it", "e,0,1,first again"]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("video,id,start,end,caption\n" + "".join(f"meeting.mp4,{row}\n" for row in rows))
    evaluation = open_set(DataSettings(str(manifest), "", "", "", 2))
    clips = dict(evaluation.frames(num_frames=2, image_size=48, resize="crop"))
    assert [sample.clip for sample in evaluation.samples] == [0, 1, 2, 3, 0]
    assert str(clips.pop(2)).startswith("bad span: it starts at 90 s")
    numbers = {clip: [read_number(frame) for frame in read.views[0]] for clip, read in clips.items()}
    assert numbers == {0: [2, 7], 1: [32, 37], 3: [12, 37]}
    assert all(read.views[0].dtype == np.uint8 for read in clips.values())
    assert {clip: read.distinct for clip, read in clips.items()} == {0: 2, 1: 2, 3: 2}
