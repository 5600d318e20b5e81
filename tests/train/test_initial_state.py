"""The parameters at step 0 of a run that starts from a model folder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from harvest_jax import cli
from harvest_jax.config import run as run_config
from harvest_jax.demo.image_clip import SHIPPED
from harvest_jax.errors import ConfigError
from harvest_jax.model.harvest import Harvest, parameter_shapes
from harvest_jax.model.video_tower import temporal_ramp
from harvest_jax.train.initial_state import initial_parameters
from harvest_jax.train.mesh import make_mesh
from harvest_jax.train.model_of_run import model_config
from harvest_jax.weights.folder import load_config, load_model
from harvest_jax.weights.resize import resize_temporal
from tests.helpers.model_folders import save_random_model

BASE = "configs/base.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A video model of the demo's towers with a decoder, of random numbers."""
    return save_random_model(tmp_path_factory.mktemp("model") / "video", dtype=np.float16)


class Fresh(Harvest):
    """Harvest's init without its random numbers, which take seconds to compile: zeros, and the table of frames."""

    def init(self, key, temporal_init):
        flat = {name: jnp.zeros(shape) for name, shape in parameter_shapes(self.config).items()}
        if temporal_init == "ramp":
            flat["video/temporal_embedding"] = temporal_ramp(self.config.video.num_frames, self.config.video.width)
        return traverse_util.unflatten_dict(flat, sep="/")


def start(init_from, *overrides):
    """(the run's model config, its parameters at step 0)."""
    fields = ["model.decoder_layers=1", "data.shards=x", "model.size=demo", f"model.init_from={init_from}"]
    loaded = run_config.load(BASE, [*fields, *overrides])
    model = model_config(loaded)
    return model, initial_parameters(loaded, Fresh(model), make_mesh(loaded.mesh, 8, jax.devices()[:1]))


def imported(source, out, *changes):
    assert cli.main(["weights", "import", str(source), "--out", str(out), *map(str, changes)]) == 0
    return out


def test_towers_of_any_size_start_a_run(tmp_path, folder):
    """64 frames' worth of other fields: the resolution, the activation and the preprocessing are the folder's."""
    source = imported(folder, tmp_path / "d", "--image_size", 32, "--activation", "gelu", "--resize", "squash")
    assert load_config(source).name == "demo@32"
    model, params = start(source, "model.num_frames=8", "model.size=B/16", "model.decoder_layers=2")
    assert (model.video.image_size, model.video.width, model.video.activation) == (32, 64, "gelu")
    assert (model.video.num_frames, model.decoder.layers, model.decoder.width) == (8, 2, 64)
    assert model.decoder.memory_width == model.video.width
    assert model.preprocessing.resize == "squash"
    _, found = load_model(source)
    np.testing.assert_array_equal(params["video"]["proj"]["kernel"], found["video"]["proj"]["kernel"])
    np.testing.assert_array_equal(params["text"]["positional_embedding"], found["text"]["positional_embedding"])
    with pytest.raises(ConfigError, match=r"text\.length=40 exceeds the 32 of demo@32"):
        start(source, "text.length=40")


def test_a_named_size_must_be_the_runs(folder):
    with pytest.raises(ConfigError, match=r"model\.size=B/16 but model\.init_from=.* holds demo: set one of them"):
        start(folder, "model.size=B/16")


def test_how_the_table_of_frames_starts(folder):
    table = load_model(folder)[1]["video"]["temporal_embedding"]
    ramp = "model.temporal_init=ramp"
    same = start(folder, "model.num_frames=4", ramp)[1]["video"]["temporal_embedding"]
    np.testing.assert_array_equal(same, table)
    more = start(folder, "model.num_frames=6", ramp)[1]["video"]["temporal_embedding"]
    np.testing.assert_array_equal(more, resize_temporal(table, 6))
    image = start(SHIPPED, "model.num_frames=6", ramp)[1]["video"]["temporal_embedding"]
    assert image.shape == (6, 64)
    assert np.abs(image).max() > 0.1  # the ramp
    row = load_model(SHIPPED)[1]["video"]["temporal_embedding"]
    assert row.shape == (1, 64)
    assert row.any()  # it belongs to what the image tower learnt, and stays: the ramp is centred on zero
    np.testing.assert_allclose(image.mean(axis=0, keepdims=True), row, atol=1e-6)
    zeros = start(SHIPPED, "model.num_frames=6")[1]["video"]["temporal_embedding"]
    np.testing.assert_array_equal(zeros, np.repeat(row, 6, axis=0))


def test_a_table_of_zeros_is_none(tmp_path):
    assert cli.main(["weights", "export", str(SHIPPED), "--format", "open_clip", "--out", str(tmp_path / "oc")]) == 0
    zeros = imported(tmp_path / "oc", tmp_path / "eight", "--num_frames", 8)
    assert not load_model(zeros)[1]["video"]["temporal_embedding"].any()
    table = start(zeros, "model.num_frames=8", "model.temporal_init=ramp")[1]["video"]["temporal_embedding"]
    assert np.abs(table).max() > 0.1
