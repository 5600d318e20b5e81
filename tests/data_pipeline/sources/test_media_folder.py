"""Folders of videos and pictures with texts beside them as a source."""

import json
import os
import time

import pytest

from data_pipeline.manifest.read import iter_manifest, read_manifest
from data_pipeline.manifest.rows import ClipRow
from data_pipeline.sources import media_folder
from data_pipeline.sources.skipped_files import SkippedFiles
from harvest_jax import cli
from tests.helpers.source_files import (
    decoded,
    picture,
    reasons,
    sample,
    write_tar,
)


def test_a_folder_of_videos_and_pictures_with_texts_beside_them(tmp_path, video):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("a.mp4", "deep/a.MP4", "deep/er/b.webm", "mute.mp4", "broken.mkv", ".hidden/x.mp4", ".y.mp4"):
        (tmp_path / name).write_bytes(video)
    for name in ("c.jpg", "a.jpg"):  # one of its own, and a video's thumbnail
        (tmp_path / name).write_bytes(picture(9))
    (tmp_path / "a.txt").write_text("\ufeffa dog jumps\n\n  over a log  \n", encoding="utf-8")
    row = {
        "captions": ["x", "y"],
        "id": "named",
        "split": "test",
        "start": "0:01",
        "end": 3,
        "note": 1,
        "video": "/etc/passwd",
    }
    (tmp_path / "deep" / "a.json").write_text(json.dumps(row))
    (tmp_path / "deep" / "er" / "b.json").write_text('{"note": 2}')
    (tmp_path / "deep" / "er" / "b.txt").write_text("both\n")
    (tmp_path / "c.txt").write_text("a picture")
    (tmp_path / "broken.json").write_text("{")
    manifest = read_manifest(tmp_path)
    assert manifest.rows == [
        ClipRow("a", "a.mp4", ("a dog jumps", "over a log"), "train"),
        ClipRow("c", "c.jpg", ("a picture",), "train"),
        ClipRow("named", "deep/a.MP4", ("x", "y"), "test", 1.0, 3.0, {"note": 1}),
        ClipRow("b", "deep/er/b.webm", ("both",), "train", extra={"note": 2}),
    ]
    assert {name: reason.split(" (")[0] for name, reason in reasons(manifest).items()} == {
        "line 2": "bad text: its broken.json is not JSON",
        "line 4": "empty caption: there is no mute.txt or mute.json beside it",
    }
    assert [decoded(row, tmp_path)["numbers"] for row in manifest.rows] == [
        [5, 15, 25, 35],
        [9],
        [12, 17, 22, 27],
        [5, 15, 25, 35],
    ]


def test_of_a_live_photo_the_video_is_the_clip(tmp_path, video):
    for name, content in {
        "IMG_1.MOV": video,
        "IMG_1.JPG": picture(9),
        "IMG_1.HEIC": b"\0\0\0\x18ftypheic",
        "IMG_2.JPG": picture(9),
    }.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).with_suffix(".txt").write_text("a dog")
    manifest = read_manifest(tmp_path)
    assert [row.video for row in manifest.rows] == ["IMG_1.MOV", "IMG_2.JPG"]
    assert [decoded(row, tmp_path)["numbers"] for row in manifest.rows] == [[5, 15, 25, 35], [9]]


NAMES = (
    "Interstellar: trailer",
    "subfile,a",
    "Recording 10.00.00\u202fAM",
    "\u65e5\u672c\u3000\u8a9e",
    "a\u200db\xa0c",
)


@pytest.mark.parametrize("ending", ["3gp", "3G2", "mts", "M2TS", "ts", "qt", "mpg", "mpeg", "vob", "wmv", "flv", "ogv"])
def test_the_endings_of_phones_and_cameras_are_found(tmp_path, video, ending):
    (tmp_path / f"clip.{ending}").write_bytes(video)
    (tmp_path / "clip.txt").write_text("a dog")
    assert [row.video for row in read_manifest(tmp_path).rows] == [f"clip.{ending}"]


def test_names_as_people_write_them(tmp_path, video):
    for folder in ("plain", "with: colon", "rec: tars"):
        (tmp_path / folder).mkdir()
    for name in NAMES:
        for folder in ("plain", "with: colon"):
            (tmp_path / folder / f"{name}.mp4").write_bytes(video)
            (tmp_path / folder / f"{name}.txt").write_text(name)
    manifest = read_manifest(tmp_path / "plain")
    assert manifest.rejects == []
    assert {row.id for row in manifest.rows} == set(NAMES)
    assert all(decoded(row, manifest.root)["numbers"] == [5, 15, 25, 35] for row in manifest.rows)
    assert len([*iter_manifest([tmp_path / "with: colon"], root=tmp_path)]) == 5
    assert all(isinstance(row, ClipRow) for row in iter_manifest([tmp_path / "with: colon"], root=tmp_path))
    write_tar(tmp_path / "rec: tars" / "a: b.tar", sample("k", video))
    for source in (tmp_path / "rec: tars", tmp_path / "rec: tars" / "a: b.tar"):
        (row,) = iter_manifest([source])
        assert isinstance(row, ClipRow)
        assert (row.id, row.video) == ("k", "./a: b.tar")
    (tmp_path / "rec: tars" / "m.csv").write_text("video,caption\n../plain/x.mp4,no\nx.mp4,yes\n")
    sources = [tmp_path / "rec: tars" / "m.csv", tmp_path / "plain"]
    found = [row for row in iter_manifest(sources) if isinstance(row, ClipRow)]
    assert found[0].video == "./rec: tars/x.mp4"
    assert len(found) == 6


