import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harvest_jax.input.patches import patchify, take_patches
from harvest_jax.pixels.frame_sampling import segment_indices
from harvest_jax.pixels.resample import kept_patches
from harvest_jax.pixels.square import (
    Crop,
    center_crop,
    fit,
    for_decoder,
    prepare_clip,
    random_crop,
    squares,
    view_clips,
)
from tests.helpers.clip_transform import SIZES, clip_transform, picture
from tests.helpers.whole_crop import apply_crop


def smooth_clip(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A clip that looks different everywhere: a few colours, none near black or white, blown up to the wanted size."""
    small = np.random.default_rng(seed).integers(70, 180, (frames, 7, 9, 3), dtype=np.uint8)
    images = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in small]
    return np.stack([np.asarray(image) for image in images])


@pytest.mark.parametrize(
    ("stored", "wanted", "middle"),
    [
        (16, 8, [1, 3, 5, 7, 9, 11, 13, 15]),
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (9, 3, [1, 4, 7]),
        (16, 1, [8]),
        (3, 8, [0, 0, 0, 1, 1, 1, 2, 2]),
        (1, 4, [0, 0, 0, 0]),
    ],
)
def test_middle_frames(stored, wanted, middle):
    assert segment_indices(stored, wanted, None).tolist() == middle


@settings(deadline=None)  # a busy machine must not fail it
@given(st.integers(1, 200), st.integers(1, 64), st.integers(0, 2**32 - 1))
def test_random_frames_lie_in_their_segments(stored, wanted, seed):
    chosen = segment_indices(stored, wanted, np.random.default_rng(seed))
    assert chosen.shape == (wanted,)
    assert chosen.min() >= 0
    assert chosen.max() < stored
    assert np.all(np.diff(chosen) >= (1 if stored >= wanted else 0))  # in order; none twice unless there are too few
    assert np.all(chosen >= np.arange(wanted) * stored // wanted)
    if stored >= wanted:
        assert np.all(chosen < (np.arange(wanted) + 1) * stored / wanted)


def test_random_frames_use_the_whole_segment():
    rng = np.random.default_rng(0)
    drawn = np.stack([segment_indices(12, 3, rng) for _ in range(200)])
    for i in range(3):
        assert set(drawn[:, i].tolist()) == set(range(4 * i, 4 * i + 4))


def test_no_frames():
    with pytest.raises(ValueError, match="of 0 frames"):
        segment_indices(0, 8, None)


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.01, 1), st.integers(0, 2**32 - 1))
def test_random_crop_is_inside_and_large_enough(height, width, min_scale, seed):
    crop = random_crop(height, width, min_scale, False, np.random.default_rng(seed))
    assert crop.top >= 0
    assert crop.left >= 0
    assert crop.top + crop.side <= height
    assert crop.left + crop.side <= width
    assert crop.side >= max(1, np.sqrt(min_scale) * min(height, width) - 0.5)
    if min_scale == 1:
        assert crop.side == min(height, width)


def test_random_crop_reaches_both_borders():
    rng = np.random.default_rng(0)
    crops = [random_crop(20, 30, 1.0, False, rng) for _ in range(300)]
    assert {crop.left for crop in crops} == set(range(11))
    assert {crop.top for crop in crops} == {0}


def test_center_crop():
    assert center_crop(100, 160) == Crop(0, 30, 100)
    assert center_crop(161, 100, flip=True) == Crop(30, 0, 100, True)


def test_crop_without_resizing_copies_pixels():
    clip = smooth_clip(2, 40, 60)
    assert np.array_equal(apply_crop(clip, Crop(3, 5, 32), 32), clip[:, 3:35, 5:37])
    assert np.array_equal(apply_crop(clip, Crop(3, 5, 32, True), 32), clip[:, 3:35, 5:37][:, :, ::-1])


def test_resizing_is_antialiased():
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255  # one pixel wide: without antialiasing a 4-fold reduction gives all black or all white
    small = apply_crop(stripes, Crop(0, 0, 64), 16)
    assert small.shape == (1, 16, 16, 3)
    assert np.abs(small[:, 2:-2, 2:-2].astype(int) - 128).max() < 12


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_fitting_is_the_transform_that_clip_was_trained_with(size):
    frame = picture(*size)
    square = fit(frame, 224, "crop")
    assert square.dtype == np.uint8
    assert np.array_equal(square, np.asarray(clip_transform(Image.fromarray(frame), 224)))
    assert np.array_equal(fit(square, 224, "crop"), square)  # what fits stays as it is
    assert np.array_equal(fit(square, 224, "squash"), square)


@pytest.mark.parametrize("excess", range(12))
def test_the_crop_begins_where_torchvision_begins(excess):
    frame = picture(32, 32 + excess)  # its shorter side fits: it is only cut
    left = [0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6][excess]  # halves to the even number
    assert np.array_equal(fit(frame, 32, "crop"), frame[:, left : left + 32])
    assert np.array_equal(fit(frame.swapaxes(0, 1), 32, "crop"), frame[:, left : left + 32].swapaxes(0, 1))


def test_squashing_keeps_all_of_the_picture():
    frame = picture(60, 100)
    resized = Image.fromarray(frame).resize((48, 48), Image.Resampling.BICUBIC)
    assert np.array_equal(fit(frame, 48, "squash"), np.asarray(resized))


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_prepare_clip_is_fitted_middle_frames(resize):
    clip = smooth_clip(16, 48, 80)
    for stored, wanted, middle in ((16, 4, [2, 6, 10, 14]), (3, 8, [0, 0, 0, 1, 1, 1, 2, 2]), (1, 2, [0, 0])):
        for size in (48, 30, 100):
            expected = np.stack([fit(clip[i], size, resize) for i in middle])
            assert np.array_equal(prepare_clip(clip[:stored], wanted, size, resize), expected)
    cut = clip[[2, 6, 10, 14]][:, :, 16:64]
    assert np.array_equal(prepare_clip(clip, 4, 48, "crop"), cut)


CROPS = [Crop(0, 20, 64), Crop(3, 5, 48), Crop(9, 1, 33), Crop(0, 0, 25), Crop(7, 41, 57), Crop(1, 2, 6)]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", CROPS, ids=lambda crop: str(crop.side))
def test_kept_patches_equal_gathered_patches_of_whole_frames(crop, flip):
    clip = smooth_clip(3, 64, 100)
    crop = Crop(crop.top, crop.left, crop.side, flip)
    positions = np.sort(np.random.default_rng(1).permutation(3 * 9)[:13]).astype(np.int32)
    kept = kept_patches(clip, crop, 48, 16, positions)
    whole = take_patches(patchify(apply_crop(clip, crop, 48), 16), positions)
    assert kept.shape == whole.shape == (13, 16 * 16 * 3)
    difference = np.abs(kept.astype(int) - whole)
    # Pillow rounds to whole numbers between its two passes, we only at the end: one step, rarely two.
    assert difference.max() <= (0 if crop.side == 48 else 2)
    assert difference.mean() < 0.3


@settings(deadline=None)
@given(st.data())
def test_kept_patches_for_any_crop(data):
    height, width = data.draw(st.integers(8, 60)), data.draw(st.integers(8, 60))
    side = data.draw(st.integers(4, min(height, width)))
    top, left = data.draw(st.integers(0, height - side)), data.draw(st.integers(0, width - side))
    crop = Crop(top, left, side, data.draw(st.booleans()))
    patch = data.draw(st.sampled_from([4, 8]))
    clip = smooth_clip(2, height, width)
    positions = np.arange(2 * (24 // patch) ** 2, dtype=np.int32)
    kept = kept_patches(clip, crop, 24, patch, positions)
    assert np.abs(kept.astype(int) - patchify(apply_crop(clip, crop, 24), patch)).max() <= 2


def test_kept_patches_of_a_constant_clip_are_constant():
    clip = np.full((2, 50, 70, 3), (10, 128, 255), np.uint8)
    kept = kept_patches(clip, Crop(2, 3, 41), 32, 8, np.arange(32, dtype=np.int32))
    assert np.array_equal(kept.reshape(-1, 3), np.tile([10, 128, 255], (32 * 64, 1)))


def test_frames_are_used_one_by_one_and_only_as_far_as_needed():
    clip = smooth_clip(4, 20, 20)
    positions = np.array([0, 5, 6], np.int32)  # 2 x 2 cells a frame: the first and the second frame
    asked = []

    def frames():
        for t, frame in enumerate(clip):
            asked.append(t)
            yield frame

    kept = kept_patches(frames(), Crop(1, 2, 16), 16, 8, positions)
    assert asked == [0, 1]
    assert np.array_equal(kept, take_patches(patchify(clip[:, 1:17, 2:18], 8), positions))
    with pytest.raises(ValueError, match="fewer frames"):
        kept_patches(clip[:1], Crop(1, 2, 16), 16, 8, positions)


@pytest.mark.parametrize("tall", [False, True])
def test_three_squares_are_the_start_the_centre_and_the_end_of_the_longer_side(tall):
    picture = np.random.default_rng(0).integers(0, 256, (48, 91, 3), np.uint8)
    cut = [picture[:, left : left + 48] for left in (0, 22, 43)]  # the centre as `fit` has it: 21.5 to the even number
    if tall:
        picture, cut = picture.swapaxes(0, 1), [square.swapaxes(0, 1) for square in cut]
    assert np.array_equal(squares(picture, 48, 3), cut)
    assert np.array_equal(squares(picture, 48, 1), cut[1:2])
    assert np.array_equal(fit(picture, 48, "crop"), cut[1])


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_views_are_fitted_frames_in_their_order(resize):
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8)
    views = [np.array([2, 0, 0]), np.array([1])]
    clips = view_clips(iter(frames), views, 32, resize, 1)
    assert [clip.shape for clip in clips] == [(3, 32, 32, 3), (1, 32, 32, 3)]
    for clip, view in zip(clips, views, strict=True):
        assert np.array_equal(clip, np.stack([fit(frames[index], 32, resize) for index in view]))


def test_crops_of_what_the_decoder_scaled_are_those_of_the_whole_frame():
    frames = np.random.default_rng(0).integers(0, 256, (2, 54, 96, 3), np.uint8)
    sent = [for_decoder(frame, 32, "shorter") for frame in frames]
    assert {frame.shape for frame in sent} == {(32, 56, 3)}
    view = [np.arange(2)]
    assert np.array_equal(view_clips(sent, view, 32, "crop", 3), view_clips(frames, view, 32, "crop", 3))
