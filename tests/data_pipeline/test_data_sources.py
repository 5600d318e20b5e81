"""Clips out of tars, folders and TFDS datasets: found, checked, decoded in a worker from where they lie."""

import dataclasses
import io
import json
import os
import resource
import struct
import subprocess
import sys
import tarfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import simplejpeg
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.worker import run_task
from data_pipeline.manifest.read import Manifest, iter_manifest, read_manifest
from data_pipeline.manifest.rows import ClipRow
from data_pipeline.media_paths import FilePart
from data_pipeline.prepare.split import write_split
from data_pipeline.shards import shard_format
from data_pipeline.shards.shard_format import Record, open_shards, parse
from data_pipeline.sources import media_folder, record_texts
from data_pipeline.sources.tfds_fields import ClipFieldNames
from data_pipeline.sources.tfrecord import masked_crc32c
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate.evaluation_set import open_set
from harvest_jax.evaluate.settings import DataSettings
from tests.helpers.video_files import numbered_frames, read_number, write_video

SPEC = {"num_frames": 4, "short_side": 32}


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> bytes:
    return write_video(tmp_path_factory.mktemp("videos") / "good.mp4", numbered_frames(40)).read_bytes()


def picture(number: int) -> bytes:
    return simplejpeg.encode_jpeg(numbered_frames(number + 1)[number], quality=95)


def decoded(row: ClipRow, root: Path, **spec: int) -> dict[str, Any]:
    """What a worker answers for a row: its header, and the numbers read in the frames of the record."""
    task = dataclasses.asdict(row)
    record = {"id": row.id, "captions": row.captions, "extra": row.extra}
    task = json.loads(json.dumps(task | {"root": str(root), "spec": SPEC | spec, "record": record}))
    header, payload = run_task(task)
    if "rejected" in header:
        return header
    stored = parse(payload)
    frames = [simplejpeg.decode_jpeg(jpeg, "RGB") for jpeg in stored.jpegs]
    return {"record": stored, "numbers": [read_number(frame) for frame in frames]}


def reasons(manifest: Manifest) -> dict[str, str]:
    return {reject.id: reject.reason for reject in manifest.rejects}


def only_reason(manifest: Manifest) -> str:
    (reject,) = manifest.rejects
    return reject.reason


# ---- WebDataset tars


def write_tar(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def sample(key: str, video: bytes, kind: str = "mp4", **columns: Any) -> list[tuple[str, bytes]]:
    columns = {"key": key, "status": "success", "caption": f"a clip named {key}"} | columns
    return [
        (f"{key}.{kind}", video),
        (f"{key}.txt", str(columns["caption"]).encode()),
        (f"{key}.json", json.dumps(columns).encode()),
    ]


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
    with pytest.raises(DataError, match=r"00000\.tar does not lie below .*: give --root a folder that holds it"):
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
            DataError, match=r"is compressed, and clips are read where they lie: unpack it .* \(gunzip\)"
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
        ("deep", "bad row: lists within lists within lists, too deep to be read"),
        ("huge", "too much text: its .txt has 2,000,000 bytes, more than 1,048,576"),
        ("long", "enormous caption: 20,000 characters, more than 10,000"),
        ("good", "duplicate id: 'good' is line 1's"),
    ]
    assert decoded(manifest.rows[2], manifest.root) == {"rejected": "empty file: 0 bytes"}


def test_names_that_a_key_cannot_be_made_of(tmp_path, video):
    members = [(name, video) for name in ("clip.v1.mp4", "clip.v1.txt", "clip.v2.mp4", "Mr. Bean.mp4", "Mr. Bean.txt")]
    members += [("a.left.jpg", picture(1)), ("a.mp4", video), ("a.txt", b"x"), ("a.mask.png", b"")]
    manifest = read_manifest(write_tar(tmp_path / "0.tar", members))
    assert [row.id for row in manifest.rows] == ["a"]
    reason = "bad member: its name has more than one dot, and a clip's key ends at the first: rename it"
    assert reasons(manifest) == dict.fromkeys(["clip.v1", "clip.v2", "Mr. Bean"], reason)


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
    assert reasons(manifest)["both.tar"].startswith("damaged: there is more behind the mark at its end, of another tar")


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
    with pytest.raises(DataError, match=r"mixed holds tars and beside them videos \('c\.mp4'\): give them one by one"):
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


