"""Ogg, MPEG, WMV and FLV files that were made by somebody else: cut off, garbage, endless, or with names of others."""

import random
import struct
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.pool import DecoderPool
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.media_paths import VideoRejected
from tests.helpers.video_files import numbered_frames, read_number, write_video

CODECS = {
    "a.ogv": "libvpx",
    "a.mpg": "mpeg2video",
    "a.vob": "mpeg2video",
    "a.ts": "libx264",
    "a.m2ts": "mpeg2video",
    "a.wmv": "wmv2",
    "a.flv": "flv",
}
KINDS = {"damaged", "cut off", "not a video", "no video stream", "unsupported codec", "bad picture size", "too long"}
KINDS |= {"too few frames", "unsupported colours"}


@pytest.fixture(scope="module", params=CODECS)
def file(request, tmp_path_factory) -> Path:
    """Fifty numbered pictures, 25 a second."""
    codec = CODECS[request.param]
    options = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx" else {"g": "10"}
    path = tmp_path_factory.mktemp("containers") / request.param
    return write_video(path, numbered_frames(50), rate=25, codec=codec, options=options)


def kind(data: bytes) -> str:
    """Of the reason of a reject; "decoded" if there is none. Another error fails the test."""
    try:
        clip = decode_clip(data, DecodeSpec(num_frames=4))
    except VideoRejected as error:
        return error.reason.split(":")[0] if "\n" not in error.reason else "several lines"
    assert 1 <= len(clip.frames) <= 4
    return "decoded"


def test_the_pictures_are_right(file):
    numbers = [read_number(frame) for frame in decode_clip(file, DecodeSpec(num_frames=5)).frames]
    assert np.abs(np.array(numbers) - [5, 15, 25, 35, 45]).max() <= 1  # an end is said with the encoder's delay


def test_wherever_it_is_cut_off_it_has_pictures_or_a_reason(file):
    data = file.read_bytes()
    shares = [0.002, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.99]
    found = {kind(data[: max(4, int(len(data) * share))]) for share in shares}
    assert found <= KINDS | {"decoded"}
    assert found & KINDS


def test_garbage_in_it_gives_pictures_or_a_reason(file):
    data = file.read_bytes()
    for seed in range(12):
        numbers, copy = random.Random(seed), bytearray(data)
        if seed < 8:  # single bytes, in the headers too
            for _ in range(20):
                copy[numbers.randrange(len(data))] = numbers.randrange(256)
        else:  # a hole that is filled, moved or left out
            at, size = numbers.randrange(len(data) // 2), len(data) // 5
            copy[at : at + size] = [numbers.randbytes(size), b"", bytes(size), data[:size]][seed - 8]
        assert kind(bytes(copy)) in KINDS | {"decoded"}


def test_a_signature_and_nothing_else(file):
    head = file.read_bytes()[:16]
    for rest in (b"", bytes(4096), random.Random(0).randbytes(4096), b"\xff" * 4096, head * 500):
        assert kind(head + rest) in KINDS


def endless(name: str, good: bytes, megabytes: int = 24) -> bytes:
    """A file that goes on and on behind its first half: padding, pages or tags without a picture."""
    size = megabytes << 20
    if name == "a.ogv":  # pages of a stream that nobody declared
        one = b"OggS\0\0" + struct.pack("<qIII", 0, 0xBAD, 1, 0) + b"\xff" + b"\xff" * 255 + bytes(255 * 255)
    elif name in ("a.mpg", "a.vob"):  # padding streams
        one = b"\0\0\1\xbe" + struct.pack(">H", 65000) + b"\xff" * 65000
    elif name == "a.ts":  # null packets
        one = b"\x47\x1f\xff\x10" + b"\xff" * 184
    elif name == "a.m2ts":
        one = bytes(4) + b"\x47\x1f\xff\x10" + b"\xff" * 184
    elif name == "a.flv":  # script tags
        one = b"\x12" + struct.pack(">I", 60000)[1:] + bytes(7) + bytes(60000) + struct.pack(">I", 60011)
    else:
        one = bytes(65536)
    return good[: len(good) // 2] + one * (size // len(one))


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(time_limit=10.0, memory_limit=1 << 30) as decoders:
        yield decoders


def test_one_that_never_ends_costs_one_clip(file, pool, tmp_path):
    path = tmp_path / file.name
    path.write_bytes(endless(file.name, file.read_bytes()))
    task = {"path": str(path), "start": None, "end": None, "spec": {"num_frames": 4}}
    (result,) = pool.map([task])
    assert result.header.get("rejected", "decoded").split(":")[0] in KINDS | {"decoded", "timeout"}


def test_names_in_it_are_opened_by_nobody(file, tmp_path, video):
    """Titles, comments and links of another file, in every field that the container has."""
    (tmp_path / "canary.mp4").write_bytes(video.read_bytes())
    address = f"file:{tmp_path}/canary.mp4"
    hostile = tmp_path / file.name
    with av.open(str(file)) as source, av.open(str(hostile), "w") as target:
        for name in ("title", "comment", "location", "WM/URL", "Base_URL", "playlist", "onlocation"):
            target.metadata[name] = address
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event in ("open", "socket.connect") else None)
    assert kind(hostile.read_bytes()) == "decoded"
    assert not [name for name in opened if "canary" in name]
