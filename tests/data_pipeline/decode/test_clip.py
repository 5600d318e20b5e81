"""Which pictures come out of a video, how they are turned and scaled, against a full decode by PyAV."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.pool import VideoDecoder
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.media_paths import VideoRejected
from harvest_jax.errors import ConfigError
from harvest_jax.pixels.square import fit
from tests.helpers.video_files import numbered_frames, read_number, set_display_matrix, write_video

B_FRAMES = {"bf": "3", "g": "50", "b-pyramid": "normal"}


def all_frames(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def shown_at(frames: list[tuple[float, np.ndarray]], seconds: float) -> tuple[float, np.ndarray]:
    return max((frame for frame in frames if frame[0] <= seconds + 1e-6), key=lambda frame: frame[0], default=frames[0])


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", B_FRAMES),
        ("a.mkv", "libx264", B_FRAMES),
        ("a.mov", "mpeg4", {"bf": "2"}),
        ("a.avi", "mpeg4", {}),
        ("a.webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
        ("a.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
        ("a.mp4", "libx265", {"x265-params": "log-level=none:bframes=4:keyint=25"}),
        ("a.mp4", "libsvtav1", {"preset": "12", "svtav1-params": "fast-decode=1"}),
        ("a.avi", "mjpeg", {}),
        ("a.gif", "gif", {}),
    ],
)
def test_the_frames_of_the_middles_of_equal_parts(tmp_path, name, codec, options):
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV was built without {codec}")
    path = write_video(tmp_path / name, numbered_frames(75), codec=codec, options=options)
    clip = decode_clip(path, DecodeSpec(num_frames=8))
    wanted = [(2 * index + 1) * 75 // 16 for index in range(8)]
    assert [read_number(frame) for frame in clip.frames] == wanted
    np.testing.assert_allclose(clip.seconds, np.array(wanted) / 10, atol=0.02)
    assert (clip.width, clip.height) == (64, 48)


def test_pictures_equal_those_of_a_full_decode(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(100), options=B_FRAMES)
    everything = all_frames(path)
    clip = decode_clip(path, DecodeSpec(num_frames=40))
    for seconds, frame in zip(clip.seconds, clip.frames, strict=True):
        reference = shown_at(everything, seconds)[1].astype(int)
        assert np.abs(frame - reference).mean() < 2  # PyAV's own conversion is 1.2 too dark


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.avi"])
@pytest.mark.parametrize("span", [(None, None), (61.3, 66.2), (150.0, 240.0), (0.4, 0.9)])
def test_jumping_about_in_a_long_file_finds_the_same_pictures(tmp_path, name, span):
    # 200 s, key pictures every 8 to 12 s: whole files are read by seeking, inner spans from the key picture before them
    path = tmp_path / name
    options = {"g": "60", "keyint_min": "40", "sc_threshold": "0"} | {"bf": "0" if name.endswith("avi") else "2"}
    write_video(path, numbered_frames(1000, 20, 32), rate=5, options=options)
    first, last = 0.0 if span[0] is None else span[0], 200.0 if span[1] is None else min(200.0, span[1])
    clip = decode_clip(path, DecodeSpec(num_frames=16), *span)
    wanted = {int((first + (index + 0.5) * (last - first) / 16) * 5 + 1e-6) for index in range(16)}
    assert [read_number_small(frame) for frame in clip.frames] == sorted(wanted)


class CountingFile(io.BytesIO):
    """Counts the bytes that are read."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.count += len(found)
        return found


def test_a_span_of_a_long_file_reads_little_else(tmp_path):
    options = {"g": "50", "crf": "0"}
    content = write_video(tmp_path / "a.mp4", numbered_frames(1000, 144, 192), rate=5, options=options).read_bytes()
    counts = []
    for span in ((None, None), (150.0, 152.0)):
        file = CountingFile(content)
        decode_clip(file, DecodeSpec(), *span)
        counts.append(file.count)
    assert counts[0] > 0.9 * len(content)
    assert counts[1] < 0.25 * len(content)  # from the key picture before it, ten seconds of 200 at most