def hostile_members() -> list[tarfile.TarInfo]:
    infos = []
    for name, kind in (
        ("link.mp4", tarfile.SYMTYPE),
        ("hard.mp4", tarfile.LNKTYPE),
        ("disk.mp4", tarfile.BLKTYPE),
        ("tty.mp4", tarfile.CHRTYPE),
        ("pipe.mp4", tarfile.FIFOTYPE),
        ("/etc/absolute.mp4", tarfile.REGTYPE),
        ("../up.mp4", tarfile.REGTYPE),
        ("a/../../up2.mp4", tarfile.REGTYPE),
        ("con\trol.mp4", tarfile.REGTYPE),
    ):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        infos.append(info)
    return infos


def test_members_that_are_traps_are_rejected_one_by_one(tmp_path, video):
    path = tmp_path / "00000.tar"
    with tarfile.open(path, "w") as tar:
        for info in hostile_members():
            tar.addfile(info, io.BytesIO())
        for name, content in sample("good", video):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    manifest = read_manifest(path)
    assert [row.id for row in manifest.rows] == ["good"]
    assert [reject.reason for reject in manifest.rejects] == [
        *["bad member: a link; only plain files are read"] * 2,
        *["bad member: a device, a pipe or something unknown; only plain files are read"] * 3,
        *["bad member: its name leads out of the tar"] * 3,
        "bad member: its name is longer than 4,096 characters or holds control characters",
    ]
    assert decoded(manifest.rows[0], tmp_path)["numbers"] == [5, 15, 25, 35]


def test_a_sparse_member_is_rejected(tmp_path, video):
    with (tmp_path / "sparse.mp4").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"x")
    command = ["tar", "--sparse", "--format=gnu", "-C", str(tmp_path), "-cf", str(tmp_path / "0.tar"), "sparse.mp4"]
    subprocess.run(command, check=True)
    assert reasons(read_manifest(tmp_path / "0.tar")) == {
        "sparse": "bad member: a sparse file; only plain files are read"
    }


