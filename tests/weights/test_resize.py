"""Position tables: what has to hold whatever the interpolation; the reference is in tests/parity/test_resize.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from harvest_jax.model.video_tower import temporal_ramp
from harvest_jax.weights.resize import cubic_weights, linear_weights, resize_spatial, resize_temporal

GRIDS = [((7, 7), (14, 14)), ((16, 16), (24, 24)), ((24, 24), (16, 16)), ((14, 14), (3, 5)), ((4, 6), (6, 4))]


def table(rows: int, width: int = 5, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equal_sizes_change_nothing(dtype):
    places, frames = table(1 + 12, dtype=dtype), table(8, dtype=dtype)
    for same, known in ((resize_spatial(places, (3, 4), (3, 4)), places), (resize_temporal(frames, 8), frames)):
        assert same.dtype == dtype
        assert np.array_equal(same, known)


@pytest.mark.parametrize(("before", "after"), GRIDS)
def test_the_class_row_stays_and_a_level_table_stays_level(before, after):
    places = table(1 + before[0] * before[1])
    resized = resize_spatial(places, before, after)
    assert resized.shape == (1 + after[0] * after[1], 5)
    assert resized.dtype == np.float32
    assert np.array_equal(resized[0], places[0])
    assert not np.array_equal(resized[1:4], places[1:4])
    level = np.concatenate([places[:1], np.broadcast_to(places[1], (before[0] * before[1], 5))])
    np.testing.assert_allclose(resize_spatial(level, before, after)[1:], np.tile(places[1], (after[0] * after[1], 1)))


@pytest.mark.parametrize(("before", "after"), GRIDS)
def test_places_are_resized_as_pillow_resizes_a_picture(before, after):
    """Pillow's float pictures: the same filter, written by others."""
    places = table(1 + before[0] * before[1])
    resized = resize_spatial(places, before, after)[1:].reshape(*after, 5)
    for channel in range(5):
        picture = Image.fromarray(places[1:, channel].reshape(before))
        wanted = np.asarray(picture.resize(after[::-1], Image.Resampling.BICUBIC))
        np.testing.assert_allclose(resized[..., channel], wanted, atol=2e-6)


def test_rows_and_columns_are_not_exchanged():
    rows = np.arange(4.0)[:, None] * np.ones((1, 6))  # the number of the row
    places = np.concatenate([[0.0], rows.ravel()])[:, None]
    resized = resize_spatial(places, (4, 6), (8, 12))[1:, 0].reshape(8, 12)
    assert np.ptp(resized, axis=1).max() < 1e-12
    assert (np.diff(resized[:, 0]) > 0).all()


def test_frames_are_interpolated_in_time():
    times = (np.arange(8) + 0.5)[:, None] / 8
    more = resize_temporal(times, 16)[:, 0]
    np.testing.assert_allclose(more[1:-1], (np.arange(1, 15) + 0.5) / 16)
    np.testing.assert_allclose(more[[0, -1]], times[[0, -1], 0])  # level outside
    np.testing.assert_allclose(resize_temporal(times, 4)[:, 0], (np.arange(4) + 0.5) / 4)  # means of pairs
    np.testing.assert_allclose(resize_temporal(times, 3)[:, 0], (np.arange(3) + 0.5) / 3)
    np.testing.assert_allclose(resize_temporal(times[:1], 5), np.full((5, 1), times[0]))


@given(st.integers(1, 40), st.integers(2, 40))
def test_frames_turned_round_come_out_turned_round(before, after):
    known = table(before)
    np.testing.assert_allclose(resize_temporal(known[::-1], after), resize_temporal(known, after)[::-1], atol=1e-6)
    assert resize_temporal(known, after).min() >= known.min() - 1e-6
    assert resize_temporal(known, after).max() <= known.max() + 1e-6


def test_one_frame_gets_the_mean():
    known = table(8)
    single = resize_temporal(known, 1)
    assert single.shape == (1, 5)
    np.testing.assert_allclose(single[0], known.mean(axis=0), atol=1e-7)
    assert not resize_temporal(np.zeros((8, 5), np.float32), 1).any()
    assert np.abs(resize_temporal(np.asarray(temporal_ramp(8, 16)), 1)).max() < 1e-7


@given(st.integers(1, 40), st.integers(1, 40))
def test_weights_sum_to_one_and_mirror(before, after):
    for weights in (linear_weights(before, after), cubic_weights(before, after)):
        assert weights.shape == (after, before)
        np.testing.assert_allclose(weights.sum(axis=1), 1)
        np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-12)


def test_impossible_tables():
    with pytest.raises(ValueError, match="expected 13 rows for 3 x 4 patches and a class token, got 12"):
        resize_spatial(table(12), (3, 4), (6, 8))
    with pytest.raises(ValueError, match="of 3 frames to 0"):
        resize_temporal(table(3), 0)
