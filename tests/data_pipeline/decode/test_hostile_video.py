"""Untrusted video files: no other file is read, nothing is fetched, and a bad file costs one clip."""

import http.server
import json
import os
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.pool import DecoderPool
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.video_file import FORMATS, open_video
from data_pipeline.manifest.read import read_manifest
from data_pipeline.manifest.rows import ClipRow
from data_pipeline.media_paths import VideoRejected, open_regular
from data_pipeline.prepare.split import Execution, local_engine, write_split
from data_pipeline.shards.shard_format import open_shards, parse_record
from tests.helpers.video_files import gif_header, numbered_frames, read_number, write_sound, write_video

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine that notes who asked."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(404)
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_address[1]}", seen
        web.shutdown()
        thread.join()


def reason(source: Path | bytes, spec: DecodeSpec | None = None) -> str:
    with pytest.raises(VideoRejected) as caught:
        decode_clip(source, spec or DecodeSpec())
    assert "\n" not in caught.value.reason
    return caught.value.reason


NO_VIDEO = (
    "not a video: not an MP4, MOV, MKV, WebM, AVI, MPEG, WMV, FLV, Ogg or GIF file, "
    "nor a JPEG, PNG, WebP or AVIF picture"
)
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{0}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile {0}\n"
MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT5S">'
    "<Period><AdaptationSet><Representation id='1' mimeType='video/mp4' bandwidth='1'><BaseURL>{0}</BaseURL>"
    "</Representation></AdaptationSet></Period></MPD>"
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"


@pytest.mark.parametrize("text", [PLAYLIST, CONCAT, MPD, SDP], ids=["hls", "ffconcat", "dash", "sdp"])
@pytest.mark.parametrize("suffix", [".m3u8", ".ffconcat", ".mpd", ".sdp", ".mp4", ""])
def test_a_playlist_reads_nothing_and_fetches_nothing(tmp_path, video, server, text, suffix):
    address, seen = server
    canary = tmp_path / "canary.mp4"
    canary.write_bytes(video.read_bytes())
    for target in ("canary.mp4", str(canary), f"{address}/canary.mp4"):
        hostile = tmp_path / f"list{suffix}"
        hostile.write_text(text.format(target))
        for source in (hostile, hostile.read_bytes()):
            assert reason(source) == NO_VIDEO
    assert seen == []


def test_the_canary_would_be_read_without_the_precautions(tmp_path, video):
    # else the tests above would prove nothing
    (tmp_path / "canary.mp4").write_bytes(video.read_bytes())
    (tmp_path / "list.mp4").write_text(CONCAT.format("canary.mp4"))
    with av.open(str(tmp_path / "list.mp4")) as container:
        assert read_number(next(container.decode(video=0)).to_ndarray(format="rgb24")) == 0


def test_the_list_of_formats_alone_refuses_playlists(tmp_path, video):
    (tmp_path / "canary.mp4").write_bytes(video.read_bytes())
    for text in (PLAYLIST, CONCAT, MPD):
        (tmp_path / "list.mp4").write_text(text.format("canary.mp4"))
        with pytest.raises(av.FFmpegError):
            av.open(str(tmp_path / "list.mp4"), options={"format_whitelist": FORMATS})


def test_without_it_the_file_still_opens_no_others(tmp_path, video, monkeypatch):
    (tmp_path / "canary.mp4").write_bytes(video.read_bytes())
    (tmp_path / "list.mp4").write_text(CONCAT.format("canary.mp4"))
    monkeypatch.setattr("data_pipeline.decode.video_file.FORMATS", "concat,mov")
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    with (
        open_regular(tmp_path / "list.mp4", 1000) as file,
        pytest.raises(VideoRejected),
        open_video(file, DecodeSpec()) as container,
    ):
        list(container.container.decode(video=0))
    assert not [name for name in opened if "canary" in name]


