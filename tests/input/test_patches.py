"""Cutting frames into patches and choosing which are kept, on the host and on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest_jax.input import patches
from harvest_jax.input.motion import motion_weights
from harvest_jax.pixels.square import Crop

DROP_SCOPES = ("clip", "frame", "tube")


def test_patchify_orders_cells_by_frame_row_column():
    video = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    cut = patches.patchify(video, 2)
    assert cut.shape == (2 * 2 * 3, 12)
    # cell 7 = frame 1, row 0, column 1
    np.testing.assert_array_equal(cut[7].reshape(2, 2, 3), video[1, 0:2, 2:4])
    np.testing.assert_array_equal(cut[5].reshape(2, 2, 3), video[0, 2:4, 4:6])


def test_patchify_is_the_same_for_numpy_and_jax_and_batches():
    video = np.random.default_rng(0).integers(0, 256, (3, 2, 8, 8, 3), dtype=np.uint8)
    on_host = patches.patchify(video, 4)
    np.testing.assert_array_equal(on_host, np.asarray(patches.patchify(jnp.asarray(video), 4)))
    np.testing.assert_array_equal(on_host[1], patches.patchify(video[1], 4))


def test_patchify_refuses_frames_that_do_not_divide():
    with pytest.raises(ValueError, match="10 x 8 cannot be cut into patches of 4"):
        patches.patchify(np.zeros((1, 10, 8, 3)), 4)


@pytest.mark.parametrize(
    ("frames", "cells", "keep", "scope", "expected"),
    [
        (8, 196, 0.1, "clip", 157),  # B/16: 1568 - int(0.9 * 1568)
        (8, 196, 0.1, "frame", 160),  # 8 x (196 - 176)
        (8, 196, 0.1, "tube", 160),
        (8, 256, 0.1, "clip", 205),  # L/14
        (8, 64, 0.1, "clip", 52),  # demo
        (1, 10, 0.1, "clip", 1),  # (1 - 0.9) * 10 is 0.99.. in floating point
        (8, 64, 1.0, "clip", 512),
        (2, 4, 0.02, "frame", 2),  # never none
    ],
)
def test_num_kept(frames, cells, keep, scope, expected):
    assert patches.num_kept(frames, cells, keep, scope) == expected


@given(
    frames=st.integers(1, 6),
    cells=st.integers(1, 30),
    keep=st.floats(0.02, 1.0),
    scope=st.sampled_from(DROP_SCOPES),
    seed=st.integers(0, 2**32 - 1),
)
def test_kept_positions_are_distinct_sorted_and_of_the_scope(frames, cells, keep, scope, seed):
    kept = patches.keep_positions(np.random.default_rng(seed), frames, cells, keep, scope)
    assert kept.dtype == np.int32
    assert len(kept) == patches.num_kept(frames, cells, keep, scope)
    assert (np.diff(kept) > 0).all()
    assert kept.min() >= 0
    assert kept.max() < frames * cells
    per_frame = [kept[kept // cells == frame] % cells for frame in range(frames)]
    if scope != "clip":
        assert len({len(chosen) for chosen in per_frame}) == 1
    if scope == "tube":
        assert all((chosen == per_frame[0]).all() for chosen in per_frame)


@pytest.mark.parametrize("scope", DROP_SCOPES)
def test_host_and_device_agree_for_equal_noise_and_indices(scope):
    frames, cells, keep = 4, 9, 0.3
    kept = patches.num_kept(frames, cells, keep, scope)
    shape = {"clip": (2, frames * cells), "frame": (2, frames, cells), "tube": (2, cells)}[scope]
    noise = np.random.default_rng(1).random(shape, dtype=np.float32)
    on_host = patches.positions_from_noise(noise, frames, kept, scope)
    on_device = patches.positions_from_noise(jnp.asarray(noise), frames, kept, scope)
    np.testing.assert_array_equal(on_host, np.asarray(on_device))

    pixels = np.random.default_rng(2).integers(0, 256, (2, frames * cells, 12), dtype=np.uint8)
    gathered = patches.take_patches(pixels, on_host)
    np.testing.assert_array_equal(gathered, np.asarray(jax.jit(patches.take_patches)(jnp.asarray(pixels), on_device)))
    for row in range(2):
        for place, cell in enumerate(on_host[row]):
            np.testing.assert_array_equal(gathered[row, place], pixels[row, cell])
        np.testing.assert_array_equal(patches.take_patches(pixels[row], on_host[row]), gathered[row])


@pytest.mark.parametrize("scope", DROP_SCOPES)
def test_every_cell_is_equally_likely(scope):
    rng = np.random.default_rng(0)
    counts = np.zeros(2 * 10)
    for _ in range(4000):
        counts[patches.keep_positions(rng, 2, 10, 0.3, scope)] += 1
    np.testing.assert_allclose(counts / 4000, 0.3, atol=0.04)


def test_weighted_draws_follow_the_weights():
    """One of five cells is drawn first in proportion to its weight; the second among those that are left."""
    weights = np.array([0.5, 1.0, 1.0, 2.5, 0.0001], np.float32)
    rng = np.random.default_rng(0)
    counts = np.zeros(5)
    for _ in range(4000):
        kept = patches.keep_positions(rng, 1, 5, 0.2, "motion", weights)
        assert len(kept) == 1
        counts[kept] += 1
    np.testing.assert_allclose(counts / 4000, weights / weights.sum(), atol=0.03)
    many = patches.keep_positions(rng, 1, 5, 0.8, "motion", weights)
    assert many.tolist() == [0, 1, 2, 3]


def test_a_still_clip_is_weighed_evenly_and_a_moving_cell_more():
    still = np.full((3, 8, 12, 3), 7, np.uint8)
    np.testing.assert_array_equal(motion_weights(still, Crop(0, 2, 8), 2), np.ones(12))
    np.testing.assert_array_equal(motion_weights(still[:1], Crop(0, 2, 8), 2), np.ones(4))
    moving = still.copy()
    moving[1, :4, 2:6] = 107  # the upper left cell of the crop in the second frame
    weights = motion_weights(moving, Crop(0, 2, 8), 2)
    np.testing.assert_allclose(weights.reshape(3, 4)[:, 1:], 0.5)
    np.testing.assert_allclose(weights.reshape(3, 4)[:, 0], 0.5 + 0.5 * 4)  # a quarter of the cells moves, alike
    mirrored = motion_weights(moving, Crop(0, 2, 8, flip=True), 2)
    np.testing.assert_array_equal(mirrored.reshape(3, 2, 2), weights.reshape(3, 2, 2)[:, :, ::-1])


def test_keeping_all_keeps_all_in_order():
    np.testing.assert_array_equal(patches.keep_positions(np.random.default_rng(0), 2, 5, 1.0), np.arange(10))
