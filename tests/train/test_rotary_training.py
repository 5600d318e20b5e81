"""Post-pretraining of towers with rotary positions: every parameter learns, and FLOPs are those of the program."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import traverse_util

from harvest_jax.model.harvest import Harvest
from harvest_jax.train.flops import step_flops
from harvest_jax.train.freeze import partition
from harvest_jax.train.step import Step
from tests.helpers.checkpoint_tensors import EVA, PE
from tests.helpers.matrix_flops import matrix_flops
from tests.helpers.small_model import TINY
from tests.helpers.train_runs import BATCH, make_batch, make_run


def small(config):
    fields = {"image_size": 8, "num_frames": 3, "width": 16, "layers": 1, "embed_dim": 12, "mlp_width": 40}
    return dataclasses.replace(TINY, video=dataclasses.replace(config.video, **fields, pooling_mlp_width=24))


MODELS = {"EVA-02": small(EVA), "PE-Core": small(PE)}


@pytest.mark.parametrize(("kind", "remat"), [("EVA-02", "full"), ("PE-Core", "none")])
def test_flops_are_those_of_the_program(kind, remat):
    config, fields = MODELS[kind], {"model__size": "demo", "model__num_frames": 3, "model__keep_ratio": 0.5}
    run = make_run(**fields, text__mask_ratio=0.3, model__remat=remat)
    params = jax.eval_shape(Harvest(config).init, jax.random.key(0))
    trained, frozen = partition(params, run.train.lr_multipliers)
    traced = jax.make_jaxpr(Step(Harvest(config, remat=remat), run).gradient)(trained, frozen, make_batch())
    expected = step_flops(run, config)
    counted = matrix_flops(traced) / BATCH
    np.testing.assert_allclose(counted, expected["total"] + expected["recomputed"], rtol=1e-6)


@pytest.mark.slow
def test_every_parameter_of_the_video_tower_has_a_gradient():
    """The bias of the keys too, which EVA-02 has not: with rotary positions it is no constant in the scores."""
    config, run = MODELS["EVA-02"], make_run(model__temporal_init="ramp")
    params = jax.jit(lambda key: Harvest(config).init(key, "ramp"))(jax.random.key(0))
    trained, frozen = partition(params, run.train.lr_multipliers)
    _, gradient = jax.jit(Step(Harvest(config), run).gradient)(trained, frozen, make_batch())
    for path, leaf in traverse_util.flatten_dict(gradient["video"], sep="/").items():
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path