def test_a_tar_that_is_cut_off_gives_what_came_before(tmp_path, video):
    whole = write_tar(tmp_path / "whole.tar", sample("a", video) + sample("b", video)).read_bytes()
    begin_of_b = whole.index(b"b.mp4")
    sound = -(-len(whole.rstrip(b"\0")) // 512) * 512
    for length, message in (
        (begin_of_b + 512 + len(video) // 2, "cut off: 'b.mp4' ends behind the end of the file"),
        (begin_of_b, "cut off: the mark at the end of a tar is missing"),
        (begin_of_b + 100, "damaged: "),
        (sound + 100, "cut off: the mark at the end of a tar is missing"),
    ):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / "00000.tar").write_bytes(whole[:length])
        write_tar(folder / "00001.tar", sample("c", video))
        manifest = read_manifest(folder)
        assert manifest.rows[-1].id == "c"
        assert manifest.rows[0].id == ("a" if length > begin_of_b - 1 else "c")
        assert reasons(manifest)["00000.tar"].startswith(message), length
        assert reasons(manifest)["00000.tar"].endswith("(all clips before that are used)")


def checksummed(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_rubbish_bombs_and_headers_that_lead_backwards(tmp_path, video):
    good = write_tar(tmp_path / "good.tar", sample("a", video)).read_bytes()
    end = bytes(1024)
    body = good[: good.rindex(b"}") + 1]
    body += bytes(-len(body) % 512)

    def header(name: bytes, kind: bytes, size: bytes) -> bytes:
        block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
        block[:100] = name.ljust(100, b"\0")
        block[156:157], block[124:136] = kind, size
        return checksummed(block)

    def pax(*texts: bytes) -> bytes:
        record = b"".join(b"%d %s\n" % (len(text) + (4 if len(text) < 96 else 5), text) for text in texts)
        return header(b"pax", b"x", b"%011o\0" % len(record)) + record.ljust(512, b"\0")

    huge = b"\x80" + struct.pack(">Q", 1 << 40).rjust(11, b"\0")
    negative = b"\xff" + struct.pack(">q", -1024).rjust(11, b"\xff")
    tails = {
        "rubbish": (b"rubbish".ljust(512, b"!"), "damaged: "),
        "a long pax header": (header(b"pax", b"x", huge), "damaged: a member's headers ask for 1,099,511,627,776 b"),
        "a long global header": (header(b"pax", b"g", huge), "damaged: a member's headers ask for 1,099,511,627,776 b"),
        "a long name": (header(b"name", b"L", huge), "damaged: a member's headers ask for "),
        "a member of a terabyte": (header(b"b.mp4", b"0", huge), "cut off: 'b.mp4' ends behind the end"),
        "a negative size": (header(b"b.mp4", b"0", negative), "damaged: "),
        "a negative size by pax": (pax(b"size=-512") + header(b"b.mp4", b"0", b"%011o\0" % 0), "damaged: "),
        "a size of letters by pax": (pax(b"size=many") + header(b"b.mp4", b"0", b"%011o\0" % 0), ""),
        "a pax header that repeats": (pax(b"a=1") * 2000, "damaged: "),
        "a map of a sparse file without end": (
            pax(b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.name=b.mp4", b"GNU.sparse.realsize=5")
            + header(b"b.mp4", b"0", b"%011o\0" % (1 << 20))
            + b"9999999999\n"
            + b"1000\n" * ((1 << 20) // 5),
            "damaged: a member's headers ask for 512 bytes, and all may have 65,536",
        ),
    }
    for name, (tail, message) in tails.items():
        (tmp_path / "t.tar").write_bytes(body + tail + end)
        manifest = read_manifest(tmp_path / "t.tar")
        assert [row.id for row in manifest.rows] == ["a"], name
        if message:
            assert reasons(manifest)["t.tar"].startswith(message), name
    for content, message in (
        (b"", "empty file"),
        (b"no tar at all" * 100, "damaged: "),
        (b"\x1f\x8b" + bytes(600), "damaged"),
    ):
        (tmp_path / "t.tar").write_bytes(content)
        (reject,) = read_manifest(tmp_path / "t.tar").rejects
        assert reject.reason.startswith(message)
    (tmp_path / "t.tar").write_bytes(end)
    with pytest.raises(DataError, match=r"t\.tar has no rows"):
        read_manifest(tmp_path / "t.tar")


def test_a_tar_that_changed_since_it_was_listed(tmp_path, video):
    path = write_tar(tmp_path / "00000.tar", sample("a", video))
    (row,) = read_manifest(path).rows
    with path.open("r+b") as file:
        file.truncate(len(video) // 2)
    assert decoded(row, tmp_path)["rejected"].startswith("cut off: the file ends before byte")
    path.unlink()
    (tmp_path.parent / "secret.mp4").write_bytes(video)
    path.symlink_to(tmp_path.parent / "secret.mp4")
    assert decoded(row, tmp_path)["rejected"].startswith("bad path: a link leads out of the root")
    whole = dataclasses.replace(row, part=FilePart(offset=0, size=1 << 40))
    path.unlink()
    path.write_bytes(video)
    assert decoded(whole, tmp_path)["rejected"].startswith("too large: ")
    assert decoded(dataclasses.replace(row, part=FilePart(offset=-5, size=10)), tmp_path)["rejected"].startswith(
        "cut off"
    )


def test_a_playlist_in_a_tar_reads_no_other_file(tmp_path, video):
    (tmp_path / "canary.mp4").write_bytes(video)
    for number, text in enumerate(("ffconcat version 1.0\nfile canary.mp4\n", "#EXTM3U\n#EXTINF:5,\ncanary.mp4\n")):
        write_tar(tmp_path / f"{number}.tar", sample("a", text.encode()))
        (row,) = read_manifest(tmp_path / f"{number}.tar").rows
        assert decoded(row, tmp_path)["rejected"].startswith("not a video: ")


def test_an_evaluation_is_not_of_the_clips_in_a_tar(tmp_path, video):
    # they would all be one clip to it: the tar
    write_tar(tmp_path / "0.tar", sample("a", video) + sample("b", video))
    with pytest.raises(DataError, match=r"0\.tar holds packed clips, and scores are of video files: make shards of it"):
        open_set(DataSettings(str(tmp_path / "0.tar"), root="", shards="", split="", workers=1))


# ---- folders


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


NAMES = (
    "Interstellar: trailer",
    "subfile,a",
    "Recording 10.00.00\u202fAM",
    "\u65e5\u672c\u3000\u8a9e",
    "a\u200db\xa0c",
)


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
    assert len(list(media_folder.read_lines(tmp_path, ".", str(tmp_path)))) == 12_000
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


# ---- TFDS datasets

TEXT = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}
IMAGE = {"pythonClassName": "tensorflow_datasets.core.features.image_feature.Image", "image": {"dtype": "uint8"}}
VIDEO = {"pythonClassName": "tensorflow_datasets.core.features.video_feature.Video", "video": {"dtype": "uint8"}}
BYTES = {"pythonClassName": "x.tensor_feature.Tensor", "tensor": {"dtype": "string", "encoding": "none", "shape": {}}}
LABEL = {"pythonClassName": "x.class_label_feature.ClassLabel", "classLabel": {"numClasses": "9"}}
RAW = {"pythonClassName": "x.tensor_feature.Tensor", "tensor": {"dtype": "uint8", "shape": {"dimensions": ["-1", "8"]}}}


def listed(feature: dict[str, Any]) -> dict[str, Any]:
    return {"pythonClassName": "x.sequence_feature.Sequence", "sequence": {"feature": feature, "length": "-1"}}


def group(**features: Any) -> dict[str, Any]:
    return {"pythonClassName": "x.features_dict.FeaturesDict", "featuresDict": {"features": features}}


def example(**fields: list[Any]) -> bytes:
    features = {}
    for name, values in fields.items():
        if values and isinstance(values[0], int):
            features[name] = tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=values))
        else:
            raw = [value.encode() if isinstance(value, str) else value for value in values]
            features[name] = tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=raw))
    return tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=features)).SerializeToString()


