"""WebDataset tars as a source: clips are found, checked, and decoded from where they lie in the tar."""

import io
import json
import tarfile
import tracemalloc

import pytest

from data_pipeline.manifest.read import read_manifest
from data_pipeline.sources import webdataset
from harvest_jax.errors import DataError
from harvest_jax.evaluate.clips.evaluation_set import open_set
from harvest_jax.evaluate.settings import DataSettings
from tests.helpers.source_files import (
    BYTES,
    TEXT,
    decoded,
    example,
    picture,
    reasons,
    sample,
    write_dataset,
    write_tar,
)


def test_tars_of_video2dataset_and_img2dataset(tmp_path, video):
    first = sample("000000000", video, clips=[[10.0, 14.0]], url="https://x.test/a")
    second = sample("000000001_00000", video)[:1] + sample("000000001_00000", b"")[2:]  # its caption in the .json only
    write_tar(tmp_path / "00000.tar", first + second)
    write_tar(
        tmp_path / "00001.tar", sample("000010000", picture(7), "jpg", width=64) + sample("000010001", video, "webm")
    )
    (tmp_path / "00000_stats.json").write_text("{}")
    (tmp_path / "00000.parquet").write_bytes(b"not looked at")
    manifest = read_manifest(tmp_path, split="val")
    assert manifest.rejects == []
    assert [row.id for row in manifest.rows] == ["000000000", "000000001_00000", "000010000", "000010001"]
    assert {row.video for row in manifest.rows} == {"00000.tar", "00001.tar"}
    assert {row.split for row in manifest.rows} == {"val"}
    assert manifest.rows[1].captions == ("a clip named 000000001_00000",)
    row = manifest.rows[0]
    assert (row.start, row.end) == (None, None)  # `clips` are positions in the file that this one was cut from
    assert row.extra == {"key": "000000000", "status": "success", "clips": [[10.0, 14.0]], "url": "https://x.test/a"}
    for row in manifest.rows:
        found = decoded(row, manifest.root)
        assert found["numbers"] == ([7] if row.id == "000010000" else [5, 15, 25, 35])
        assert (found["record"].id, found["record"].captions) == (row.id, row.captions)


def test_one_tar_is_a_manifest_and_its_root_may_be_further_up(tmp_path, video):
    tar = write_tar(tmp_path / "deep" / "00000.tar", sample("a", video))
    assert [row.video for row in read_manifest(tar).rows] == ["00000.tar"]
    assert [row.video for row in read_manifest(tar, root=tmp_path).rows] == ["deep/00000.tar"]
    with pytest.raises(DataError, match=r"00000\.tar is not below .*: set --root to a folder that holds it"):
        read_manifest(tar, root=write_tar(tmp_path / "other" / "x.tar", []).parent)
    blob = tmp_path / "blobs" / "0123"
    blob.parent.mkdir()
    (tmp_path / "snapshots").mkdir()
    tar.rename(blob)
    (tmp_path / "snapshots" / "00000.tar").symlink_to(blob)  # as a cache of a model hub lays out its files
    with pytest.raises(DataError, match="a link leads out of the root"):
        read_manifest(tmp_path / "snapshots")
    (row,) = read_manifest(tmp_path / "snapshots", root=tmp_path).rows
    assert decoded(row, tmp_path)["numbers"] == [5, 15, 25, 35]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst"])
