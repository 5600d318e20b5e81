"""A small model and runs of it, for the tests of plans."""

import jax
import numpy as np
import pytest

from harvest_jax.config import run as run_config
from harvest_jax.model.harvest import Harvest
from harvest_jax.weights.folder import save_model
from tests.helpers.small_model import TINY


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    """A model folder, so that runs have its sizes: a step of them compiles in seconds."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    shapes = jax.eval_shape(Harvest(TINY).init, jax.random.key(0))
    save_model(folder, TINY, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes), {})
    return str(folder)


@pytest.fixture(scope="module")
def tiny_run(tiny_folder):
    """Makes the checked config of a run of that model, with overrides."""

    def make(*overrides):
        fields = [f"model.init_from={tiny_folder}", "model.num_frames=3", "model.decoder_layers=1", "text.length=8"]
        fields += ["text.mask_ratio=0.3", "train.batch_size=72", "model.dtype=float32"]
        return run_config.load("base", [*fields, *overrides])

    return make