def tfrecord(records: list[bytes]) -> bytes:
    heads = [struct.pack("<Q", len(record)) for record in records]
    parts = zip(heads, records, strict=True)
    return b"".join(head + struct.pack("<I", masked_crc32c(head)) + record + b"\0\0\0\0" for head, record in parts)


def write_dataset(
    folder: Path, features: dict[str, Any], splits: dict[str, list[bytes]], kind: str = "array_record"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    described = []
    for split, records in splits.items():
        path = folder / f"theirs-{split}.{kind}-00000-of-00001"
        if kind == "tfrecord":
            path.write_bytes(tfrecord(records))
        else:
            writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
            for record in records:
                writer.write(record)
            writer.close()
        described.append({"name": split, "shardLengths": [str(len(records))], "numBytes": "1"})
    info = {"name": "theirs", "version": "1.0.0", "fileFormat": kind, "splits": described}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(group(**features)))
    return folder


def test_the_checksum_of_a_length_is_tfrecord_s():
    # the header of a record of 0 bytes as TensorFlow writes it, and CRC-32C's own check value
    assert struct.pack("<I", masked_crc32c(bytes(8))).hex() == "29039807"
    assert masked_crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_a_dataset_of_encoded_videos(tmp_path, video, kind):
    records = [
        example(video=[video], caption=["a", "b"], video_id=[f"v{number}"], views=[number]) for number in range(3)
    ]
    features = {"video": BYTES, "caption": listed(TEXT), "video_id": TEXT, "views": LABEL}
    folder = write_dataset(tmp_path / "1.0.0", features, {"train": records[:2], "val": records[2:]}, kind)
    manifest = read_manifest(folder)
    assert [(row.id, row.captions, row.split, row.extra) for row in manifest.rows] == [
        ("v0", ("a", "b"), "train", {"views": 0}),
        ("v1", ("a", "b"), "train", {"views": 1}),
        ("v2", ("a", "b"), "val", {"views": 2}),
    ]
    assert [decoded(row, manifest.root)["numbers"] for row in manifest.rows] == [[5, 15, 25, 35]] * 3
    assert [row.id for row in read_manifest(folder, split="val").rows] == ["v2"]
    with pytest.raises(DataError, match="has no split 'test'; it has train, val"):
        read_manifest(folder, split="test")


@pytest.mark.parametrize("feature", [VIDEO, listed(IMAGE)])
def test_a_dataset_of_pictures_in_a_row(tmp_path, feature):
    pictures = [picture(number) for number in range(8)]
    records = [example(frames=pictures, title=["x"], label=[3])]
    folder = write_dataset(
        tmp_path / "d", {"frames": feature, "title": TEXT, "label": LABEL, "raw": RAW}, {"train": records}
    )
    (row,) = read_manifest(folder, root=tmp_path).rows
    assert (row.id, row.video) == ("00000-0", "d/theirs-train.array_record-00000-of-00001")
    found = decoded(row, tmp_path)
    assert found["numbers"] == [1, 3, 5, 7]
    assert found["record"].seconds == (1.0, 3.0, 5.0, 7.0)
    assert (found["record"].width, found["record"].height) == (64, 48)
    assert found["record"].extra == {"label": 3}
    assert decoded(row, tmp_path, min_frames=4, num_frames=16)["numbers"] == list(range(8))


def test_a_dataset_of_single_pictures(tmp_path):
    features = {"image": IMAGE, "image_text": group(caption=listed(TEXT), caption_id=TEXT)}
    fields = {"image": [picture(3)], "image_text/caption": ["x"], "image_text/caption_id": ["1"]}
    folder = write_dataset(tmp_path, features, {"train": [example(**fields)]})
    (row,) = read_manifest(folder).rows
    assert (row.captions, row.extra) == (("x",), {"image_text/caption_id": "1"})
    assert decoded(row, tmp_path)["numbers"] == [3]