def read_number_small(frame: np.ndarray) -> int:
    column = frame[:, 4:12].mean(axis=(1, 2))
    return sum(int(column[2 * bit : 2 * bit + 2].mean() > 128) << bit for bit in range(10))


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),  # clockwise, a phone held upright
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),  # a front camera
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
    ],
)
def test_the_display_matrix_is_obeyed(tmp_path, matrix, turn):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32], image[:24, 32:], image[24:, :32] = (250, 20, 20), (20, 250, 20), (20, 20, 250)
    path = write_video(tmp_path / "a.mp4", np.stack([image] * 4), options={"crf": "10"})
    clip = decode_clip(set_display_matrix(path, *matrix), DecodeSpec())
    expected = turn(image)
    assert clip.frames.shape[1:] == expected.shape
    assert (clip.height, clip.width) == expected.shape[:2]
    assert np.abs(clip.frames[0].astype(int) - expected).mean() < 8


def test_pixels_that_are_not_square_become_square(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(4), pixel_aspect=Fraction(3, 2))
    clip = decode_clip(path, DecodeSpec())
    assert (clip.width, clip.height, clip.frames.shape[1:3]) == (96, 48, (48, 96))


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((96, 128), 48, (48, 64)), ((128, 96), 48, (64, 48)), ((90, 120), 64, (64, 85)), ((48, 64), 256, (48, 64))],
)
def test_the_shorter_side_is_scaled_down_and_never_up(tmp_path, size, short_side, expected):
    path = write_video(tmp_path / "a.mp4", numbered_frames(2, *size))
    assert decode_clip(path, DecodeSpec(short_side=short_side)).frames.shape[1:3] == expected


@pytest.mark.parametrize("resize", ["crop", "squash"])
@pytest.mark.parametrize(
    ("size", "turned"), [((90, 122), False), ((122, 90), True), ((40, 60), False), ((48, 48), True)]
)
def test_what_a_model_is_shown_is_made_of_the_whole_picture(tmp_path, size, turned, resize):
    options: dict[str, Any] = {"pixel_aspect": Fraction(3, 2)} if size == (40, 60) else {}
    path = write_video(tmp_path / "a.mp4", numbered_frames(6, *size), **options)
    if turned:
        set_display_matrix(path, 0, 1, -1, 0)
    whole = decode_clip(path, DecodeSpec(num_frames=3, short_side=2048))
    shown = decode_clip(path, DecodeSpec(num_frames=3, short_side=48, fit=resize))
    assert np.array_equal(shown.frames, np.stack([fit(frame, 48, resize) for frame in whole.frames]))
    assert (shown.width, shown.height) == (whole.width, whole.height)


def test_scaling_is_antialiased(tmp_path):
    image = np.zeros((128, 128, 3), np.uint8)
    image[:, ::2] = 255  # lines of one pixel: without antialiasing they come out black or white
    path = write_video(tmp_path / "a.mp4", np.stack([image] * 2), options={"crf": "1"})
    frame = decode_clip(path, DecodeSpec(short_side=32)).frames[0]
    assert 110 < frame.mean() < 145
    assert frame[2:-2, 2:-2].std() < 6


@pytest.mark.parametrize("short_side", [64, 32])
def test_colours_are_right_scaled_or_not(tmp_path, short_side):
    colours = [(200, 60, 40), (40, 180, 70), (60, 70, 210), (128, 128, 128)]
    frames = np.stack([np.full((64, 64, 3), colour, np.uint8) for colour in colours])
    path = write_video(tmp_path / "a.mp4", frames, options={"crf": "5"})
    found = decode_clip(path, DecodeSpec(short_side=short_side)).frames.mean(axis=(1, 2))
    np.testing.assert_allclose(found, colours, atol=2.5)


def test_fewer_frames_than_wanted_are_stored_once_each(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(5))
    assert [read_number(frame) for frame in decode_clip(path, DecodeSpec(num_frames=16)).frames] == [0, 1, 2, 3, 4]
    with pytest.raises(VideoRejected, match=r"too few frames: 5 different ones in 0\.0-0\.5 s, 8 are needed"):
        decode_clip(path, DecodeSpec(num_frames=16, min_frames=8))


