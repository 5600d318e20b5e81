"""Windows have the pictures and the times that a player shows, whatever the file, from one pass over it."""

import bisect

import av
import numpy as np
import pytest

from data_pipeline.decode import windows as windows_module
from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.window_pool import WindowDecoder
from data_pipeline.decode.window_rule import WindowRule
from data_pipeline.decode.windows import decode_windows
from data_pipeline.media_paths import VideoRejected
from harvest_jax.errors import ConfigError
from tests.helpers.video_files import numbered_frames, read_number, set_display_matrix, write_video

SPEC = DecodeSpec(num_frames=4, short_side=48, fit="squash")
RULE = WindowRule(4.0, 2.0)
TIMES = [0, 1, 2, 3, 9, 10, 11, 15, 40, 41, 50, 55, 60, 61, 62, 70, 80, 90, 97, 99]  # in tenths of a second


def numbers(windows):
    return [[read_number(frame) for frame in window.frames] for window in windows]


def shown(starts, end, rule=RULE, frames=4):
    """The pictures that a player shows at the middles of equal parts, from the times of all pictures in seconds."""
    found = []
    for first, last in rule.spans(end):
        times = first + (np.arange(frames) + 0.5) * (last - first) / frames
        found.append([max(0, bisect.bisect_right(starts, time + 1e-6) - 1) for time in times])
    return found


