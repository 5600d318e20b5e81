import numpy as np
import pytest

from harvest_jax.demo.clip_pictures import highlight_kept, strip


def test_kept_patches_are_as_they_were_and_dropped_ones_dark():
    rng = np.random.default_rng(1)
    frames = rng.integers(60, 256, (3, 16, 24, 3), dtype=np.uint8)
    kept = np.array([0, 7, 17], np.int32)  # of 3 x 2 x 3 cells
    lit = highlight_kept(frames, kept, patch=8)
    assert lit.shape == (3, 32, 48, 3)
    for position in range(18):
        frame, row, column = position // 6, position // 3 % 2, position % 3
        cell = lit[frame, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        own = frames[frame, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].repeat(2, axis=0).repeat(2, axis=1)
        if position in kept:
            np.testing.assert_array_equal(cell[1:-1, 1:-1], own[1:-1, 1:-1])
            assert (cell[0] == 255).all()
            assert (cell[:, -1] == 255).all()
        else:
            assert cell.max() < 110
            assert cell.std() > 0  # where it was can still be seen
    with pytest.raises(ValueError, match=r"0\.\.18 do not lie in 3 x 2 x 3"):
        highlight_kept(frames, np.array([0, 18], np.int32), patch=8)
    assert highlight_kept(frames, np.zeros(0, np.int32), patch=8).max() < 110


def test_a_strip_shows_frames_in_order():
    frames = np.arange(16, dtype=np.uint8).repeat(4 * 6 * 3).reshape(16, 4, 6, 3)
    whole = strip(frames[:3], gap=1)
    assert whole.shape == (4, 20, 3)
    assert whole[0, :, 0].tolist() == [0] * 6 + [255] + [1] * 6 + [255] + [2] * 6
    assert strip(frames, most=4, gap=0)[0, ::6, 0].tolist() == [2, 6, 10, 14]