def test_a_compressed_tar_is_refused_with_what_to_do(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(
            DataError, match=r"is compressed, and clips are read from inside the tar: decompress it .* \(gunzip\)"
        ):
            read_manifest(source)


def test_several_captions_of_a_clip_in_a_tar_are_kept(tmp_path, video):
    columns = {"captions": ["one", " two ", ""], "id": "theirs", "split": "theirs", "start": 3}
    write_tar(tmp_path / "0.tar", [("k.mp4", video), ("k.json", json.dumps(columns).encode())])
    (row,) = read_manifest(tmp_path / "0.tar").rows
    assert (row.id, row.captions, row.split, row.start) == ("k", ("one", "two"), "train", None)
    assert row.extra == {"id": "theirs", "split": "theirs", "start": 3}  # theirs, and no command for us


def test_keys_that_cannot_be_used_say_why(tmp_path, video):
    members = [
        ("good.mp4", video),
        ("good.txt", b"fine"),
        ("mute.mp4", video),
        ("empty.mp4", video),
        ("empty.txt", b" \n"),
        ("gone.txt", b"where is it"),
        ("latin.mp4", video),
        ("latin.txt", "Bär".encode("latin-1")),
        ("list.mp4", video),
        ("list.json", b"[1]"),
        ("broken.mp4", video),
        ("broken.json", b"{"),
        ("deep.mp4", video),
        ("deep.json", b'{"caption": "x", "a": ' + b"[" * 900 + b"]" * 900 + b"}"),
        ("huge.mp4", video),
        ("huge.txt", b"x" * 2_000_000),
        ("long.mp4", video),
        ("long.txt", b"x" * 20_000),
        ("much.mp4", video),
        ("much.json", json.dumps({"caption": "x", "subtitles": "y" * 200_000, "n": 1}).encode()),
        ("good.mp4", video),  # the key comes again
        ("good.txt", b"again"),
        ("nothing.mp4", b""),
        ("nothing.txt", b"no bytes"),
        ("a folder/x.y.npy", b"\0"),
        ("README", b"hello"),
    ]
    manifest = read_manifest(write_tar(tmp_path / "00000.tar", members))
    assert [row.id for row in manifest.rows] == ["good", "much", "nothing"]
    assert manifest.rows[1].extra == {"n": 1}  # its subtitles are too much, and no reason to lose it
    found = [(reject.id, reject.reason.split(" (")[0]) for reject in manifest.rejects]
    assert found == [
        ("mute", "empty caption"),
        ("empty", "empty caption"),
        ("gone", "not found: the tar has no video or picture named gone"),
        ("latin", "bad text: its .txt is not UTF-8"),
        ("list", "bad text: its .json is not a JSON object"),
        ("broken", "bad text: its .json is not JSON"),
        ("deep", "bad row: its lists are nested too deeply"),
        ("huge", "too much text: its .txt has 2,000,000 bytes, more than 1,048,576"),
        ("long", "enormous caption: 20,000 characters, more than 10,000"),
        ("good", "duplicate id: 'good' is line 1's"),
    ]
    assert decoded(manifest.rows[2], manifest.root) == {"rejected": "empty file: 0 bytes"}


def test_names_with_several_dots(tmp_path, video):
    members = [("clip.v1.mp4", video), ("clip.v1.txt", b"one"), ("clip.v2.mp4", video)]
    members += [("Mr. Bean.mp4", video), ("Mr. Bean.txt", b"two"), ("b.rgb.mp4", video), ("b.txt", b"three")]
    members += [("a.left.jpg", picture(1)), ("a.mp4", video), ("a.txt", b"x"), ("a.mask.png", b""), ("a.en.txt", b"y")]
    members += [("c.left.jpg", picture(1)), ("c.txt", b"z")]
    manifest = read_manifest(write_tar(tmp_path / "0.tar", members))
    captions = {"clip.v1": "one", "Mr. Bean": "two", "b.rgb": "three", "a": "x"}
    assert {row.id: row.captions for row in manifest.rows} == {name: (said,) for name, said in captions.items()}
    assert all(decoded(row, manifest.root)["numbers"] == [5, 15, 25, 35] for row in manifest.rows)
    assert reasons(manifest) == {
        "clip.v2": "empty caption",
        "c.left": "bad member: its name has more than one dot, and the key ends at the first one: rename it",
    }


def test_a_tar_whose_members_are_in_another_order(tmp_path, video):
    keys = [f"{number:03d}" for number in range(6)]
    for kinds in (("mp4", "txt", "json"), ("txt", "json", "mp4"), ("json", "mp4", "txt")):
        parts = {
            kind: [member for key in keys for member in sample(key, video) if member[0].endswith(kind)]
            for kind in kinds
        }
        manifest = read_manifest(write_tar(tmp_path / "0.tar", [one for kind in kinds for one in parts[kind]]))
        assert manifest.rejects == []
        assert [(row.id, row.captions) for row in manifest.rows] == [(key, (f"a clip named {key}",)) for key in keys]
        assert [row.extra["key"] for row in manifest.rows] == keys
        assert decoded(manifest.rows[4], manifest.root)["numbers"] == [5, 15, 25, 35]


def test_a_key_that_is_apart_does_not_change_the_order(tmp_path, video):
    a, b, c = (sample(key, video) for key in "abc")
    manifest = read_manifest(write_tar(tmp_path / "0.tar", [*a, b[0], *c, *b[1:], a[0], a[1]]))
    assert [row.id for row in manifest.rows] == ["a", "b", "c"]
    assert reasons(manifest)["a"].startswith("duplicate id: 'a' is line 1's")  # it comes a second time


def test_a_text_long_after_its_clip_is_named(tmp_path, video, monkeypatch):
    monkeypatch.setattr(webdataset, "_MAX_HELD", 1_000)  # bytes: two or three members
    keys = [f"{number:03d}" for number in range(4)]
    members = [(f"{key}.mp4", video) for key in keys] + [(f"{key}.txt", b"x") for key in keys]
    manifest = read_manifest(write_tar(tmp_path / "0.tar", members))
    late = "bad member: its clip comes long before it: pack the files of a key together (tar --sort=name)"
    found = [(reject.id, reject.reason) for reject in manifest.rejects]
    assert ("000", "empty caption") in found
    assert ("000", late) in found
    assert len(found) + len(manifest.rows) >= 4


def test_a_second_file_of_the_same_name_is_named(tmp_path, video):
    other = write_tar(tmp_path / "x.tar", [])
    members = [("a.mp4", video), ("a.mp4", b"other"), ("a.txt", b"x"), ("a.txt", b"y"), ("a.jpg", b""), ("a.gif", b"")]
    members += [("b.webm", b""), ("b.mp4", video), ("b.txt", b"z")]
    manifest = read_manifest(write_tar(other, members))
    assert [(row.id, row.captions) for row in manifest.rows] == [("a", ("x",)), ("b", ("z",))]
    assert [reject.reason for reject in manifest.rejects] == [
        "bad member: a second a.mp4; the first one is used",
        "bad member: a second a.txt; the first one is used",
        "bad member: the clip of this name is b.mp4",
    ]
    assert all(decoded(row, manifest.root)["numbers"] == [5, 15, 25, 35] for row in manifest.rows)


@pytest.mark.parametrize(("mode", "kind"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_a_compressed_tar_that_is_named_tar_costs_itself_only(tmp_path, video, mode, kind):
    with tarfile.open(tmp_path / "0.tar", mode) as tar:
        tar.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    write_tar(tmp_path / "1.tar", sample("b", video))
    manifest = read_manifest(tmp_path)
    assert [row.id for row in manifest.rows] == ["b"]
    why = f"compressed: it is a {kind} file, and clips are read from inside a tar: decompress it first"
    assert reasons(manifest) == {"0.tar": why}


def test_a_member_whose_name_is_no_utf_8(tmp_path, video):
    members = [("Jos\udce9.mp4", video), ("Jos\udce9.txt", b"x"), *sample("b", video)]
    path = write_tar(tmp_path / "0.tar", members, encoding="utf-8", errors="surrogateescape", format=tarfile.GNU_FORMAT)
    manifest = read_manifest(path)
    assert [row.id for row in manifest.rows] == ["b"]
    assert [(one.id, one.reason) for one in manifest.rejects] == [
        ("Jos\\udce9", "bad member: its name is not UTF-8 (byte 0xe9)")
    ] * 2


def test_what_macos_adds_to_a_tar_parts_no_key(tmp_path, video):
    names = ("._a.mp4", "a.mp4", "._a.txt", "a.txt", "d/b\u202fc.mp4", "d/._b\u202fc.txt", "d/b\u202fc.txt")
    manifest = read_manifest(
        write_tar(tmp_path / "0.tar", [(name, video if "mp4" in name else b"x") for name in names])
    )
    assert [row.id for row in manifest.rows] == ["a", "b\u202fc"]
    assert manifest.rejects == []


def test_a_key_of_endless_endings_takes_no_memory(tmp_path, video):
    members = [("a.mp4", video), ("a.txt", b"x"), *((f"a.{number}.npy", b"") for number in range(2_000))]
    write_tar(tmp_path / "0.tar", members)
    tracemalloc.start()
    assert [row.id for row in read_manifest(tmp_path / "0.tar").rows] == ["a"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 600_000


def test_tars_one_behind_the_other_in_a_file(tmp_path, video):
    parts = [write_tar(tmp_path / f"{key}.tar", sample(key, video)).read_bytes() for key in "ab"]
    (tmp_path / "both.tar").write_bytes(b"".join(parts))
    manifest = read_manifest(tmp_path / "both.tar")
    assert [row.id for row in manifest.rows] == ["a"]
    assert reasons(manifest)["both.tar"].startswith("damaged: there is data after its end mark, perhaps another tar")


def test_what_a_folder_is_taken_for(tmp_path, video):
    for name in ("videos.tar", "mixed", "videos/deep", "tars"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("videos.tar/a.mp4", "videos/deep/b.mp4", "mixed/c.mp4"):
        (tmp_path / name).write_bytes(video)
        (tmp_path / name).with_suffix(".txt").write_text("x")
    assert [row.id for row in read_manifest(tmp_path / "videos.tar").rows] == ["a"]  # a folder, whatever its name
    (tmp_path / "videos" / "backup.tar.gz").write_bytes(b"x")
    assert [row.id for row in read_manifest(tmp_path / "videos").rows] == ["b"]
    write_tar(tmp_path / "mixed" / "0.tar", sample("k", video))
    with pytest.raises(DataError, match=r"mixed has tars and videos \('c\.mp4'\): name the files that are meant"):
        read_manifest(tmp_path / "mixed")
    write_tar(tmp_path / "tars" / "0.tar", sample("k", video))
    (tmp_path / "tars" / "1.tar.gz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"1\.tar\.gz is compressed"):
        read_manifest(tmp_path / "tars")
    (tmp_path / "tars" / "1.tar.gz").unlink()
    write_dataset(tmp_path / "tars", {"video": BYTES, "caption": TEXT}, {"x": [example(video=[video], caption=["y"])]})
    assert [row.split for row in read_manifest(tmp_path / "tars").rows] == ["x"]  # a dataset, whatever else lies there


def test_the_same_keys_in_two_tars_are_told_apart(tmp_path, video):
    for name in ("00000", "00001"):
        write_tar(tmp_path / f"{name}.tar", sample("0", video))
    assert [row.id for row in read_manifest(tmp_path).rows] == ["0", "00001.tar/0"]


def test_an_evaluation_is_not_of_the_clips_in_a_tar(tmp_path, video):
    # they would all be one clip to it: the tar
    write_tar(tmp_path / "0.tar", sample("a", video) + sample("b", video))
    with pytest.raises(DataError, match=r"0\.tar holds packed clips, and scores are of video files: make shards of it"):
        open_set(DataSettings(str(tmp_path / "0.tar"), root="", shards="", split="", workers=1))
