"""The pictures of each policy out of a video, against a decode of all its pictures."""

from pathlib import Path

import av
import numpy as np
import pytest

from data_pipeline.decode import clip as clip_module
from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.decoded_clip import DecodedClip
from data_pipeline.decode.pool import VideoDecoder
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.media_paths import VideoRejected
from harvest_jax.pixels.frame_sampling import Sampling, inclusive_indices
from tests.helpers.video_files import numbered_frames, read_number, write_video

B_FRAMES = {"bf": "3", "g": "50", "b-pyramid": "normal"}
COUNTED = Sampling("linspace_inclusive")
UNEVEN = [0, 1, 2, 3, 40, 41, 42, 60, 61, 95, 96, 97, 98, 150, 151, 170, 171, 172, 173, 199]  # tenths of a second


def all_pictures(path: Path) -> list[tuple[float, int]]:
    """(second, number) of each picture, by decoding everything; AVI has no times but the order of the pictures."""
    with av.open(str(path)) as container:
        frames = [(frame.time, read_number(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video=0)]
        if container.format.name == "avi":
            return [
                (float(index / container.streams.video[0].average_rate), frames[index][1])
                for index in range(len(frames))
            ]
        return frames


def shown(pictures: list[tuple[float, int]], seconds: float) -> int:
    return max((one for one in pictures if one[0] <= seconds + 1e-6), default=pictures[0])[1]


def numbers(clip: DecodedClip) -> list[list[int]]:
    return [[read_number(clip.frames[index]) for index in view] for view in clip.views]


FAST_VP8 = {"deadline": "realtime", "cpu-used": "8"}
FILES = [
    ("a.mp4", "libx264", B_FRAMES, None),
    ("a.mp4", "libx264", B_FRAMES, UNEVEN),
    ("a.mkv", "libx264", B_FRAMES, None),
    ("a.mkv", "libx264", B_FRAMES, UNEVEN),
    ("a.webm", "libvpx", FAST_VP8, None),
    ("a.webm", "libvpx", FAST_VP8, UNEVEN),
    ("a.gif", "gif", {}, None),
    ("a.gif", "gif", {}, UNEVEN),
    ("a.avi", "mpeg4", {}, None),  # AVI stores no times: its pictures follow at one rate
    ("a.avi", "mpeg4", {"bf": "2"}, None),
    ("a.avi", "libx264", {"bf": "0"}, None),  # with B pictures FFmpeg gives the wrong times, for any policy
]


@pytest.mark.parametrize(("name", "codec", "options", "times"), FILES)
@pytest.mark.parametrize("wanted", [2, 7, 8, 40])
def test_counted_pictures_are_those_of_a_full_decode(tmp_path, name, codec, options, times, wanted):
    path = write_video(tmp_path / name, numbered_frames(20 if times else 75), 10, codec, options, times=times)
    pictures = [number for _, number in all_pictures(path)]
    clip = decode_clip(path, DecodeSpec(num_frames=wanted), sampling=COUNTED)
    assert numbers(clip) == [[pictures[index] for index in inclusive_indices(len(pictures), wanted)]]
    assert len({read_number(frame) for frame in clip.frames}) == len(clip.frames)


@pytest.mark.parametrize("span", [(0.0, 3.0), (1.05, 4.0), (2.0, 2.05), (3.1, 30.0)])
@pytest.mark.parametrize("times", [None, UNEVEN])
def test_counted_pictures_of_a_span_are_those_that_it_shows(tmp_path, times, span):
    path = write_video(tmp_path / "a.mkv", numbered_frames(20 if times else 300), options=B_FRAMES, times=times)
    pictures = all_pictures(path)
    first = shown(pictures, span[0])
    inside = [number for second, number in pictures if number == first or span[0] <= second < min(span[1], 19.95)]
    inside = inside if times else [first] + [n for s, n in pictures if n > first and s < span[1]]
    clip = decode_clip(path, DecodeSpec(num_frames=5), *span, sampling=COUNTED)
    found = numbers(clip)[0]
    assert found == [inside[index] for index in inclusive_indices(len(inside), 5)]


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.avi"])
@pytest.mark.parametrize("span", [(61.3, 66.2), (150.0, 240.0), (None, None)])
def test_counted_pictures_far_into_a_long_file(tmp_path, name, span):
    options = {"g": "60", "keyint_min": "40", "sc_threshold": "0"} | {"bf": "0" if name.endswith("avi") else "2"}
    path = write_video(tmp_path / name, numbered_frames(1000), rate=5, options=options)
    pictures = all_pictures(path)
    first = -1 if span[0] is None else shown(pictures, span[0])
    inside = [number for second, number in pictures if number >= first and second < (span[1] or 1e9)]
    clip = decode_clip(path, DecodeSpec(num_frames=9), *span, sampling=COUNTED)
    assert numbers(clip) == [[inside[index] for index in inclusive_indices(len(inside), 9)]]


@pytest.mark.parametrize("times", [None, UNEVEN])
@pytest.mark.parametrize("sampling", [Sampling("fps"), Sampling("fps", 0.4), Sampling("fps", 3.0, views=2)])
def test_pictures_at_a_rate_are_those_that_a_player_shows(tmp_path, times, sampling):
    count = 20 if times else 200
    path = write_video(tmp_path / "a.mp4", numbered_frames(count), options=B_FRAMES, times=times)
    pictures = all_pictures(path)
    with av.open(str(path)) as container:
        duration = float(container.streams.video[0].duration * container.streams.video[0].time_base)
    clip = decode_clip(path, DecodeSpec(num_frames=1000), sampling=sampling)
    expected = []
    for view in range(sampling.views):
        seconds = (np.arange(10_000) + view / sampling.views) / sampling.fps
        expected.append([shown(pictures, second) for second in seconds if second < duration - 1e-6])
    assert numbers(clip) == expected
    assert len({number for view in expected for number in view}) == len(clip.frames)


@pytest.mark.parametrize("times", [None, UNEVEN])
def test_views_of_the_segments_are_what_a_player_shows_there(tmp_path, times):
    path = write_video(tmp_path / "a.mp4", numbered_frames(20 if times else 200), options=B_FRAMES, times=times)
    pictures, spec = all_pictures(path), DecodeSpec(num_frames=4)
    clip = decode_clip(path, spec, 2.0, 14.0, Sampling(views=3))
    assert numbers(clip) == [[shown(pictures, 2 + 3 * part + share) for part in range(4)] for share in (0.5, 1.5, 2.5)]
    single = decode_clip(path, spec, 2.0, 14.0)
    assert numbers(clip)[1] == numbers(single)[0]


def test_all_views_are_read_in_one_go(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", numbered_frames(200), options=B_FRAMES)
    opened, collected = [], []
    real_open, real_read = clip_module.open_video, clip_module.read_stretch
    monkeypatch.setattr(clip_module, "open_video", lambda *args: opened.append(1) or real_open(*args))
    monkeypatch.setattr(
        clip_module, "read_stretch", lambda *args, **more: collected.append(1) or real_read(*args, **more)
    )
    clip = decode_clip(path, DecodeSpec(num_frames=4), sampling=Sampling(views=10))
    assert (len(opened), len(collected)) == (1, 1)
    assert [len(view) for view in clip.views] == [4] * 10
    assert len(clip.frames) == 40


def test_a_file_that_is_cut_off_is_refused_by_every_policy(tmp_path):
    whole = write_video(tmp_path / "a.mp4", numbered_frames(100), container_options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for sampling in (Sampling(), COUNTED, Sampling("fps")):
        with pytest.raises(VideoRejected, match=r"cut off|damaged"):
            decode_clip(cut, DecodeSpec(num_frames=4), sampling=sampling)


def test_worker_processes_give_views(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(30, 48, 96))
    with VideoDecoder(3, 32, 2, fit="shorter", sampling=Sampling("linspace_inclusive", crops=3)) as decoder:
        one, bad = decoder.decode_views([(path, None, None), (tmp_path / "none.mp4", None, None)])
    assert isinstance(bad, VideoRejected)
    assert one.frames.shape == (3, 32, 64, 3)
    assert [view.tolist() for view in one.views] == [[0, 1, 2]]
    assert [read_number(frame) for frame in one.frames] == [0, 14, 29]
