"""Tars that are damaged or an attack: their members are rejected with a reason, nothing else is read."""

import dataclasses
import io
import struct
import subprocess
import tarfile

import pytest

from data_pipeline.manifest.read import read_manifest
from data_pipeline.media_paths import FilePart
from harvest_jax.errors import DataError
from tests.helpers.source_files import (
    decoded,
    reasons,
    sample,
    write_tar,
)


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
        (b"\x1f\x8b" + bytes(600), "compressed: it is a gzip file"),
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
