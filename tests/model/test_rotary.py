"""Rotary positions of the video tower: what turns by how much, and that they follow the patches that are kept."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harvest_jax.input.patches import patchify
from harvest_jax.model.blocks import turned
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import Harvest
from harvest_jax.model.video_tower import rotary_angles
from tests.helpers.checkpoint_tensors import EVA, PE
from tests.helpers.small_model import SMALL

# No class token, which would be a fixed point: then attention knows nothing but how far patches are from each other.
TOWER = dataclasses.replace(
    SMALL.video, image_size=16, num_frames=2, rotary=True, class_token=False, pooling="attention", layers=2
)
CONFIG = dataclasses.replace(SMALL, video=TOWER, decoder=None)
CELLS = np.array([0, 1, 5, 6])  # of the 4 x 4 of a frame; a row and a column are free behind them


@pytest.fixture(scope="module")
def embed():
    """Patches and cells to embeddings, by towers of random numbers and tables of zeros."""
    harvest = Harvest(CONFIG)
    shapes = jax.eval_shape(harvest.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    for table in ("spatial_embedding", "temporal_embedding"):
        params["video"][table] *= 0
    program = jax.jit(harvest.encode_video)
    video = np.random.default_rng(1).integers(0, 256, (1, 1, 8, 8, 3), dtype=np.uint8)
    patches = patchify(video, 4)  # four of them
    return lambda cells, order=slice(None): np.asarray(
        program(params, patches[:, order], cells[None, order].astype(np.int32))["embedding"]
    )


@pytest.mark.parametrize("step", [1, 4, 5, 16], ids=["column", "row", "both", "frame"])
def test_moving_all_patches_alike_changes_nothing(embed, step):
    np.testing.assert_allclose(embed(CELLS + step), embed(CELLS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cells", [[0, 1, 5, 7], [0, 1, 5, 10], [0, 4, 5, 9]], ids=["column", "row", "transposed"])
def test_moving_one_patch_or_exchanging_the_axes_does(embed, cells):
    assert np.abs(embed(np.array(cells)) - embed(CELLS)).max() > 1e-3


def test_angles_follow_the_patches_that_are_kept(embed):
    order = np.array([3, 0, 2, 1])
    np.testing.assert_allclose(embed(CELLS, order), embed(CELLS), rtol=1e-5, atol=1e-6)


def test_pairs_of_channels_turn_as_complex_numbers():
    rng = np.random.default_rng(0)
    x, angles = rng.normal(size=(2, 3, 2, 8)).astype(np.float32), rng.normal(size=(2, 3, 1, 4)).astype(np.float32)
    found = np.asarray(turned(jnp.asarray(x), (jnp.cos(angles), jnp.sin(angles))))
    expected = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angles)
    np.testing.assert_allclose(found[..., :4] + 1j * found[..., 4:], expected, atol=1e-6)


def test_the_angles_of_a_cell():
    """Rows turn the first half of the pairs, columns the second; EVA-02 counts any side as 16, PE from 1."""
    width = TOWER.width // TOWER.heads  # 8: two frequencies for each axis, 1 and 1/100
    angles = rotary_angles(TOWER)
    assert (angles.shape, angles.dtype) == ((16, width // 2), np.float32)
    np.testing.assert_allclose(angles[4 * 3 + 2], [3, 0.03, 2, 0.02], rtol=1e-6)
    started = rotary_angles(dataclasses.replace(TOWER, rotary_start=1))
    np.testing.assert_allclose(started[4 * 3 + 2], [4, 0.04, 3, 0.03], rtol=1e-6)
    scaled = rotary_angles(dataclasses.replace(TOWER, rotary_grid=16))
    np.testing.assert_allclose(scaled[4 * 3 + 2], [12, 0.12, 8, 0.08], rtol=1e-6)


@pytest.mark.parametrize("config", [EVA, PE], ids=["EVA-02", "PE-Core"])
def test_the_config_is_kept_and_checked(config):
    assert HarvestConfig.from_dict(config.to_dict()) == config
    for field, value in (
        ("rotary_grid", -1),
        ("pooling_heads", 7),
        ("heads", 64),  # of two channels
        ("activation", "silu"),
    ):
        values = config.to_dict()
        values["video"][field] = value
        with pytest.raises(ValueError, match=r".+"):
            HarvestConfig.from_dict(values)
    values = config.to_dict()
    values["text"]["activation"] = "swiglu"  # of the video tower alone
    with pytest.raises(ValueError, match="unknown activation"):
        HarvestConfig.from_dict(values)
