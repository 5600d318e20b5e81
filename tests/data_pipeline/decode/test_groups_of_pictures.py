"""Only what wanted pictures need is decoded, and it gives the pictures that decoding everything gives."""

import random
from fractions import Fraction

import av
import numpy as np
import pytest

from data_pipeline.decode import clip as clip_module
from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.stretch import Mark, needed, shown_at
from data_pipeline.media_paths import VideoRejected
from tests.data_pipeline.decode.test_unusual_video import write
from tests.helpers.video_files import numbered_frames, read_number, write_video

X265 = "log-level=none:keyint=12:min-keyint=12"
FILES = {
    "closed.mp4": ("libx264", {"g": "12"}),
    "open.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3:b-pyramid=2"}),
    "open.ts": ("libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3"}),
    "refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}),
    "hevc_open.mp4": ("libx265", {"x265-params": f"{X265}:open-gop=1:bframes=4"}),
    "hevc_closed.mkv": ("libx265", {"x265-params": f"{X265}:open-gop=0"}),
    "hevc_open.ts": ("libx265", {"x265-params": f"{X265}:open-gop=1"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "vp8_hidden.webm": ("libvpx", {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "10", "cpu-used": "8"}),
    "mpeg2.ts": ("mpeg2video", {"g": "12", "bf": "2"}),
    "mpeg2.mpg": ("mpeg2video", {"g": "12", "bf": "2"}),
    "mpeg4.mp4": ("mpeg4", {"g": "12", "bf": "2"}),
    "mpeg4.avi": ("mpeg4", {"g": "12", "bf": "2"}),
    "wmv2.wmv": ("wmv2", {"g": "12"}),
    "prores.mov": ("prores_ks", {}),
    "few.gif": ("gif", {}),
}


@pytest.fixture(scope="module", params=FILES)
def file(request, tmp_path_factory):
    codec, options = FILES[request.param]
    path = tmp_path_factory.mktemp("groups") / request.param
    frames = numbered_frames(60 if codec == "gif" else 120)
    if codec == "prores_ks":
        return write(path, codec, "yuv422p10le", frames, options)
    return write_video(path, frames, rate=25, codec=codec, options=options)


def everything(monkeypatch):
    def refuse(*_):
        raise clip_module._NotDecoded
        yield

    monkeypatch.setattr(clip_module, "_wanted_frames", refuse)


@pytest.mark.parametrize(
    ("num_frames", "span"), [(1, ()), (3, ()), (8, ()), (32, ()), (4, (1.1, 2.2)), (3, (2.02, 2.3))]
)
def test_the_pictures_are_those_of_decoding_everything(file, num_frames, span, monkeypatch):
    spec = DecodeSpec(num_frames=num_frames)
    clip = decode_clip(file, spec, *span)
    twice = decode_clip(file, DecodeSpec(num_frames=num_frames, max_held_bytes=1), *span)
    everything(monkeypatch)
    whole = decode_clip(file, spec, *span)
    for one in (clip, twice):
        np.testing.assert_array_equal(one.frames, whole.frames)
        np.testing.assert_array_equal(one.seconds, whole.seconds)
        assert one.damaged == 0


def test_few_packets_are_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", numbered_frames(240), rate=25, options={"g": "12", "keyint_min": "12"})
    decoded = []
    real = clip_module._decoded

    def counted(video, packets, wanted):
        def each():
            for mark, packet in packets:
                decoded.append(mark.pts)
                yield mark, packet

        yield from real(video, each(), wanted)

    monkeypatch.setattr(clip_module, "_decoded", counted)
    clip = decode_clip(path, DecodeSpec(num_frames=4))  # pictures 30, 90, 150, 210: each the seventh of its group
    assert [read_number(frame) for frame in clip.frames] == [30, 90, 150, 210]
    assert 4 * 4 <= len(decoded) <= 4 * 12


def marks(text):
    """Packets in decoding order: `K3` a key picture shown at 3, `2` another one."""
    return [Mark(int(word.strip("K")), word[0] == "K", False) for word in text.split()]


@pytest.mark.parametrize(
    ("packets", "wanted", "ranges"),
    [
        ("K0 2 1 K3 5 4 K6 8 7", [0], [range(1)]),
        ("K0 2 1 K3 5 4 K6 8 7", [1, 7], [range(3), range(6, 9)]),
        ("K0 2 1 K3 5 4 K6 8 7", [2, 3], [range(2), range(3, 4)]),
        ("K0 2 1 K3 5 4 K6 8 7", [1, 3], [range(4)]),
        ("K0 1 K4 2 3 6 5 K9 7 8", [7], [range(2, 9)]),  # open: 7 and 8 need both groups
        ("K0 1 K4 2 3 6 5 K9 7 8", [9], [range(7, 8)]),
        ("3 4 K5 6", [4], [range(2)]),  # before any key picture
    ],
)
def test_what_is_needed(packets, wanted, ranges):
    assert needed(marks(packets), wanted) == ranges


def test_what_is_shown():
    assert shown_at(marks("K0 20 10"), [-5, 9, 10, 15, 99]) == [0, 10, 20]
    assert shown_at([Mark(0, True, False), Mark(10, False, True), Mark(20, False, False)], [15]) == [0]  # hidden
    assert shown_at([Mark(0, True, False), Mark(None, False, False)], [0]) is None
    assert shown_at(marks("K0 10 10"), [0]) is None


def test_flipped_bits_are_noticed(tmp_path):
    """H.264: of 40 copies with three flipped bits, hardly one gives wrong pictures. (FFmpeg marks none of HEVC's.)"""
    noise = np.random.default_rng(0).integers(0, 60, (60, 96, 128, 3), np.uint8)
    frames = numbered_frames(60, 96, 128) // 2 + noise
    data = write_video(tmp_path / "a.mp4", frames, rate=25, options={"g": "12"}).read_bytes()
    good = decode_clip(data, DecodeSpec(num_frames=8)).frames
    reasons, wrong = [], 0
    for seed in range(40):
        numbers = random.Random(seed)
        copy = bytearray(data)
        for _ in range(3):
            copy[numbers.randrange(len(data) // 10, len(data) * 9 // 10)] ^= 1 << numbers.randrange(8)
        try:
            frames = decode_clip(bytes(copy), DecodeSpec(num_frames=8)).frames
        except VideoRejected as error:
            reasons.append(error.reason)
        else:
            wrong += frames.shape != good.shape or np.abs(frames.astype(int) - good).mean((1, 2, 3)).max() > 1
    assert len(reasons) >= 20
    assert {reason.split(":")[0] for reason in reasons} == {"damaged"}
    assert wrong <= 4


def test_a_few_damaged_pictures_are_counted(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", numbered_frames(240), rate=25, options={"g": "12", "keyint_min": "12"})
    real = clip_module._decoded

    def marked(video, packets, wanted):
        yield from ((frame, damaged or frame.pts == first) for frame, damaged in real(video, packets, wanted))

    spec = DecodeSpec(num_frames=16)
    first = round(decode_clip(path, spec).seconds[5] * 12800)
    monkeypatch.setattr(clip_module, "_decoded", marked)
    assert decode_clip(path, spec).damaged == 1
    spec = DecodeSpec(num_frames=8)
    first = None
    assert decode_clip(path, spec).damaged == 0
    first = round(decode_clip(path, spec).seconds[3] * 12800)
    with pytest.raises(VideoRejected, match="1 of its 8 wanted pictures"):
        decode_clip(path, spec)


def write_streams(path, streams, rate=10):
    """A file of several video streams, each (disposition, frames)."""
    with av.open(str(path), "w") as container:
        made = []
        for disposition, frames in streams:
            stream = container.add_stream("libx264", rate=rate)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
            stream.disposition = disposition
            made.append((stream, frames))
        for stream, frames in made:
            for number, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, rate)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


def test_the_default_stream_is_taken(tmp_path):
    red = np.zeros((20, 32, 32, 3), np.uint8) + np.array([200, 0, 0], np.uint8)
    none, default = av.stream.Disposition(0), av.stream.Disposition.default
    for name in ("a.mkv", "a.mp4"):
        path = write_streams(tmp_path / name, [(none, red), (default, numbered_frames(20))])
        clip = decode_clip(path, DecodeSpec(num_frames=4))
        assert [read_number(frame) for frame in clip.frames] == [2, 7, 12, 17]


@pytest.mark.parametrize("name", ["piece.mkv", "piece.webm"])
def test_a_piece_of_a_longer_file_begins_at_its_own_start(tmp_path, name):
    """Its times begin at 10 s; some writers store its length from there, some from 0."""
    codec = {"piece.mkv": "libx264", "piece.webm": "libvpx"}[name]
    times = list(range(100, 140))
    path = write_video(tmp_path / name, numbered_frames(40), codec=codec, times=times)
    clip = decode_clip(path, DecodeSpec(num_frames=4))
    assert [read_number(frame) for frame in clip.frames] == [5, 15, 25, 35]
    np.testing.assert_allclose(clip.seconds, [0.5, 1.5, 2.5, 3.5], atol=0.002)
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoRejected, match=r"cut off|damaged"):
        decode_clip(cut, DecodeSpec(num_frames=4))


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_avi_with_b_pictures_gives_as_many_as_asked(tmp_path, codec):
    frames = numbered_frames(100)
    path = write_video(tmp_path / "a.avi", frames, rate=25, codec=codec, options={"bf": "2", "g": "12"})
    with av.open(str(path)) as container:
        order = [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert order == sorted(order)
    for count in (2, 4, 5, 7, 25):
        numbers = [read_number(frame) for frame in decode_clip(path, DecodeSpec(num_frames=count)).frames]
        assert len(numbers) == count
        wanted = np.array([int((index + 0.5) * 100 / count) for index in range(count)])
        assert np.abs(np.array(numbers) - wanted).max() <= 2  # a delay of the encoder stands in the file as time
        assert len(set(np.array(numbers) - wanted)) <= 2
