import dataclasses

import numpy as np
import pytest

from harvest_jax.demo import world


def test_a_twin_is_the_clip_played_backwards():
    rng = np.random.default_rng(0)
    for motion in world.MOTIONS:
        scene = world.random_scene(rng, "red", "heart", motion)
        assert scene.twin.twin == scene
        assert scene.twin.caption != scene.caption
        np.testing.assert_array_equal(world.render_clip(scene.twin), world.render_clip(scene)[::-1])


@pytest.mark.parametrize("motion", world.MOTIONS)
def test_every_motion_moves_as_it_says(motion):
    scene = world.random_scene(np.random.default_rng(1), "red", "bar", motion)
    scene = dataclasses.replace(scene, ground=world.GROUNDS[0], angle=0.0)
    seen = world.render_clip(scene).astype(int)[..., 0] > 130  # the red thing
    first, last = seen[1], seen[-2]

    def centre(mask):
        rows, columns = np.nonzero(mask)
        return rows.mean(), columns.mean()

    if motion == "moves left":
        assert centre(last)[1] < centre(first)[1] - 20
    elif motion == "moves right":
        assert centre(last)[1] > centre(first)[1] + 20
    elif motion == "moves up":
        assert centre(last)[0] < centre(first)[0] - 20
    elif motion == "moves down":
        assert centre(last)[0] > centre(first)[0] + 20
    elif motion == "grows":
        assert last.sum() > 3 * first.sum()
    elif motion == "shrinks":
        assert first.sum() > 3 * last.sum()
    elif motion == "blinks on":
        assert first.sum() == 0 < last.sum()
    elif motion == "blinks off":
        assert last.sum() == 0 < first.sum()
    else:
        # the bar's tilt: sign of the covariance of row and column; clockwise goes from leaning left to leaning right
        tilts = []
        for mask in (first, last):
            rows, columns = np.nonzero(mask)
            tilts.append(-np.cov(rows, columns)[0, 1])
        assert (tilts[1] > 0 > tilts[0]) == (motion == "turns clockwise")


@pytest.mark.parametrize("shape", world.SHAPES)
def test_a_patch_of_a_turning_thing_tells_which_way_it_stands(shape):
    """The pale foot goes from one side to the other: at the first frame right of the middle, at the last left of it."""
    scene = world.random_scene(np.random.default_rng(2), "blue", shape, "turns clockwise")
    scene = dataclasses.replace(scene, ground=world.GROUNDS[0], angle=0.0, x=0.5, y=0.5)
    pale = world.render_clip(scene).astype(int).min(axis=-1) > 150
    for frame, right in ((pale[0], True), (pale[-1], False)):
        _, columns = np.nonzero(frame)
        assert len(columns) > 2 * 64  # more than two patches
        assert (columns.mean() > world.SIZE / 2) == right


def test_held_out_combinations_leave_every_word_and_both_twins_in_training():
    training, held = world.combinations(held=False), world.combinations(held=True)
    assert len(training) + len(held) == len(world.COLORS) * len(world.SHAPES) * len(world.MOTIONS)
    assert not set(training) & set(held)
    for color in world.COLORS:
        for motion in world.MOTIONS:
            assert any(c == color and m == motion for c, _, m in training)
            assert any(c == color and m == motion for c, _, m in held)
    assert {(c, s, world.REVERSED[m]) for c, s, m in held} == set(held)