def test_which_field_is_the_clip_must_be_clear(tmp_path, video):
    features = {"left": VIDEO, "right": VIDEO, "en": TEXT, "de": TEXT}
    fields = {"left": [picture(1)], "right": [picture(2)], "en": ["a dog"], "de": ["ein Hund"]}
    folder = write_dataset(tmp_path, features, {"train": [example(**fields)]})
    with pytest.raises(
        DataError, match=r"the clip \(.*\) may be any of left, right: say which by --fields video=NAME,"
    ):
        read_manifest(folder)
    with pytest.raises(DataError, match="the caption may be any of de, en: say which by --fields"):
        list(iter_manifest([folder], fields="video=left"))
    with pytest.raises(ConfigError, match=r"--fields video=up: .* has no field 'up'; it has de, en, left, right"):
        list(iter_manifest([folder], fields="video=up"))
    with pytest.raises(ConfigError, match="write it like video=NAME,caption=NAME,id=NAME"):
        list(iter_manifest([folder], fields="frames"))
    (row,) = iter_manifest([folder], fields="video=right,caption=de")
    assert isinstance(row, ClipRow)
    assert row.captions == ("ein Hund",)
    assert decoded(row, tmp_path)["numbers"] == [2]
    write_dataset(folder, {"raw": RAW, "en": TEXT}, {"train": [example(en=["x"])]})
    with pytest.raises(DataError, match=r"no field looks like a clip \(.*\); there are en, raw"):
        read_manifest(folder)


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_a_damaged_dataset_gives_what_is_sound(tmp_path, video, kind):
    features = {"video": BYTES, "caption": TEXT}
    good = example(video=[video], caption=["x"])
    bad = [b"\xff\xff\xff", example(caption=["x"]), example(video=[video]), example(video=[video], caption=[b"\xff"])]
    folder = write_dataset(tmp_path / "d", features, {"train": [good, *bad, good]}, kind)
    manifest = read_manifest(folder)
    assert [row.id for row in manifest.rows] == ["00000-0", "00000-2", "00000-5"]
    assert [reject.reason for reject in manifest.rejects] == [
        "bad row: it is no tf.train.Example with UTF-8 texts",
        "empty caption",
        "bad row: it is no tf.train.Example with UTF-8 texts",
    ]
    assert decoded(manifest.rows[1], manifest.root) == {"rejected": "damaged: the record has no video"}
    (file,) = folder.glob("theirs-train*")
    if kind == "tfrecord":  # a length that is not what was written leads nowhere
        data = bytearray(file.read_bytes())
        data[len(good) + 16] ^= 1
        file.write_bytes(data)
        assert read_manifest(folder).rejects[-1].reason.startswith("damaged: there is no TFRecord at byte")
        data[len(good) + 16] ^= 1
        file.write_bytes(data)
    file.write_bytes(file.read_bytes()[: len(good) * 2])
    manifest = read_manifest(folder)
    reason = manifest.rejects[-1].reason
    assert reason.startswith(("cut off: ", "damaged: "))
    assert reason.endswith("(all clips before that are used)")
    assert decoded(ClipRow("a", file.name, ("x",), "train", part=FilePart(record=99, field="video")), folder)[
        "rejected"
    ]
    file.unlink()
    with pytest.raises(DataError, match=r"lacks 1 of 1 files, the first is theirs-train\."):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset_info.json", b"{", "dataset_info.json is damaged"),
        ("dataset_info.json", b'{"name": "x", "splits": [{"name": "train", "shardLengths": ["many"]}]}', "is damaged"),
        (
            "dataset_info.json",
            b'{"name": "../x", "splits": [{"name": "a", "shardLengths": ["1"]}]}',
            "no name of a file",
        ),
        ("dataset_info.json", b'{"name": "x", "fileFormat": "riegeli", "splits": []}', "is stored as 'riegeli'"),
        ("dataset_info.json", b'{"name": "x", "splits": [{"name": "a", "shardLengths": [Infinity]}]}', "is damaged"),
        (
            "dataset_info.json",
            b'{"name": "%s", "splits": [{"name": "a", "shardLengths": [1]}]}' % (b"x" * 5000),
            "'x{100}' is no name of a file",
        ),
        (
            "dataset_info.json",
            b'{"name": "x", "splits": [{"name": "a", "shardLengths": [1]}, {"name": "../up", "shardLengths": [1]}]}',
            r"'x-\.\./up\.tfrecord-00000-of-00001' is no name of a file",
        ),
        ("features.json", b"[]", "features.json is damaged, or of a TFDS older than"),
        ("features.json", b'{"featuresDict": {"features": {"a": 5}}}', "features.json is damaged"),
        ("features.json", None, "features.json is missing"),
    ],
)
def test_a_dataset_that_does_not_describe_itself(tmp_path, name, content, message):
    folder = write_dataset(tmp_path, {"video": BYTES, "caption": TEXT}, {"train": [example()]})
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(folder)
    assert "\n" not in str(caught.value)