def test_an_address_in_a_manifest_is_not_visited(tmp_path, server):
    address, seen = server
    port = address.rpartition(":")[2]
    names = [
        f"{address}/a.mp4",
        f"//127.0.0.1:{port}/a.mp4",
        f"./{address}/b.mp4",
        f"tcp://127.0.0.1:{port}",
        "concat:x.mp4",
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "video": v, "caption": "x"}) + "\n" for i, v in enumerate(names)))
    manifest = read_manifest(path)
    assert [reject.reason.split(":")[0] for reject in manifest.rejects] == ["bad path"] * len(names)
    rows = [
        ClipRow(str(i), name, ("x",), "train") for i, name in enumerate(names)
    ]  # a caller that skipped the manifest
    with pytest.raises(Exception, match="not one clip of train could be used"):
        write_split(rows, tmp_path, tmp_path / "out", "train")
    assert "bad path" in (tmp_path / "out" / "rejects-train.tsv").read_text()
    assert seen == []


def mjpeg_that_lies(path: Path) -> Path:
    """An AVI of 64 x 48 whose pictures say that they are 16,000 x 16,000."""
    data = bytearray(write_video(path, numbered_frames(3), codec="mjpeg").read_bytes())
    at = -1
    while (at := data.find(b"\xff\xc0\x00\x11\x08", at + 1)) >= 0:
        data[at + 5 : at + 9] = struct.pack(">HH", 16000, 16000)
    path.write_bytes(data)
    return path


def avi_that_claims(path: Path, width: int, height: int) -> Path:
    """An AVI in a codec whose pictures do not say their size, with a header that says width x height."""
    data = bytearray(write_video(path, numbered_frames(3), codec="ffvhuff").read_bytes())
    at = data.index(b"strf") + 12
    data[at : at + 8] = struct.pack("<ii", width, height)
    path.write_bytes(data)
    return path


