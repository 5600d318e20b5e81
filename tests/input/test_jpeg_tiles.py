"""Tiles of stored frames: the same pixels as the whole frames have, for any choice of them."""

import io

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.shards.shard_format import encode_jpeg
from harvest_jax.input import stored_clip
from harvest_jax.input.jpeg_tiles import TILE, decode_tiles, read_tiling
from harvest_jax.input.patches import keep_positions
from harvest_jax.input.stored_clip import StoredClip
from harvest_jax.pixels.resample import kept_patches, touched_tiles
from harvest_jax.pixels.square import Crop, random_crop


def make_frames(height: int, width: int, count: int = 3, seed: int = 0) -> list[np.ndarray]:
    """Colours that change from pixel to pixel, so that a shift by one or a neighbour's colour shows."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, height // 4 + 1, width // 4 + 1, 3), np.uint8)
    pictures = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in noise]
    return [np.asarray(picture) for picture in pictures]


def whole(jpegs) -> list[np.ndarray]:
    return [simplejpeg.decode_jpeg(jpeg, "RGB", fastupsample=True) for jpeg in jpegs]


@given(st.integers(1, 70), st.integers(1, 70), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_wanted_tiles_are_those_of_the_whole_frames(height, width, share, seed):
    jpegs = [encode_jpeg(frame) for frame in make_frames(height, width, seed=seed % 7)]
    tiling = read_tiling(jpegs)
    assert (tiling.height, tiling.width) == (height, width)
    wanted = np.random.default_rng(seed).random((3, tiling.rows, tiling.columns)) < share
    pixels = wanted.repeat(TILE, 1).repeat(TILE, 2)[:, :height, :width]
    for frame, mask, expected in zip(decode_tiles(tiling, jpegs, wanted), pixels, whole(jpegs), strict=True):
        assert frame.shape == (TILE * tiling.rows, TILE * tiling.columns, 3)
        assert np.array_equal(frame[:height, :width][mask], expected[mask])


def test_more_tiles_than_one_picture_can_hold():
    jpegs = [encode_jpeg(frame) for frame in make_frames(500, 1100)]
    tiling = read_tiling(jpegs)
    wanted = np.ones((3, tiling.rows, tiling.columns), bool)
    assert wanted.sum() * TILE > 65500  # the greatest height that libjpeg decodes
    for frame, expected in zip(decode_tiles(tiling, jpegs, wanted), whole(jpegs), strict=True):
        assert np.array_equal(frame[:500, :1100], expected)


def saved(frame: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def test_other_jpegs_have_no_tiles():
    frame = make_frames(40, 56)[0]
    options = {"subsampling": "4:2:0", "restart_marker_blocks": 1}
    ours = saved(frame, **options)
    assert ours == encode_jpeg(frame)
    assert read_tiling([ours, ours]) is not None
    others = [
        saved(frame),
        saved(frame, **options | {"restart_marker_blocks": 2}),
        saved(frame, **options | {"subsampling": "4:4:4"}),
        saved(frame, **options | {"progressive": True}),
        saved(frame[..., 0], restart_marker_blocks=1),
        ours[:100],
        ours[: ours.index(b"\xff\xda") + 1],
        b"",
        b"\xff\xd8\xff\xe0\x00\x00" * 9,
        b"no picture",
    ]
    for other in others:
        assert read_tiling([other]) is None
    assert read_tiling([ours, encode_jpeg(make_frames(40, 55)[0])]) is None  # of another size


def test_a_frame_that_lost_a_tile_is_named_as_damaged():
    jpeg = encode_jpeg(make_frames(40, 56)[0])
    mark = jpeg.index(b"\xff\xd3")
    tiling = read_tiling([jpeg])
    wanted = np.ones((1, 3, 4), bool)
    for damaged in (jpeg[:mark] + jpeg[mark + 2 :], jpeg[:-2], jpeg[:mark]):
        with pytest.raises(ValueError, match="damaged: it has"):
            list(decode_tiles(tiling, [damaged], wanted))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scope", ["clip", "frame", "tube"])
def test_kept_patches_of_tiles_are_those_of_whole_frames(flip, scope, monkeypatch):
    frames = make_frames(72, 120, count=4)
    clip = StoredClip([encode_jpeg(frame) for frame in frames])
    rng = np.random.default_rng(3)
    decoded = []

    def counted(tiling, jpegs, wanted):
        decoded.append(wanted.mean())
        return decode_tiles(tiling, jpegs, wanted)

    monkeypatch.setattr(stored_clip, "decode_tiles", counted)
    for image_size, crop in [(64, random_crop(72, 120, 0.3, flip, rng)) for _ in range(20)] + [
        (48, Crop(0, 0, 48, flip))
    ]:
        positions = keep_positions(rng, 4, (image_size // 8) ** 2, 0.1, scope)
        touched = touched_tiles(crop, image_size, 8, positions, clip.tiles, TILE)
        patches = kept_patches(clip.frames_with(touched), crop, image_size, 8, positions)
        assert np.array_equal(patches, kept_patches(clip.frames(), crop, image_size, 8, positions))
    assert len(decoded) > 10
    assert np.mean(decoded) < 0.5


def test_what_is_not_touched_may_hold_anything():
    rng = np.random.default_rng(0)
    frames = np.stack(make_frames(72, 120, count=2))
    shares = []
    for _ in range(20):
        crop = random_crop(72, 120, 0.3, bool(rng.integers(2)), rng)
        positions = keep_positions(rng, 2, 64, 0.1)
        touched = touched_tiles(crop, 64, 8, positions, (2, 5, 8), TILE)
        mask = touched.repeat(TILE, 1).repeat(TILE, 2)[:, :72, :120, None]
        holes = kept_patches(np.where(mask, frames, 255 - frames), crop, 64, 8, positions)
        assert np.array_equal(holes, kept_patches(frames, crop, 64, 8, positions))
        shares.append(touched.mean())
    assert max(shares) < 0.7  # all would be right as well


def test_mostly_kept_clips_are_decoded_as_wholes(monkeypatch):
    jpegs = [encode_jpeg(frame) for frame in make_frames(32, 32)]
    clip = StoredClip(jpegs)
    monkeypatch.setattr(stored_clip, "decode_tiles", None)  # would fail if it were called
    for frame, expected in zip(clip.frames_with(np.ones(clip.tiles, bool)), whole(jpegs), strict=True):
        assert np.array_equal(frame, expected)