def test_one_frame_is_enough(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(1))
    clip = decode_clip(path, DecodeSpec())
    assert clip.frames.shape == (1, 48, 64, 3)
    assert clip.seconds.tolist() == [0.0]


def test_uneven_times_are_obeyed(tmp_path):
    times = [*range(10), *range(60, 70), 90]  # ten pictures, five seconds of nothing new, ten pictures, a last one
    path = write_video(tmp_path / "a.mp4", numbered_frames(21), times=times)
    with av.open(str(path)) as container:
        end = float(container.streams.video[0].duration * container.streams.video[0].time_base)
    clip = decode_clip(path, DecodeSpec(num_frames=12))
    everything = all_frames(path)
    wanted = sorted({shown_at(everything, (index + 0.5) * end / 12)[0] for index in range(12)})
    np.testing.assert_allclose(clip.seconds, wanted)
    assert [read_number(frame) for frame in clip.frames] == [times.index(round(seconds * 10)) for seconds in wanted]


def test_content_and_path_give_the_same(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(20), options=B_FRAMES)
    by_path, by_content = decode_clip(path, DecodeSpec()), decode_clip(path.read_bytes(), DecodeSpec())
    np.testing.assert_array_equal(by_path.frames, by_content.frames)


@pytest.mark.parametrize(
    ("name", "container_options"),
    [
        ("live.webm", {"live": "1"}),  # a browser's recording: no length in its header
        ("fragments.mp4", {"movflags": "frag_keyframe+empty_moov"}),
    ],
)
def test_a_header_without_the_length(tmp_path, name, container_options):
    codec = "libvpx" if name.endswith("webm") else "libx264"
    options = {"deadline": "realtime"} if codec == "libvpx" else {"g": "10"}
    path = write_video(
        tmp_path / name, numbered_frames(60), codec=codec, options=options, container_options=container_options
    )
    wanted = [(2 * index + 1) * 60 // 16 for index in range(8)]
    assert [read_number(frame) for frame in decode_clip(path, DecodeSpec(num_frames=8)).frames] == wanted


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_sound_longer_than_the_pictures(tmp_path, name):
    path = write_video(tmp_path / name, numbered_frames(40), sound_seconds=9.0)
    wanted = [(2 * index + 1) * 40 // 16 for index in range(8)]
    assert [read_number(frame) for frame in decode_clip(path, DecodeSpec(num_frames=8)).frames] == wanted


def test_spans(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(50))
    inner = decode_clip(path, DecodeSpec(num_frames=4), 1.0, 3.0)
    assert [read_number(frame) for frame in inner.frames] == [12, 17, 22, 27]
    a_little_over = decode_clip(path, DecodeSpec(num_frames=4), 3.0, 5.8)
    assert [read_number(frame) for frame in a_little_over.frames] == [32, 37, 42, 47]
    with pytest.raises(VideoRejected, match=r"bad span: it starts at 7 s, but the video ends at 5\.0 s"):
        decode_clip(path, DecodeSpec(), 7.0, 9.0)
    with pytest.raises(VideoRejected, match=r"bad span: only 1\.0 s of its 6\.0 s are within the video"):
        decode_clip(path, DecodeSpec(), 4.0, 10.0)


def test_decoding_in_a_worker(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(40))
    with VideoDecoder(num_frames=4, short_side=32) as decoder:
        frames = decoder.decode(path)
        with pytest.raises(VideoRejected, match=r"nothing\.mp4: not found"):
            decoder.decode(tmp_path / "nothing.mp4")
    assert frames.shape == (4, 32, 43, 3)
    assert [read_number(frame) for frame in frames] == [5, 15, 25, 35]


@pytest.mark.parametrize("fields", [{"num_frames": 0}, {"short_side": 8}, {"min_frames": 17}, {"num_frames": 5000}])
def test_impossible_specs(fields):
    with pytest.raises(ConfigError, match="is outside"):
        DecodeSpec(**fields)


def test_an_unknown_fit():
    with pytest.raises(ConfigError, match="fit='stretch': it must be 'crop', 'squash', 'shorter' or empty"):
        DecodeSpec(fit="stretch")
