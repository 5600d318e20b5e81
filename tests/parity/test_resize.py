"""Position tables resized, against the reference implementations' rule in torch."""

import numpy as np
import pytest

from harvest_jax.weights.resize import resize_spatial, resize_temporal

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.parity
CLOSE = {np.float32: 1e-5, np.float64: 1e-13}  # of numbers of size 1; torch finds its weights in the table's own dtype


def open_clip_resize(table: np.ndarray, before: tuple[int, int], after: tuple[int, int]) -> np.ndarray:
    """The rule of OpenCLIP's `resize_pos_embed`, written anew: grids as pictures, the class row apart."""
    grid = torch.from_numpy(table[1:]).T.reshape(1, -1, *before)
    options = {"mode": "bicubic", "antialias": True, "align_corners": False}
    resized = torch.nn.functional.interpolate(grid, after, **options)
    return np.concatenate([table[:1], resized.reshape(table.shape[1], -1).T.numpy()])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((7, 7), (7, 7)),
        ((7, 7), (12, 12)),  # B/32 at 384
        ((14, 14), (24, 24)),  # B/16 at 384
        ((16, 16), (24, 24)),  # L/14 at 336
        ((24, 24), (16, 16)),
        ((24, 24), (5, 5)),
        ((14, 14), (1, 1)),
        ((1, 1), (4, 4)),
        ((9, 5), (4, 11)),
    ],
    ids=str,
)
def test_places_as_open_clip(before, after, dtype):
    table = np.random.default_rng(0).normal(size=(1 + before[0] * before[1], 64)).astype(dtype)
    ours = resize_spatial(table, before, after)
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, open_clip_resize(table, before, after), rtol=0, atol=CLOSE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("after", [2, 3, 4, 7, 8, 9, 12, 16, 32])
@pytest.mark.parametrize("before", [1, 2, 8, 16])
def test_frames_as_torchs_linear_interpolation(before, after, dtype):
    """What ViCLIP's `interpolate_temporal_pos_embed` does to more frames."""
    table = np.random.default_rng(0).normal(size=(before, 64)).astype(dtype)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(table).T[None], after, mode="linear")[0].T.numpy()
    np.testing.assert_allclose(resize_temporal(table, after), theirs, rtol=0, atol=CLOSE[dtype])


def test_one_frame_as_viclips_tower_sees_it():
    """`viclip_vision.py` adds `temporal_positional_embedding.mean(1)` where a clip has one frame."""
    table = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    theirs = torch.from_numpy(table)[None].mean(1).numpy()
    np.testing.assert_allclose(resize_temporal(table, 1), theirs, atol=1e-7)
