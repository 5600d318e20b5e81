"""Post-pretraining of a model without class token, of SigLIP's form: it learns, and a mesh changes nothing."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import traverse_util

from harvest_jax.errors import ConfigError
from harvest_jax.input.file_tokenizer import FileTokenizer
from harvest_jax.model.config import DecoderConfig
from harvest_jax.model.harvest import Harvest, parameter_shapes
from harvest_jax.train import mesh as meshes
from harvest_jax.train.flops import step_flops
from harvest_jax.train.freeze import partition
from harvest_jax.train.initial_state import initial_parameters
from harvest_jax.train.model_of_run import model_config
from harvest_jax.train.step import MAX_LOGIT_SCALE, Step
from harvest_jax.weights.folder import load_model, save_tensors
from tests.helpers.checkpoint_tensors import SIGLIP, native
from tests.helpers.matrix_flops import matrix_flops
from tests.helpers.small_model import TINY
from tests.helpers.tokenizer_files import write_sentencepiece
from tests.helpers.train_runs import BATCH, make_batch, make_run

SMALL = dataclasses.replace(
    TINY,
    name="small SigLIP",
    video=dataclasses.replace(SIGLIP.video, image_size=8, num_frames=3, width=16, layers=1, embed_dim=16, mlp_width=40),
    text=dataclasses.replace(SIGLIP.text, vocab_size=40, context_length=8, width=16, layers=1, heads=2, embed_dim=16),
    decoder=DecoderConfig(layers=1, width=16, heads=2, memory_width=16, vocab_size=40),
    logit_bias=True,
)
RUN = {"train__contrastive_loss": "sigmoid", "model__temporal_init": "ramp"}


def first_params():
    params = jax.tree.map(np.asarray, Harvest(SMALL).init(jax.random.key(0), "ramp"))
    return params | {"logit_scale": np.float32(4.77), "logit_bias": np.float32(-12.9)}  # as a trained SigLIP's


def take_steps(count, devices, mesh_fields, **changes):
    """(losses, trained, frozen, first) after so many steps on one batch."""
    run, params = make_run(**RUN, **changes), first_params()
    fields = dataclasses.replace(run.mesh, data=mesh_fields[0], fsdp=mesh_fields[1])
    mesh = meshes.make_mesh(fields, BATCH, jax.devices()[:devices])
    trained, frozen = partition(params, run.train.lr_multipliers)
    place = lambda tree: jax.device_put(tree, meshes.state_shardings(tree, mesh))  # noqa: E731
    whole = lambda tree: jax.lax.with_sharding_constraint(tree, meshes.replicated(mesh))  # noqa: E731
    split = lambda tree: jax.lax.with_sharding_constraint(tree, meshes.state_shardings(tree, mesh))  # noqa: E731
    step = Step(Harvest(SMALL), run, run.train.accumulate, whole, split)
    state, frozen = jax.jit(step.init_state)(place(trained)), place(frozen)
    compiled, losses, batch = jax.jit(step), [], meshes.put_batch(make_batch(), mesh)
    for _ in range(count):
        state, metrics = compiled(state, frozen, batch)
        losses.append(float(metrics["loss"]))
    return np.array(losses), meshes.fetch(state.params, mesh), meshes.fetch(frozen, mesh), params


@pytest.fixture(scope="module")
def alone():
    return take_steps(20, 1, (1, 1))


def test_it_learns_and_the_frozen_text_tower_stays(alone):
    losses, trained, frozen, before = alone
    assert losses[-1] < 0.7 * losses[0]
    assert set(frozen) == {"text"}
    flat = traverse_util.flatten_dict(before, sep="/")
    for path, leaf in traverse_util.flatten_dict(frozen, sep="/").items():
        np.testing.assert_array_equal(leaf, flat[path], err_msg=path)
    still = [
        path for path, leaf in traverse_util.flatten_dict(trained, sep="/").items() if np.array_equal(leaf, flat[path])
    ]
    assert still == []  # attention pooling, table of frames, decoder, mask vector, scale and bias among them
    assert trained["logit_scale"] > MAX_LOGIT_SCALE  # CLIP's bound would have cut a trained SigLIP's scale at once


@pytest.mark.slow
def test_a_mesh_gives_the_losses_of_one_device(alone, monkeypatch):
    monkeypatch.setattr(meshes, "MIN_SPLIT", 1)
    losses, *_ = take_steps(3, 8, (4, 2), train__loss_chunk=4)
    np.testing.assert_allclose(losses, alone[0][:3], rtol=1e-5)


def test_its_flops_are_those_of_the_program():
    run = make_run(**RUN, model__size="demo", model__num_frames=3, model__keep_ratio=0.5, text__mask_ratio=0.3)
    trained, frozen = partition(first_params(), run.train.lr_multipliers)
    traced = jax.make_jaxpr(Step(Harvest(SMALL), run).gradient)(trained, frozen, make_batch())
    expected = step_flops(run, SMALL)
    counted = matrix_flops(traced) / BATCH
    np.testing.assert_allclose(counted, expected["total"] + expected["recomputed"], rtol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A SigLIP with its tokenizer, at one frame."""
    path = tmp_path_factory.mktemp("siglip")
    tokenizer = FileTokenizer(write_sentencepiece(path / "tokenizer.json"), "", 40)
    text = dataclasses.replace(SMALL.text, tokenizer=tokenizer.digest)
    video = dataclasses.replace(SMALL.video, num_frames=1)
    config = dataclasses.replace(SMALL, video=video, text=text, decoder=None)
    shapes = parameter_shapes(config)
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["video/temporal_embedding"] *= 0
    entries = native(config).entries
    save_tensors(path / "model", config, entries, arrays.__getitem__, {}, tokenizer)
    return path / "model"


def start(folder, loss, **changes):
    given = {"text__length": 8, "model__init_from": str(folder), "model__num_frames": 3, "model__decoder_layers": 1}
    run = make_run(**(given | changes), train__contrastive_loss=loss)
    config = model_config(run)
    return config, initial_parameters(run, Harvest(config), meshes.make_mesh(run.mesh, BATCH, jax.devices()[:1]))


def test_a_run_starts_from_its_scale_and_bias(folder):
    """With the sigmoid loss; the softmax loss has no bias."""
    _, known = load_model(folder)
    config, params = start(folder, "sigmoid")
    assert config.logit_bias
    assert config.video.num_frames == 3
    for name in ("logit_scale", "logit_bias"):
        assert params[name] == known[name]
    config, params = start(folder, "softmax")
    assert not config.logit_bias
    assert "logit_bias" not in params
    assert params["logit_scale"] == known["logit_scale"]


def test_its_texts_have_one_length(folder):
    with pytest.raises(ConfigError, match=r"a text of small SigLIP has 8 tokens, padding included; set text\.length=8"):
        start(folder, "sigmoid", text__length=7)