@pytest.mark.parametrize("videos", [True, False])
def test_a_manifest_in_the_folder_that_was_given_is_pointed_at(tmp_path, video, capsys, videos):
    (tmp_path / "clips.csv").write_text("video,caption\na.mp4,x\n")
    if videos:
        (tmp_path / "a.mp4").write_bytes(video)
        (tmp_path / "b.mp4").write_bytes(video)
    for more in ([], ["--dry_run"]):
        assert cli.main(["shards", "--manifest", str(tmp_path), "--out", str(tmp_path / "out"), *more]) == 3
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.endswith(f"; to use the manifest in it, give --manifest {tmp_path}/clips.csv\n")
        assert len(told.err.splitlines()) == 1
    if videos:
        (tmp_path / "a.txt").write_text("a caption")  # one caption is enough: the folder may be meant
        assert [row.id for row in read_manifest(tmp_path).rows] == ["a"]


def test_a_sidecar_costs_its_own_clip_only(tmp_path, video):
    texts = {
        "a": '{"caption": "x", "split": "\u65e5\u672c test"}',
        "b": "{",
        "c": '{"caption": "x", "split": "val"}',
        "d": json.dumps({"caption": "x", "split": "val", "subtitles": "y" * 200_000, "n": 1}),
        "e": '{"caption": "x", "split": ""}',
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.mp4").write_bytes(video)
        (tmp_path / f"{name}.json").write_text(text)
    manifest = read_manifest(tmp_path)
    assert [(row.id, row.split, row.extra) for row in manifest.rows] == [("c", "val", {}), ("d", "val", {"n": 1})]
    assert [(one.id, one.reason.split(" (")[0], one.split) for one in manifest.rejects] == [
        (
            "line 1",
            "bad split: '\u65e5\u672c test' cannot name a split: use letters, digits and underscores, and not 'all'",
            "val",
        ),
        ("line 2", "bad text: its b.json is not JSON", "val"),
        ("line 5", "bad split: the cell is empty", "val"),
    ]


def test_many_videos_in_one_folder_take_no_longer_each(tmp_path):
    for number in range(12_000):
        (tmp_path / f"{number}.mp4").touch()
    began = time.process_time()
    assert len(list(media_folder.read_rows(tmp_path, ".", str(tmp_path), SkippedFiles()))) == 12_000
    assert time.process_time() - began < 2  # many times that where all names are gone through for each


def test_a_folder_of_links(tmp_path, video):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret.mp4").write_bytes(video)
    (outside / "secret.txt").write_text("a secret")
    for name in ("a", "b"):
        (root / f"{name}.mp4").write_bytes(video)
    (root / "a.txt").write_text("fine")
    (root / "b.txt").symlink_to(outside / "secret.txt")
    (root / "c.mp4").symlink_to(outside / "secret.mp4")
    (root / "c.txt").write_text("mine")
    (root / "d.mp4").symlink_to(root / "a.mp4")
    (root / "d.txt").symlink_to(root / "a.txt")
    (root / "away").symlink_to(outside)
    os.mkfifo(root / "e.txt")
    (root / "e.mp4").write_bytes(video)
    manifest = read_manifest(root)
    assert [row.id for row in manifest.rows] == ["a", "d"]
    assert [reject.reason.split("; ")[0] for reject in manifest.rejects] == [
        "bad path: b.txt: a link leads out of the root",
        "bad path: a link leads out of the root",
        "not a file: e.txt: a folder, a pipe or a device",
    ]


def test_files_that_are_no_videos_by_their_names_are_counted(tmp_path, video):
    (tmp_path / "deep").mkdir()
    for name in ("a.mp4", "deep/b.mkv"):
        (tmp_path / name).write_bytes(video)
    for name in ("a.txt", "a.json", "a.jpg", "deep/b.txt"):  # of the videos
        (tmp_path / name).write_text("{}")
    for name in ("old.rm", "deep/older.RM", "notes.txt", "README", ".hidden"):
        (tmp_path / name).write_text("x")
    (tmp_path / "away").symlink_to(tmp_path)
    stream = iter_manifest([tmp_path])
    for _ in range(2):  # reading again counts anew
        assert len(list(stream)) == 2
        assert stream.skipped.in_words() == [
            "4 files that are no videos by their names (2 x .rm, 1 x no ending, 1 x .txt): README, notes.txt, old.rm, "
            "deep/older.RM",
            "1 link to folders, which are not followed",
        ]


def test_names_that_are_no_utf_8_and_other_odd_ones(tmp_path, video):
    folder = tmp_path / os.fsdecode(b"\xe9t\xe9")
    odd = [" leading.mp4", "back\\slash.mp4", "\\first.mp4", "C:\\drive.mp4", "=1+2.mp4", "'quote'.mp4"]
    for name in [*odd, os.fsdecode(b"Jos\xe9.mp4"), "line\nend.mp4"]:
        (tmp_path / name).write_bytes(video)
        (tmp_path / name).with_suffix(".txt").write_text("x")
    (tmp_path / os.fsdecode(b"mute\xe9.mp4")).write_bytes(video)
    folder.mkdir()
    (folder / "in.mp4").write_bytes(video)
    (folder / "in.txt").write_text("x")
    manifest = read_manifest(tmp_path)
    assert sorted(row.video.removeprefix("./") for row in manifest.rows) == sorted(odd)
    assert all(decoded(row, manifest.root)["numbers"] == [5, 15, 25, 35] for row in manifest.rows)
    assert {reject.video: reject.reason.split(":")[0] for reject in manifest.rejects} == {
        "Jos\\udce9.mp4": "bad path",
        "mute\\udce9.mp4": "empty caption",
        "line\\nend.mp4": "bad path",
        "\\udce9t\\udce9/in.mp4": "bad path",
    }
    "".join(reject.reason + reject.id for reject in manifest.rejects).encode()
    assert [row.id for row in read_manifest(folder).rows] == ["in"]