def test_the_rule_covers_a_file_to_its_end():
    assert RULE.spans(3.0) == [(0.0, 3.0)]
    assert RULE.spans(4.9) == [(0.0, 4.9)]  # as long as a window and less than half a stride: one window
    assert RULE.spans(5.1) == [(0.0, 4.0), (pytest.approx(1.1), 5.1)]
    assert RULE.spans(10.0) == [(0, 4), (2, 6), (4, 8), (6.0, 10.0)]
    for bad in ((0.0, 1.0), (4.0, 5.0), (4.0, 0.0), (5000.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(ConfigError):
            WindowRule(*bad)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi", "a.ts", "a.mpg", "a.mov"])
def test_each_window_has_the_pictures_that_a_player_shows(tmp_path, name):
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4", "mpg": "mpeg2video", "mov": "mjpeg"}.get(name[2:], "libx264")
    rate = 25 if name == "a.mpg" else 10
    path = write_video(tmp_path / name, numbered_frames(rate * 10), rate=rate, codec=codec)
    windows = list(decode_windows(path, SPEC, RULE))
    # MPEG's pictures begin one picture after the file's start in FFmpeg's count; the others at it
    wanted = shown([number / rate for number in range(rate * 10)], 10.0)
    assert [(round(window.start, 1), round(window.end, 1)) for window in windows] == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert np.abs(np.subtract(numbers(windows), wanted)).max() <= (2 if name in ("a.mpg", "a.ts", "a.avi") else 0)


def test_times_of_a_variable_rate_are_the_players(tmp_path):
    path = write_video(tmp_path / "a.mkv", numbered_frames(len(TIMES)), times=TIMES)
    with av.open(str(path)) as container:
        starts = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert starts == pytest.approx([time / 10 for time in TIMES])  # FFmpeg's own
    found = list(decode_windows(path, SPEC, RULE))
    assert numbers(found) == shown(starts, found[-1].end)


def test_a_turned_portrait_film_is_upright(tmp_path):
    upright = numbered_frames(60, 64, 48)
    path = write_video(tmp_path / "a.mp4", np.ascontiguousarray(np.rot90(upright, -1, (1, 2))))
    set_display_matrix(path, 0, -1, 1, 0)
    assert numbers(decode_windows(path, SPEC, RULE)) == shown([number / 10 for number in range(60)], 6.0)


def test_a_film_of_ten_hours(tmp_path):
    pictures = 900  # each shown for 40 seconds
    path = write_video(tmp_path / "a.mkv", numbered_frames(pictures), times=list(range(0, 400 * pictures, 400)))
    count = 0
    for count, window in enumerate(decode_windows(path, SPEC, WindowRule(60.0, 30.0)), start=1):
        if count % 100 == 1:
            wanted = [int((window.start + 7.5 + 15 * part) // 40) for part in range(4)]
            assert numbers([window]) == [wanted]
    assert count == round((40 * (pictures - 1) - 60) / 30) + 1


def test_a_short_file_is_the_clip_that_it_was(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(30))
    (window,) = decode_windows(path, SPEC, RULE)
    np.testing.assert_array_equal(window.frames, decode_clip(path, SPEC).frames)
    assert (window.start, window.end) == (0.0, 3.0)


def test_one_pass_without_a_seek_and_no_packet_twice(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", numbered_frames(200), options={"g": "10"})
    given = []
    decoded = windows_module._Pass._packets

    def counted(self):
        for packet, wanted in decoded(self):
            given.append(packet.pts if packet is not None else None)
            yield packet, wanted

    def no_seek(*_, **__):
        raise AssertionError("a seek")

    monkeypatch.setattr(windows_module._Pass, "_packets", counted)
    monkeypatch.setattr("data_pipeline.decode.video_file.seek", no_seek)
    assert len(list(decode_windows(path, SPEC, RULE))) == 9
    assert len(given) == len(set(given)) > 100


def test_pictures_that_nothing_needs_are_not_decoded(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mov", numbered_frames(100), codec="mjpeg")
    count = []
    decoded = windows_module._Pass._packets
    monkeypatch.setattr(
        windows_module._Pass, "_packets", lambda self: (count.append(1) or item for item in decoded(self))
    )
    wanted = {number for window in numbers(decode_windows(path, SPEC, RULE)) for number in window}
    assert len(count) <= len(wanted) + 3


def test_windows_can_be_left_out(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(100))
    whole = list(decode_windows(path, SPEC, RULE))
    rest = list(decode_windows(path, SPEC, RULE, skip=2))
    assert numbers(rest) == numbers(whole)[2:]


def test_a_file_that_was_cut_off_gives_what_is_there(tmp_path):
    path = write_video(tmp_path / "a.mkv", numbered_frames(200), container_options={"reserve_index_space": "4096"})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    found = []
    with pytest.raises(VideoRejected, match=r"cut off|damaged"):
        found.extend(iter_into(found, decode_windows(path, SPEC, RULE)))
    assert 2 <= len(found) <= 7
    assert numbers(found) == shown([number / 10 for number in range(200)], 20.0)[: len(found)]


def iter_into(found, windows):
    for window in windows:
        found.append(window)
    return []


def test_damage_costs_the_windows_that_need_it(tmp_path):
    path = write_video(tmp_path / "a.ts", numbered_frames(300), options={"g": "40", "sc_threshold": "0"})
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 188 * 20] = bytes(188 * 20)
    path.write_bytes(content)
    found = []
    with pytest.raises(VideoRejected, match=r"damaged: \d+ of its \d+ windows are left out"):
        iter_into(found, decode_windows(path, SPEC, RULE))
    assert 8 <= len(found) <= 13


def test_several_files_in_turns_and_bad_ones_alone(tmp_path):
    long = write_video(tmp_path / "long.mp4", numbered_frames(200))
    short = write_video(tmp_path / "short.mp4", numbered_frames(20))
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "empty.mp4").write_bytes(b"")
    paths = [long, tmp_path / "text.mp4", short, tmp_path / "empty.mp4", tmp_path / "gone.mp4", tmp_path]
    found = {number: ([], []) for number in range(len(paths))}
    with WindowDecoder(4, 48, "squash", RULE, workers=2) as decoder:
        for number, window, reason in decoder.decode_all(paths):
            found[number][window is None].append(reason if window is None else read_number(window.frames[0]))
    firsts, ends = zip(*found.values(), strict=True)
    assert firsts[0] == [5, 25, 45, 65, 85, 105, 125, 145, 165]
    assert [len(some) for some in firsts] == [9, 0, 1, 0, 0, 0]
    assert [reason[0].split(":")[0] for reason in ends] == [
        "", "not a video", "", "empty file", "not found", "not a file",
    ]  # fmt: skip
