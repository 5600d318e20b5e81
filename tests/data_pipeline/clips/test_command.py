"""`harvest clips`: mistakes are one line; subtitles; which clips are kept."""

import importlib.util

import numpy as np
import pytest

from data_pipeline.clips.selection import Selection
from data_pipeline.clips.subtitles import Cue, beside, caption_of, read_subtitles
from harvest_jax import cli


@pytest.mark.parametrize(
    ("words", "code", "fault"),
    [
        (["--min_seconds", "0"], 2, "--min_seconds 0 must be above 0"),
        (["--min_seconds", "30"], 2, "--min_seconds 30 must be above 0 and at most --max_seconds 20"),
        (["--black", "300"], 2, "--black 300 is outside 0..255"),
        (["--workers", "0"], 2, "--workers 0: at least 1"),
        (["--time_limit", "0"], 2, "--time_limit 0: more than 0 seconds"),
        ([], 3, "no video in "),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch, words, code, fault):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert cli.main(["clips", "--videos", str(tmp_path), "--out", str(tmp_path / "c.csv"), *words]) == code
    printed = capsys.readouterr().err
    assert fault in printed
    assert printed.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_is_needed_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = ["clips", "--videos", str(tmp_path), "--out", str(tmp_path / "c.csv")]
    assert cli.main(words) == 2
    assert "pip install 'harvest_jax[clips]'" in capsys.readouterr().err
    assert cli.main([*words[:-1], str(tmp_path / "c.txt")]) == 2
    assert "the name of a .csv file" in capsys.readouterr().err


def test_subtitles_beside_a_video():
    names = ["a.en.vtt", "a.de.srt", "a.vtt", "ab.srt", "a.mp4", "a.txt"]
    assert beside("a", names) == "a.vtt"
    assert beside("a", [*names, "a.SRT"]) == "a.SRT"
    assert beside("a", ["a.en.vtt", "a.de.srt"]) == "a.de.srt"
    assert beside("b", names) is None


def test_subtitles_of_both_kinds_and_damaged_ones(tmp_path):
    text = (
        "WEBVTT\n\nNOTE nothing\n\n01:02.500 --> 01:04.000 align:start\n<c.red>Bären</c> &amp; <00:01:03.000>dogs\n\n"
        "x --> y\nlost\n\n1:00:00.000 --> 1:00:02.000\n"
    )
    (tmp_path / "a.vtt").write_text(text)
    assert read_subtitles(str(tmp_path), "a.vtt") == [Cue(62.5, 64.0, ("Bären & dogs",)), Cue(3600.0, 3602.0, ())]
    (tmp_path / "b.srt").write_bytes("\ufeff2\r\n00:00:02,5 --> 00:00:03,000\r\ntwo\r\n\r\n".encode() + b"\xff\x00")
    assert read_subtitles(str(tmp_path), "b.srt") == [Cue(2.5, 3.0, ("two",))]
    (tmp_path / "c.srt").write_bytes(b"")
    assert read_subtitles(str(tmp_path), "c.srt") == []


def test_each_cue_is_of_one_clip_and_lines_that_scroll_are_said_once():
    said = ((0.0, 2.0, "one"), (2.0, 4.0, "one", "two"), (4.0, 6.0, "two", "three"), (5.9, 8.0, "four"))
    cues = [Cue(start, end, tuple(lines)) for start, end, *lines in said]
    assert caption_of(cues, 0.0, 6.0) == "one two three"
    assert caption_of(cues, 6.0, 10.0) == "four"
    assert caption_of(cues, 10.0, 20.0) == ""


def clip(value, brightness=100.0, change=5.0):
    signature = np.broadcast_to(np.asarray(value, np.uint8), 3 * 8 * 8 * 3).tobytes().hex()
    return {"start": 0.0, "end": 1.0, "brightness": brightness, "change": change, "signature": signature}


def test_the_first_of_several_like_clips_is_kept():
    selection, scenes = Selection(duplicate=4.0), iter(range(1000))
    assert selection.reason(clip(100), next(scenes)) is None
    assert selection.reason(clip(103), next(scenes)).startswith("duplicate: differs by 3.0")
    assert selection.reason(clip(104), next(scenes)) is None
    rng = np.random.default_rng(0)
    others = [rng.integers(0, 255, 576) for _ in range(100)]
    assert all(selection.reason(clip(other), next(scenes)) is None for other in others)
    assert all(selection.reason(clip(other + 1), next(scenes)).startswith("duplicate") for other in others)


def test_pieces_of_one_scene_are_alike_and_all_kept():
    selection = Selection()
    assert [selection.reason(clip(100), "a") for _ in range(3)] == [None] * 3
    assert selection.reason(clip(100), "b").startswith("duplicate")


def test_other_measures():
    assert Selection(duplicate=0.0).reason(clip(100), 0) is None
    assert Selection().reason(clip(100, brightness=15.9), 0) == "black: brightness 15.9"
    assert Selection().reason(clip(100, change=0.2), 0) == "still: change 0.20"
