import types

import av
import numpy as np
import pytest
from PIL import Image

from data_pipeline.media_paths import VideoRejected
from harvest_jax.search import cut as cutting
from harvest_jax.search.find import Moment
from tests.helpers.video_files import numbered_frames, read_number, set_display_matrix, write_video


def moment(start, end, path="a.mp4"):
    return Moment(1, 0.5, 2.0, path, start, end)


def pictures(path):
    with av.open(str(path)) as container:
        return [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


@pytest.mark.parametrize(("name", "codec", "ending"), [
    ("a.mp4", "libx264", ".mp4"), ("a.mkv", "libx264", ".mkv"), ("a.webm", "libvpx-vp9", ".webm"),
    ("a.ts", "libx264", ".mkv"), ("a.avi", "mpeg4", ".mkv"),
])  # fmt: skip
def test_a_moment_becomes_a_file(tmp_path, name, codec, ending):
    sound = 10.0 if name in ("a.mp4", "a.mkv") else 0.0
    source = write_video(tmp_path / name, numbered_frames(100), codec=codec, options={"g": "20"}, sound_seconds=sound)
    made = cutting.cut(source, moment(5.0, 7.0), tmp_path / "cut")
    assert made.name == f"01 a 5.0-7.0s{ending}"
    found = pictures(made)
    assert 40 <= found[0] <= 50  # from the key picture before
    assert abs(found[-1] - 69) <= 4
    with av.open(str(made)) as container:
        assert len(container.streams.audio) == bool(sound)
        assert container.streams.video[0].codec_context.name == {"libvpx-vp9": "vp9", "libx264": "h264"}.get(
            codec, codec
        )
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [made.name]


def test_a_turned_film_stays_turned_and_an_odd_name_is_a_plain_one(tmp_path):
    odd = tmp_path / "-a\n\"'ü 猫.mp4"
    set_display_matrix(write_video(odd, numbered_frames(60)), 0, -1, 1, 0)
    made = cutting.cut(odd, moment(1.0, 3.0), tmp_path)
    assert made.name == "01 a___ü 猫 1.0-3.0s.mp4"
    with av.open(str(made)) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation in (90, -90)


def test_pictures_are_copied_and_what_is_no_video_is_refused(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "p.png")
    made = cutting.cut(tmp_path / "p.png", moment(0.0, 0.0), tmp_path / "cut")
    assert made.read_bytes() == (tmp_path / "p.png").read_bytes()
    (tmp_path / "t.mp4").write_text("no film")
    with pytest.raises(VideoRejected):
        cutting.cut(tmp_path / "t.mp4", moment(0.0, 1.0), tmp_path / "cut")
    assert len(list((tmp_path / "cut").iterdir())) == 1


def test_the_command_cuts_and_plays(place, monkeypatch):
    started = []
    fake = types.SimpleNamespace(Popen=lambda words, **_: started.append(words), DEVNULL=None)
    monkeypatch.setattr(cutting, "subprocess", fake)
    monkeypatch.setattr(cutting.shutil, "which", lambda name: f"/bin/{name}" if name == "mpv" else None)
    found = place.go("green", "--top", "2", "--cut", str(place.tmp / "cut"), "--open")
    assert len(list((place.tmp / "cut").iterdir())) == 2
    assert started == [["mpv", "--start=0.000", "--", str(place.folder / "below" / "deep" / "g.mp4")]]
    assert "playing with mpv" in found.err
    monkeypatch.setattr(cutting.shutil, "which", lambda _: None)
    assert "no player was found" in place.go("green", "--open").err
