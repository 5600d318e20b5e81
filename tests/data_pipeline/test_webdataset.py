"""WebDataset tars as a source: clips are found, checked, and decoded from where they lie in the tar."""

import dataclasses
import io
import json
import struct
import subprocess
import tarfile
import tracemalloc

import pytest

from data_pipeline.manifest.read import read_manifest
from data_pipeline.media_paths import FilePart
from harvest_jax.errors import DataError
from harvest_jax.evaluate.evaluation_set import open_set
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
from tests.helpers.video_files import numbered_frames, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> bytes:
    return write_video(tmp_path_factory.mktemp("videos") / "good.mp4", numbered_frames(40)).read_bytes()


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


def test_names_that_a_key_cannot_be_made_of(tmp_path, video):
    members = [(name, video) for name in ("clip.v1.mp4", "clip.v1.txt", "clip.v2.mp4", "Mr. Bean.mp4", "Mr. Bean.txt")]
    members += [("a.left.jpg", picture(1)), ("a.mp4", video), ("a.txt", b"x"), ("a.mask.png", b"")]
    manifest = read_manifest(write_tar(tmp_path / "0.tar", members))
    assert [row.id for row in manifest.rows] == ["a"]
    reason = "bad member: its name has more than one dot, and the key ends at the first one: rename it"
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
        (begin_of_b + 512 + len(video) // 2, "cut off: 'b.mp4' ends after the end of the file"),
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
        "a long pax header": (header(b"pax", b"x", huge), "damaged: a member's headers have more than 65,536 b"),
        "a long global header": (header(b"pax", b"g", huge), "damaged: a member's headers have more than 65,536 b"),
        "a long name": (header(b"name", b"L", huge), "damaged: a member's headers have more than 65,536 bytes"),
        "a member of a terabyte": (header(b"b.mp4", b"0", huge), "cut off: 'b.mp4' ends after the end"),
        "a negative size": (header(b"b.mp4", b"0", negative), "damaged: "),
        "a negative size by pax": (pax(b"size=-512") + header(b"b.mp4", b"0", b"%011o\0" % 0), "damaged: "),
        "a size of letters by pax": (pax(b"size=many") + header(b"b.mp4", b"0", b"%011o\0" % 0), ""),
        "a pax header that repeats": (pax(b"a=1") * 2000, "damaged: "),
        "a map of a sparse file without end": (
            pax(b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.name=b.mp4", b"GNU.sparse.realsize=5")
            + header(b"b.mp4", b"0", b"%011o\0" % (1 << 20))
            + b"9999999999\n"
            + b"1000\n" * ((1 << 20) // 5),
            "damaged: a member's headers have more than 65,536 bytes",
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
    assert decoded(row, tmp_path)["rejected"].startswith("cut off: the clip in it ends at byte")
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
