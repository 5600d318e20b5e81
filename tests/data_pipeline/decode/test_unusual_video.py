"""Unusual but valid videos give the right pictures; invalid ones are rejected with a reason, quickly."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.pool import VideoDecoder
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.media_paths import VideoRejected
from tests.helpers.video_files import numbered_frames, read_number, write_video

NUMBERS = [2, 7, 12, 17]  # of the four pictures that are taken of twenty


def write(path: Path, codec: str, pixels: str, frames: np.ndarray, options: dict[str, str] | None = None) -> Path:
    """Encode with a pixel format of its own; `frames` are RGB or RGBA."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgba" if image.shape[2] == 4 else "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def reason(path: Path, spec: DecodeSpec | None = None) -> str:
    with pytest.raises(VideoRejected) as caught:
        decode_clip(path, spec or DecodeSpec())
    return caught.value.reason


def numbers_of(path: Path) -> list[int]:
    return [read_number(frame) for frame in decode_clip(path, DecodeSpec(num_frames=4)).frames]


VP9 = {"deadline": "realtime", "cpu-used": "8"}


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options", "size"),
    [
        ("odd.mp4", "libx264", "yuv444p", {}, (49, 63)),
        ("odd.webm", "libvpx-vp9", "yuv420p", VP9, (49, 63)),
        ("ten_bits.mp4", "libx264", "yuv420p10le", {}, (48, 64)),
        ("ten_bits.mkv", "libx265", "yuv420p10le", {"x265-params": "log-level=none"}, (48, 64)),
        ("ten_bits.webm", "libsvtav1", "yuv420p10le", {"preset": "12"}, (48, 64)),
        ("twelve_bits.mkv", "ffv1", "yuv444p12le", {}, (48, 64)),
        ("ten_bits.mov", "prores_ks", "yuv422p10le", {}, (48, 64)),
        ("gray.mp4", "libx264", "gray", {}, (48, 64)),
        ("gray.mkv", "ffv1", "gray", {}, (48, 64)),
        ("gray16.mkv", "ffv1", "gray16le", {}, (48, 64)),
        ("not_yuv.mkv", "ffv1", "bgr0", {}, (48, 64)),
    ],
)
def test_odd_sizes_many_bits_and_no_colour(tmp_path, name, codec, pixels, options, size):
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV was built without {codec}")
    frames = numbered_frames(20, *size)
    path = write(tmp_path / name, codec, pixels, frames, options)
    clip = decode_clip(path, DecodeSpec(num_frames=4))
    assert [read_number(frame) for frame in clip.frames] == NUMBERS
    assert clip.frames.shape[1:3] == size
    expected = frames[NUMBERS].astype(float)
    if pixels.startswith("gray"):
        expected = (expected @ [0.299, 0.587, 0.114])[..., None].repeat(3, axis=-1)
    assert np.abs(clip.frames - expected).mean() < 8


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.mkv", "ffv1", "yuva444p"),
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("png.mov", "png", "rgba"),
    ],
)
def test_what_is_transparent_keeps_its_colour(tmp_path, name, codec, pixels):
    frames = numbered_frames(20)
    alpha = np.full((*frames.shape[:3], 1), 255, np.uint8)
    alpha[:, :, 32:] = 0
    options = VP9 | {"auto-alt-ref": "0"} if codec.startswith("libvpx") else {}
    path = write(tmp_path / name, codec, pixels, np.concatenate([frames, alpha], axis=-1), options)
    clip = decode_clip(path, DecodeSpec(num_frames=4))
    assert [read_number(frame) for frame in clip.frames] == NUMBERS
    assert np.abs(clip.frames[:, :, :32] - frames[NUMBERS, :, :32].astype(float)).mean() < 8


def test_a_transparent_gif(tmp_path):
    path = write_video(tmp_path / "a.gif", numbered_frames(20), codec="gif")
    data = bytearray(path.read_bytes())
    at = data.index(b"\x21\xf9\x04")
    data[at + 3] |= 1  # the first picture has a transparent colour
    path.write_bytes(data)
    assert decode_clip(path, DecodeSpec(num_frames=4)).frames.shape == (4, 48, 64, 3)