def theirs(folder: Path, records: list[bytes], kind: str = "tfrecord") -> Path:
    """A dataset of videos with captions; returns its only file."""
    write_dataset(folder, {"video": BYTES, "caption": TEXT, "id": TEXT}, {"train": records}, kind)
    (file,) = folder.glob("theirs-train*")
    return file


def test_a_dataset_whose_files_are_named_by_a_template(tmp_path, video):
    file = theirs(tmp_path, [example(video=[video], caption=["x"])])
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    info["splits"][0]["filepathTemplate"] = "{SPLIT}_{SHARD_INDEX}_{NUM_SHARDS}.{FILEFORMAT}"
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    file.rename(tmp_path / "train_00000_00001.tfrecord")
    assert [row.id for row in read_manifest(tmp_path).rows] == ["00000-0"]


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_a_shard_that_is_a_link_out_is_not_read(tmp_path, video, kind):
    secret = theirs(tmp_path / "secret", [example(video=[video], caption=["secret"], id=["secret"])], kind)
    file = theirs(tmp_path / "d", [example(video=[video], caption=["mine"], id=["mine"])], kind)
    file.unlink()
    file.symlink_to(secret)
    manifest = read_manifest(tmp_path / "d")
    assert manifest.rows == []
    reason = "bad path: a link leads out of the root; only files below the root are read"
    assert reasons(manifest) == {file.name: reason}


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_a_record_that_is_too_large_is_one_reject(tmp_path, video, kind):
    small = [example(video=[video], caption=["x"], id=[name]) for name in "ab"]
    theirs(tmp_path, [small[0], example(video=[bytes(65 << 20)], caption=["x"]), small[1]], kind)
    manifest = read_manifest(tmp_path)
    assert [row.id for row in manifest.rows] == ["a", "b"]
    assert only_reason(manifest) == "too large: a record of more than 67,108,864 bytes"


def test_a_record_that_unfolds_to_gigabytes_costs_its_own_file(tmp_path, video):
    small = example(video=[video], caption=["x"])
    file = theirs(tmp_path, [small], "array_record")
    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1,zstd:1")
    writer.write(small)
    writer.write(bytes(1900 << 20))
    writer.close()
    assert file.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    manifest = read_manifest(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert [row.id for row in manifest.rows] == ["00000-0"]
    assert only_reason(manifest).startswith("crash: the process that reads them ended at the next, of too much memory")


def test_numbers_that_unfold_cost_their_own_file(tmp_path, video):
    zeros = tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[0] * (1 << 20)))
    message = tf_example_pb2.Example.FromString(example(video=[video], caption=["x"]))
    message.features.feature["z"].CopyFrom(zeros)
    theirs(tmp_path, [message.SerializeToString(), example(video=[video], caption=["word"] * 400_000)])
    manifest = read_manifest(tmp_path)
    assert [row.id for row in manifest.rows] == ["00000-0"]
    assert only_reason(manifest) == "too much text: the record's texts have more than 1,048,576 bytes"


def test_records_in_groups_are_read_in_their_order(tmp_path):
    raw = example(video=[os.urandom(40_000)], caption=["x"])
    file = theirs(tmp_path, [raw], "array_record")
    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1024")
    for _ in range(1024):
        writer.write(raw)
    writer.close()
    began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with record_texts.TextReader("array_record", ClipFieldNames("video", "caption", None, ())) as reader:
        lines = list(reader.read(str(file)))
    assert [line.part.record for line in lines] == list(range(1024))
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began < 6


def test_shards_of_ours_in_another_format_are_refused(tmp_path, video):
    (tmp_path / "a.mp4").write_bytes(video)
    write_split([ClipRow("a", "a.mp4", ("x",), "x")], tmp_path, tmp_path / "s", "train", DecodeSpec(num_frames=2))
    info = (tmp_path / "s" / "dataset_info.json").read_text()
    (tmp_path / "s" / "dataset_info.json").write_text(info.replace('"1.0.0"', '"2.0.0"'))
    with pytest.raises(DataError, match=r"was written in format 2\.0\.0, this version reads 1"):
        read_manifest(tmp_path / "s")


def test_a_turned_picture_is_not_stored_as_it_is(tmp_path):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(numbered_frames(3, 48, 48)[2]).transpose(Image.Transpose.ROTATE_90)
    image.save(file, "JPEG", quality=95, subsampling=2, exif=exif)
    record = Record("a", ("x",), (file.getvalue(),), (0.0,), 48, 48, {})
    write_dataset(tmp_path, {"jpegs": listed(IMAGE), "captions": TEXT}, {"train": [shard_format.encode(record)]})
    (row,) = read_manifest(tmp_path).rows
    assert decoded(row, tmp_path, short_side=48)["numbers"] == [2]