def broken_files(folder: Path, video: Path) -> dict[str, tuple[Path, str]]:
    """Name -> (file, how its reason begins)."""
    good = video.read_bytes()
    front = write_video(
        folder / "front.mp4", numbered_frames(50), options={"g": "10"}, container_options={"movflags": "faststart"}
    ).read_bytes()
    matroska = write_video(folder / "whole.mkv", numbered_frames(50)).read_bytes()
    contents = {
        "empty.mp4": (b"", "empty file: 0 bytes"),
        "text.mp4": (b"This is no video at all.\n" * 100, "not a video: not an MP4, MOV, MKV"),
        "zeros.mp4": (bytes(100_000), "not a video: not an MP4, MOV, MKV"),
        "no_index.mp4": (good[: len(good) // 2], "damaged: begins like an MP4 or MOV file, but its header is cut off"),
        "front_half.mp4": (front[: len(front) * 6 // 10], ""),
        "header_only.mp4": (front[:2000], ""),
        "half.mkv": (matroska[: len(matroska) // 2], "cut off: its pictures end at"),
        "head.mkv": (matroska[:40], "damaged: begins like a Matroska or WebM file"),
        "huge.gif": (gif_header(16384, 16384), ""),
        "big.gif": (
            gif_header(12000, 12000),
            "bad picture size: its header has none, or one that is too large",
        ),
        "page.html": (b"<!doctype html><title>404</title>", "not a video"),
        "picture.png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "damaged: begins like a picture"),
    }
    files = {}
    for name, (content, expected) in contents.items():
        (folder / name).write_bytes(content)
        files[name] = (folder / name, expected)
    files["sound.m4a"] = (write_sound(folder / "sound.m4a"), "no video stream: only audio in the file")
    files["lies.avi"] = (mjpeg_that_lies(folder / "lies.avi"), "")
    files["claims.avi"] = (
        avi_that_claims(folder / "claims.avi", 16000, 16000),
        "bad picture size: its header has none",
    )
    narrow = write_video(folder / "narrow.mp4", numbered_frames(3, 16, 640))
    files["narrow.mp4"] = (narrow, "bad picture size: 640 x 16 is too long and narrow")
    files["missing.mp4"] = (folder / "missing.mp4", "not found: No such file or directory")
    (folder / "folder.mp4").mkdir()
    files["folder.mp4"] = (folder / "folder.mp4", "not a file: a folder, a pipe or a device")
    os.mkfifo(folder / "pipe.mp4")
    files["pipe.mp4"] = (folder / "pipe.mp4", "not a file: a folder, a pipe or a device")
    (folder / "device.mp4").symlink_to("/dev/zero")
    files["device.mp4"] = (folder / "device.mp4", "not a file: a folder, a pipe or a device")
    return files


def test_every_broken_file_has_its_reason(tmp_path, video):
    for name, (path, expected) in broken_files(tmp_path, video).items():
        found = reason(path)
        assert found.startswith(expected), name
        assert ": " in found, name
    assert reason(tmp_path / "front_half.mp4").split(":")[0] in ("cut off", "damaged")
    assert reason(tmp_path / "header_only.mp4").split(":")[0] in ("cut off", "damaged")
    assert reason(tmp_path / "lies.avi").split(":")[0] in ("bad picture size", "damaged")
    assert reason(tmp_path / "huge.gif").split(":")[0] == "bad picture size"
    assert (
        reason(video, DecodeSpec(max_bytes=100))
        == f"too large: {video.stat().st_size:,} bytes, more than the 100 allowed"
    )
    assert reason(video, DecodeSpec(max_seconds=2.0)) == "too long: 5 s, more than 2 s"
    assert reason(video, DecodeSpec(max_packets=10)).startswith("too large: more than 10 pictures")


def test_one_bad_video_never_stops_a_run(tmp_path, video):
    root = tmp_path / "root"
    root.mkdir()
    (root / "good.mp4").write_bytes(video.read_bytes())
    broken = broken_files(root, video)
    rows = [ClipRow(name, name, ("x",), "train") for name in broken] + [ClipRow("good", "good.mp4", ("fine",), "train")]
    report = write_split(rows, root, tmp_path / "out", "train", execution=Execution(local_engine(2), 2))
    assert report.n_written == 1
    assert [reject.id for reject in report.rejects] == list(broken)  # in the manifest's order
    lines = (tmp_path / "out" / "rejects-train.tsv").read_text().splitlines()
    assert lines[0] == "id\tvideo\treason"
    assert [line.split("\t")[0] for line in lines[1:]] == list(broken)
    assert all(len(line.split("\t")) == 3 and line.split("\t")[2] for line in lines[1:])
    source = open_shards(tmp_path / "out", "train")
    assert [parse_record(source[index]).id for index in range(len(source))] == ["good"]


def test_a_link_made_after_the_manifest_was_read_is_not_followed_out(tmp_path, video):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.mp4").write_bytes(video.read_bytes())
    (root / "a.mp4").write_bytes(video.read_bytes())
    rows = [ClipRow("a", "a.mp4", ("x",), "train"), ClipRow("b", "b.mp4", ("x",), "train")]
    (root / "b.mp4").symlink_to(tmp_path / "secret.mp4")
    report = write_split(rows, root, tmp_path / "out", "train")
    assert [(r.id, r.reason.split(";")[0]) for r in report.rejects] == [("b", "bad path: a link leads out of the root")]


def test_flipped_bytes_give_pictures_or_a_reason(video):
    rng = np.random.default_rng(0)
    good = video.read_bytes()
    outcomes = set()
    with DecoderPool(time_limit=20.0) as pool:
        folder = video.parent / "flipped"
        folder.mkdir(exist_ok=True)
        tasks = []
        for number in range(60):
            data = bytearray(good)
            for at in rng.integers(0, len(data), size=rng.integers(1, 30)):
                data[at] = rng.integers(256)
            path = folder / f"{number}.mp4"
            path.write_bytes(data)
            tasks.append({"path": str(path), "start": None, "end": None, "spec": {"num_frames": 8, "short_side": 32}})
        for answer in pool.map(tasks):
            kind = answer.header.get("rejected", "decoded").split(":")[0]
            assert kind not in ("decoder error", "crash", "timeout"), answer.header
            outcomes.add(kind)
    assert {"decoded", "damaged"} <= outcomes