def test_the_shape_of_pixels_may_be_the_file_s_alone(tmp_path):
    """VP9 says nothing of it, and Matroska the size to show. (PyAV does not write that: it takes the place of tags.)"""
    path = tmp_path / "a.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=10, options=VP9)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        context = stream.codec_context
        context.color_range, context.color_trc, context.color_primaries, context.colorspace = 1, 1, 1, 1
        for number, image in enumerate(numbered_frames(20)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = bytearray(path.read_bytes())
    at = data.index(b"\x55\xb0")
    free = (data[at + 2] & 0x7F) + 3 - 10
    shown = b"\x54\xb0\x81" + bytes([96]) + b"\x54\xba\x81" + bytes([48])
    data[at : at + free + 10] = shown + b"\xec" + bytes([0x80 | free]) + bytes(free)
    path.write_bytes(data)
    clip = decode_clip(path, DecodeSpec(num_frames=4))
    assert (clip.width, clip.height, clip.frames.shape) == (96, 48, (4, 48, 96, 3))
    assert [read_number(frame) for frame in clip.frames] == NUMBERS


@pytest.mark.parametrize("span", [(None, None), (30.0, 40.0)])
def test_a_stream_that_refreshes_without_key_pictures(tmp_path, span):
    options = {"x264-params": "intra-refresh=1:keyint=25:min-keyint=25:scenecut=0:bframes=0"}
    path = write_video(tmp_path / "a.mp4", numbered_frames(500), options=options)
    clip = decode_clip(path, DecodeSpec(num_frames=4), *span)
    first, last = (0, 500) if span[0] is None else (300, 400)
    wanted = [first + (2 * index + 1) * (last - first) // 8 for index in range(4)]
    assert [read_number(frame) for frame in clip.frames] == wanted


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_without_any_key_picture_there_is_nothing_to_see(tmp_path, name):
    whole = write_video(tmp_path / f"whole_{name}", numbered_frames(60), options={"g": "1000", "bf": "0"})
    with av.open(str(whole)) as source, av.open(str(tmp_path / name), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size and not packet.is_keyframe:
                packet.stream = stream
                target.mux(packet)
    assert reason(tmp_path / name).split(":")[0] in ("damaged", "too few frames")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_no_picture_at_all(tmp_path, name):
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.start_encoding()
    assert reason(tmp_path / name).split(":")[0] in ("damaged", "no video stream", "too few frames")


def gif_of(count: int, loops: bytes = b"\0\0") -> bytes:
    """A GIF of `count` pictures of one pixel with endless repetition."""
    head = b"GIF89a" + struct.pack("<HH", 16, 16) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    loop = b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + loops + b"\0"
    picture = b"\x21\xf9\x04\0\x02\0\0\0" + b"\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x44\x01\0"
    return head + loop + picture * count


def test_a_gif_without_end_is_played_once(tmp_path):
    path = tmp_path / "a.gif"
    path.write_bytes(gif_of(30) + b"\x3b")
    clip = decode_clip(path, DecodeSpec(num_frames=8))
    assert len(clip.frames) == 8
    assert clip.seconds[-1] < 0.7
    path.write_bytes(gif_of(30))  # and nothing says where it ends
    assert len(decode_clip(path, DecodeSpec(num_frames=8)).frames) == 8


def test_a_million_pictures_are_too_many_to_hold(tmp_path):
    path = tmp_path / "a.gif"
    path.write_bytes(gif_of(1_000_000) + b"\x3b")
    with VideoDecoder(time_limit=40.0) as decoder, pytest.raises(VideoRejected) as caught:
        decoder.decode(path)
    assert caught.value.reason.startswith("too large: more than 200,000 pictures")


def vp8_that_claims(path: Path, frame: int, width: int, height: int) -> Path:
    """A WebM of key pictures, of which one says in its own header that it is width x height."""
    options = {"deadline": "realtime", "cpu-used": "8", "g": "1"}
    data = bytearray(write_video(path, numbered_frames(20), codec="libvpx", options=options).read_bytes())
    at = -1
    for _ in range(frame + 1):
        at = data.index(b"\x9d\x01\x2a", at + 1)
    data[at + 3 : at + 7] = struct.pack("<HH", width, height)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("frame", [2, 7, 17])  # of the wanted ones: others, which are key pictures, are not decoded
def test_a_picture_of_16k_by_16k_is_refused_wherever_it_comes(tmp_path, frame):
    path = vp8_that_claims(tmp_path / "a.webm", frame, 16383, 16383)
    assert reason(path, DecodeSpec(num_frames=4)).split(":")[0] in ("damaged", "bad picture size")
    with VideoDecoder(num_frames=4, memory_limit=1 << 30) as decoder, pytest.raises(VideoRejected) as caught:
        decoder.decode(path)  # where 16k x 16k pixels find no room
    assert caught.value.reason.split(":")[0] in ("damaged", "bad picture size")


def matroska_that_claims(path: Path, codec: str, width: int, height: int) -> Path:
    """A Matroska file whose header says width x height, for pictures of 320 x 272."""
    data = bytearray(write(path, codec, "yuv420p", numbered_frames(4, 272, 320)).read_bytes())
    for name, old, new in ((b"\xb0\x82", 320, width), (b"\xba\x82", 272, height)):
        at = data.index(name + struct.pack(">H", old))
        data[at + 2 : at + 4] = struct.pack(">H", new)
    path.write_bytes(data)
    return path


def test_a_container_that_claims_16k_by_16k(tmp_path):
    assert len(decode_clip(matroska_that_claims(tmp_path / "a.mkv", "ffv1", 320, 272), DecodeSpec()).frames) == 4
    path = matroska_that_claims(tmp_path / "a.mkv", "ffv1", 16384, 16384)
    assert reason(path).startswith("bad picture size: ")
    path = matroska_that_claims(tmp_path / "b.mkv", "libx264", 16384, 16384)  # whose pictures say what they are
    assert decode_clip(path, DecodeSpec()).frames.shape[1:] == (256, 301, 3)


def test_small_files_of_large_pictures_fit_into_a_worker(tmp_path):
    frames = np.zeros((2, 3000, 3000, 3), np.uint8)  # 27 MB each, a few kB in the file
    path = write(tmp_path / "a.mov", "png", "rgb24", frames)
    assert path.stat().st_size < 500_000
    with VideoDecoder(num_frames=2, short_side=64, memory_limit=1 << 30) as decoder:
        assert decoder.decode(path).shape == (2, 64, 64, 3)


def test_times_of_every_kind_of_gap(tmp_path):
    times = [0, 1, 2, 50, 51, 52, 53, 54, 300, 301]  # tenths of seconds: a slide show
    path = write_video(tmp_path / "a.mkv", numbered_frames(10), times=times)
    clip = decode_clip(path, DecodeSpec(num_frames=30))
    shown = {max(t for t in times if t <= (index + 0.5) * 30.2 / 30 * 10 + 1e-6) for index in range(30)}
    assert [round(seconds * 10) for seconds in clip.seconds] == sorted(shown)
    assert [times[read_number(frame)] for frame in clip.frames] == sorted(shown)
