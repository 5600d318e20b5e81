"""`harvest clips` on generated films whose cuts are known."""

import csv
import json
import shutil

import numpy as np
import pytest

from data_pipeline.command import add_arguments  # noqa: F401 (the command whose input is written here)
from data_pipeline.manifest.read import read_manifest
from harvest_jax import cli
from tests.helpers.video_files import write_video

RATE = 10


def scene(seed: int, seconds: float, height: int = 72, width: int = 96) -> np.ndarray:
    """A textured background of its own colours, over which a square of another colour moves."""
    rng = np.random.default_rng(seed)
    small = rng.integers(40, 216, (6, 8, 3))
    still = np.kron(small, np.ones((height // 6, width // 8, 1))).astype(np.uint8)
    frames = np.repeat(still[None], round(seconds * RATE), axis=0)
    colour = rng.integers(0, 256, 3)
    for number, frame in enumerate(frames):
        left = abs(3 * number % (2 * (width - 30)) - (width - 30))  # right to left and back
        frame[20:50, left : left + 30] = colour
    return frames


def film(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)


BLACK = np.full((3 * RATE, 72, 96, 3), 4, np.uint8)
STILL = np.repeat(scene(50, 0.1), 3 * RATE, axis=0)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two films; read only. `long.mp4`: 4 s, 1 s, 3 s black, 5.3 s, 3 s still, 9 s, and the first 4 s once more."""
    pytest.importorskip("scenedetect", reason="extra clips")
    folder = tmp_path_factory.mktemp("films")
    (folder / "sub").mkdir()
    parts = (scene(1, 4), scene(2, 1), BLACK, scene(3, 5.3), STILL, scene(4, 9), scene(1, 4))
    write_video(folder / "long.mp4", film(*parts), RATE)
    write_video(folder / "sub" / "other.mkv", film(scene(5, 3), scene(3, 5.3), scene(6, 2.5)), RATE)
    (folder / "broken.mp4").write_bytes((folder / "long.mp4").read_bytes()[:5000])
    (folder / "long.srt").write_text(
        "1\n00:00:01,000 --> 00:00:03,500\n<i>A square</i>\nmoves\n\n"
        "2\n00:00:09,500 --> 00:00:10,500\nAnother {\\an8}square\n\n"
        "3\n00:00:10,500 --> 00:00:11,500\nAnother square\n"
    )
    return folder


def cut(folder, out, *words):
    return cli.main(["clips", "--videos", str(folder), "--out", str(out), "--workers", "1", *words])


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_cuts_are_found_to_the_frame_and_clips_are_dropped_by_their_measures(films, tmp_path, capsys):
    out = tmp_path / "clips.csv"
    assert cut(films, out, "--max_seconds", "5.5", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    rows = [(row["video"], float(row["start"]), float(row["end"])) for row in rows_of(out)]
    frame = 1 / RATE
    expected = [("long.mp4", 0, 4), ("long.mp4", 8, 13.3), ("long.mp4", 16.3, 20.8), ("long.mp4", 20.8, 25.3)]
    expected += [("sub/other.mkv", 0, 3), ("sub/other.mkv", 8.3, 10.8)]
    assert [row[0] for row in rows] == [row[0] for row in expected]
    np.testing.assert_allclose([row[1:] for row in rows], [row[1:] for row in expected], atol=frame)
    dropped = [
        (row["video"], round(float(row["start"] or -1)), row["reason"])
        for row in rows_of(tmp_path / "clips_dropped.csv")
    ]
    assert [(video, start, reason.split(":")[0]) for video, start, reason in dropped] == [
        ("broken.mp4", -1, "damaged"),
        ("long.mp4", 5, "black"),
        ("long.mp4", 13, "still"),
        ("long.mp4", 25, "duplicate"),
        ("sub/other.mkv", 3, "duplicate"),
    ]
    assert found["dropped"] == {"black": 1, "duplicate": 2, "short": 1, "still": 1}
    assert (found["clips"], found["scenes"], found["videos"], found["captioned"]) == (6, 10, 3, 2)
    assert [entry["video"] for entry in found["rejected"]] == ["broken.mp4"]
    assert [row["caption"] for row in rows_of(out)][:3] == ["A square moves", "Another square", ""]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_the_manifest_is_one_that_shards_reads(films, tmp_path, capsys):
    shutil.copytree(films, tmp_path / "films")
    out = tmp_path / "films" / "clips.csv"
    assert cut(tmp_path / "films", out) == 0
    text = capsys.readouterr().out
    assert f"next: harvest shards --manifest {out} --out FOLDER" in text
    assert "not read: broken.mp4: damaged" in text
    assert "fill the column caption" in text
    manifest = read_manifest(out)
    assert [row.video for row in manifest.rows] == ["long.mp4"] * 2  # those with a caption
    assert {reject.reason for reject in manifest.rejects} == {"empty caption"}
    words = ["shards", "--manifest", str(out), "--out", str(tmp_path / "shards"), "--max_rejects", "1", "--frames", "2"]
    assert cli.main([*words, "--short_side", "48", "--workers", "1"]) == 0


def test_captions_that_were_filled_in_are_not_lost(films, tmp_path, capsys):
    out = tmp_path / "clips.csv"
    out.write_text("mine")
    assert cut(films, out) == 3
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_a_stopped_run_goes_on_where_it_was(films, tmp_path, capsys, monkeypatch):
    from data_pipeline.decode import pool

    whole, again = tmp_path / "whole.csv", tmp_path / "again.csv"
    assert cut(films, whole) == 0
    real = pool.DecoderPool.map
    scanned = []

    def stopped(self, tasks):
        for task, result in zip(tasks, real(self, tasks), strict=True):
            scanned.append(task["video"])
            yield result
            if task["video"] == "long.mp4" and scanned.count("long.mp4") == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(pool.DecoderPool, "map", stopped)
    assert cut(films, again) == 130
    assert not again.exists()
    assert cut(films, again) == 0
    assert again.read_bytes() == whole.read_bytes()
    assert scanned == ["broken.mp4", "long.mp4", "broken.mp4", "sub/other.mkv"]  # what was rejected is tried again