def test_our_own_shards_are_a_source_and_lose_nothing(tmp_path, video):
    (tmp_path / "a.mp4").write_bytes(video)
    rows = [
        ClipRow("a", "a.mp4", ("one", "two"), "x", 1.0, 3.0, {"n": 1, "s": "t"}),
        ClipRow("b", "a.mp4", ("three",), "x"),
    ]
    write_split(rows, tmp_path, tmp_path / "first", "val", DecodeSpec(num_frames=8))
    manifest = read_manifest(tmp_path / "first")
    assert [(row.id, row.captions, row.split, row.extra) for row in sorted(manifest.rows, key=lambda row: row.id)] == [
        ("a", ("one", "two"), "val", {"n": 1, "s": "t"}),
        ("b", ("three",), "val", {}),
    ]
    source = open_shards(tmp_path / "first", "val")
    before = {record.id: record for record in (parse(source[index]) for index in range(len(source)))}
    for row in manifest.rows:
        assert decoded(row, manifest.root, num_frames=8, short_side=64)["record"] == before[row.id]
        fewer = decoded(row, manifest.root, num_frames=4, short_side=64)["record"]
        assert fewer.jpegs == before[row.id].jpegs[1::2]
        assert fewer.seconds == before[row.id].seconds[1::2]
        smaller = decoded(row, manifest.root, short_side=24)["record"]
        assert (smaller.width, smaller.height) == (64, 48)
        assert simplejpeg.decode_jpeg_header(smaller.jpegs[0])[:2] == (24, 32)
    with pytest.raises(ConfigError, match="its fields are known"):
        list(iter_manifest([tmp_path / "first"], fields="video=jpegs"))


def test_a_record_of_ours_with_other_columns_than_ours(tmp_path):
    record = Record("a", ("x",), (picture(0),), (0.0,), 64, 48, {})
    message = tf_example_pb2.Example.FromString(shard_format.encode(record))
    message.features.feature["extra"].bytes_list.value[0] = b"[1]"
    raw = message.SerializeToString()
    folder = write_dataset(tmp_path, {}, {"train": [raw, b"", shard_format.encode(record)]})
    info = (folder / "dataset_info.json").read_text().replace("theirs", "harvest_clips")
    (folder / "dataset_info.json").write_text(info)
    (file,) = folder.glob("theirs-*")
    file.rename(folder / file.name.replace("theirs", "harvest_clips"))
    manifest = read_manifest(folder)
    assert [row.id for row in manifest.rows] == ["a"]
    assert {reject.reason.split(":")[0] for reject in manifest.rejects} == {"bad row"}


def test_tensorflow_is_not_imported(tmp_path, video):
    folder = write_dataset(
        tmp_path, {"video": BYTES, "caption": TEXT}, {"train": [example(video=[video], caption=["x"])]}
    )
    code = (
        "import sys\nfrom data_pipeline.manifest.read import read_manifest\n"
        f"assert len(read_manifest({str(folder)!r}).rows) == 1\n"
        "print(sorted({'tensorflow', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- several clips of one video, several captions of one clip


def test_spans_and_captions_of_one_video(tmp_path, video):
    (tmp_path / "abc.mp4").write_bytes(video)  # four seconds
    spans = [("00:00:00.000", "00:00:02.000"), ("00:00:01.000", "00:00:03.000"), ("00:00:03.500", "00:00:20.000")]
    spans += [("00:00:09.000", "00:00:10.000"), ("00:00:02.000", "00:00:01.000")]
    lines = [f"abc,{first},{last},a caption" for first, last in spans]
    header = "YoutubeID,Start_timestamp,End_timestamp,Caption\n"
    (tmp_path / "internvid.csv").write_text(header + "\n".join(lines) + "\n")
    times = json.dumps([["0:00:00.5", "0:00:01.5"], ["0:00:03.000", "0:00:04.100"]])
    panda = {"videoID": "abc", "timestamp": times, "caption": json.dumps(["one", "two"])}
    (tmp_path / "panda.jsonl").write_text(json.dumps(panda) + "\n")
    own = {"video": "abc.mp4", "caption": ["x", "y"], "start": 1, "end": "0:02"}
    (tmp_path / "own.jsonl").write_text(json.dumps(own) + "\n" + json.dumps(own | {"id": "whole", "start": ""}) + "\n")
    manifests = [read_manifest(tmp_path / name) for name in ("internvid.csv", "panda.jsonl", "own.jsonl")]
    assert [reject.reason for reject in manifests[0].rejects] == [
        "bad span: it ends at 1 s, not after its start at 2 s"
    ]
    found = {row.id: decoded(row, tmp_path) for manifest in manifests for row in manifest.rows}
    assert {name: one.get("numbers") or one["rejected"] for name, one in found.items()} == {
        "abc_0_2": [2, 7, 12, 17],
        "abc_1_3": [12, 17, 22, 27],
        "abc_3.5_20": "bad span: only 0.5 s of its 16.5 s lie within the video",
        "abc_9_10": "bad span: it starts at 9 s, but the video ends at 4.0 s",
        "abc.0": [6, 8, 11, 13],
        "abc.1": [31, 33, 36, 38],
        "abc_1_2": [11, 13, 16, 18],
        "whole": [2, 7, 12, 17],
    }
    assert found["whole"]["record"].captions == ("x", "y")


# ---- several at once


def test_several_manifests_have_one_root_and_one_set_of_ids(tmp_path, video):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("one/a.mp4", "two/a.mp4", "two/b.mp4"):
        (tmp_path / name).write_bytes(video)
    (tmp_path / "one" / "m.csv").write_text("video,caption\na.mp4,x\n")
    (tmp_path / "two" / "m.jsonl").write_text(
        '{"video": "a.mp4", "caption": "y"}\n{"video": "b.mp4", "caption": "z"}\n'
    )
    (tmp_path / "two" / "n.csv").write_text("id,video,caption\nb,b.mp4,z\n,../one/a.mp4,out\n")
    write_tar(tmp_path / "tars" / "00000.tar", sample("k", video))
    sources = [tmp_path / name for name in ("one/m.csv", "two/m.jsonl", "two/n.csv", "tars")]
    stream = iter_manifest(sources)
    for _ in range(2):  # it may be read again
        found = list(stream)
        assert [result.id for result in found] == ["a", "two/a", "b", "b", "line 3", "k"]
        assert [result.video for result in found if isinstance(result, ClipRow)] == [
            "one/a.mp4",
            "two/a.mp4",
            "two/b.mp4",
            "tars/00000.tar",
        ]
        faults = [result.reason for result in found if not isinstance(result, ClipRow)]
        assert faults[0].startswith("duplicate id: 'b' is line 2's of m.jsonl (several captions")
        assert faults[1].startswith("bad path: it holds '..'")
    assert stream.root == Path(os.path.realpath(tmp_path))
    assert [decoded(row, stream.root)["numbers"] for row in stream if isinstance(row, ClipRow)] == [[5, 15, 25, 35]] * 4
    below_root = [result.id for result in iter_manifest(sources[1:3], root=tmp_path / "two")]
    assert below_root == ["a", "b", "b", "line 3"]


def test_no_rows_anywhere_is_said_once(tmp_path):
    for name, split in (("a", "train"), ("b", "val")):
        (tmp_path / f"{name}.csv").write_text(f"video,caption,split\na.mp4,x,{split}\n")
    with pytest.raises(DataError, match=r"a\.csv and 1 more has no rows of the split 'test'; its splits: train, val"):
        list(iter_manifest([tmp_path / "a.csv", tmp_path / "b.csv"], split="test"))
    (tmp_path / "c.csv").write_text("video,caption\n")
    with pytest.raises(DataError, match=r"c\.csv has no rows"):
        list(iter_manifest([tmp_path / "a.csv", tmp_path / "c.csv"]))
    with pytest.raises(DataError, match="no manifest was given"):
        iter_manifest([])


def test_rows_come_before_the_end_of_the_file_is_read(tmp_path):
    (tmp_path / "m.csv").write_text("video,caption\na.mp4,x\n" + "b.mp4,y\n" * 10_000 + 'c.mp4,"never closed\n')
    first = next(iter(iter_manifest([tmp_path / "m.csv"])))
    assert first == ClipRow("a", "a.mp4", ("x",), "train")


def test_what_a_stream_remembers_of_a_row_is_little(tmp_path):
    path = tmp_path / "m.csv"
    with path.open("w") as file:
        file.write("video,caption\n")
        for number in range(5_000):
            file.write(f"folder/{number:08d}.mp4,{'a caption ' * 20}\n")
    code = (
        "import tracemalloc\nfrom data_pipeline.manifest.read import iter_manifest\n"
        f"tracemalloc.start()\nbefore = None\n"
        f"for number, _ in enumerate(iter_manifest([{str(path)!r}])):\n"
        "    if number == 9: before = tracemalloc.get_traced_memory()[0]\n"
        "    if number == 4_998: print((tracemalloc.get_traced_memory()[0] - before) / number)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 250
