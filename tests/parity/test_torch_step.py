"""The PyTorch step that benchmarks/vs_torch.py times is our step: same loss, gradients and updates."""

import pytest

pytest.importorskip("torch", reason="the extra `parity` is not installed: make parity")

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import traverse_util

from benchmarks import torch_step
from harvest_jax.config import files as config_files
from harvest_jax.config import run as configs
from harvest_jax.input.patches import take_patches
from harvest_jax.model.harvest import Harvest
from harvest_jax.train.freeze import map_with_path, multiplier, partition
from harvest_jax.train.model_of_run import model_config, parameters_at_random
from harvest_jax.train.optim import optimizer, schedule
from harvest_jax.train.program import random_batch
from harvest_jax.train.step import Step
from tests.parity import compare

pytestmark = pytest.mark.parity

TEXT_FROZEN = (("text/.*", 0.0), (".*", 1.0))
NOTHING_BEHIND = (("text/.*", 0.0), ("mask_embedding", 0.0), (".*", 1.0))
ALL_TRAINED = (("text/.*", 0.5), (".*", 1.0))


def make(lr_multipliers, dtype="float32"):
    """A checked run of the smallest size; dropped clips, the whole clips they are of, and noisy parameters."""
    overrides = ["model.size=demo", f"model.dtype={dtype}", "text.length=12", "train.batch_size=4"]
    overrides += [f"train.lr_multipliers={lr_multipliers}", "train.warmup_steps=2", "train.steps=5"]
    overrides += ["train.learning_rate=0.01", "train.contrastive_weight=0.7", "train.mlm_weight=0.4"]
    run = configs.load(str(config_files.config_file("base.py")), overrides)
    config = model_config(run)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: parameters_at_random(run, Harvest(config)))
    params = map_with_path(lambda path, leaf: random_leaf(rng, path, leaf.shape), shapes)
    whole = rng.integers(0, 256, (4, config.video.num_frames * config.video.cells_per_frame, config.video.patch_dim))
    batch = random_batch(run, config)
    batch["patches"] = take_patches(whole.astype(np.uint8), batch["positions"])
    batch["slot_weights"][1, 1:], batch["slots"][1, 1:] = 0.0, 0  # a caption with one masked word
    return run, config, params, batch, batch | {"patches": whole.astype(np.uint8)}


def random_leaf(rng, path, shape):
    """Random numbers for one parameter, of which no bias or table is left at zero and no scale at one."""
    noise = rng.standard_normal(shape).astype(np.float32)
    if path == "logit_scale":
        return np.float32(2.5) + 0 * noise
    return (1.0 if path.endswith("/scale") else 0.0) + 0.1 * noise


def flat(tree):
    return traverse_util.flatten_dict(jax.tree.map(np.asarray, tree), sep="/")


def theirs(run, config, params, drop="after"):
    model = torch_step.HarvestLoss(run, config, drop)
    torch_step.load_ours(model, flat(params))
    return model


@pytest.fixture(scope="module")
def of_all():
    """Our loss and its gradient with respect to every parameter; what is frozen only leaves some of them out."""
    run, config, params, batch, _ = make(ALL_TRAINED)
    with jax.default_matmul_precision("highest"):
        gradient = jax.jit(jax.value_and_grad(Step(Harvest(config), run).loss, has_aux=True))
        (value, _), grads = gradient(params, {}, batch)
    return float(value), flat(grads)


@pytest.mark.parametrize("lr_multipliers", [TEXT_FROZEN, NOTHING_BEHIND, ALL_TRAINED])
@pytest.mark.parametrize("drop", ["after", "before"])
def test_loss_and_every_gradient(lr_multipliers, drop, of_all):
    value, grads = of_all
    run, config, params, _, whole = make(lr_multipliers)
    trained, _ = partition(params, lr_multipliers)
    model = theirs(run, config, params, drop)
    answer = model(**torch_step.tensors(whole, "cpu"))
    answer.backward()
    np.testing.assert_allclose(answer.item(), value, rtol=1e-5)
    expected = torch_step.from_ours(model, grads)
    found = {name: parameter for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {torch_step.our_path(model, name)[0].replace("key_value", "key") for name in found} == {
        path for path in flat(trained) if "cross_attn/value" not in path
    }
    for name, parameter in found.items():
        assert compare.relative(parameter.grad.numpy(), expected[name].numpy()) < compare.GRADIENT_BOUND, name


def test_loss_in_bfloat16_is_that_in_float32_up_to_rounding():
    run, config, params, batch, whole = make(TEXT_FROZEN, "bfloat16")
    rough = theirs(run, config, params)(**torch_step.tensors(whole, "cpu"))
    exact = dataclasses.replace(run, model=dataclasses.replace(run.model, dtype="float32"))
    fine = theirs(exact, config, params)(**torch_step.tensors(whole, "cpu"))
    ours = jax.jit(Step(Harvest(config, jnp.bfloat16), run).loss)(params, {}, batch)[0]
    assert rough.item() != fine.item()
    np.testing.assert_allclose([rough.item(), float(ours)], fine.item(), rtol=2e-2)


@pytest.mark.parametrize("lr_multipliers", [TEXT_FROZEN, ALL_TRAINED])
def test_updates_from_the_same_gradients(lr_multipliers):
    run, config, params, _, _ = make(lr_multipliers)
    trained, frozen = partition(params, lr_multipliers)
    model = theirs(run, config, params)
    step = torch_step.optimizer(model)
    update = jax.jit(optimizer(run.train).update)
    state, rng = optimizer(run.train).init(trained), np.random.default_rng(1)
    for number in range(4):  # two of the warm-up, two of the cosine
        grads = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), trained)
        updates, state = update(grads, state, trained)
        trained = jax.tree.map(np.asarray, optax.apply_updates(trained, updates))
        given = torch_step.from_ours(model, flat(jax.tree.map(np.zeros_like, frozen)) | flat(grads))
        for name, parameter in model.named_parameters():
            parameter.grad = given[name] if parameter.requires_grad else None
        rate = torch_step.learning_rate(run.train, number)
        np.testing.assert_allclose(rate, float(schedule(run.train)(number)), rtol=1e-5, atol=1e-9)
        for group in step.param_groups:
            group["lr"] = rate * group["multiplier"]
        step.step()
    expected = torch_step.from_ours(model, flat(frozen) | flat(trained))
    start = torch_step.from_ours(model, flat(params))
    for name, parameter in model.named_parameters():
        if multiplier(torch_step.our_path(model, name)[0].replace("key_value", "key"), lr_multipliers):
            assert not torch.equal(parameter, start[name]), name
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=2e-5, atol=2e-6)


def test_a_whole_step_changes_what_is_trained_and_nothing_else():
    run, config, params, _, whole = make(TEXT_FROZEN)
    model = theirs(run, config, params)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    step = torch_step.TorchStep(model, compiled=False)
    batch = torch_step.tensors(whole, "cpu")
    losses = [float(step(batch)) for _ in range(5)]
    assert losses[0] == losses[1]  # the rate starts at 0
    assert losses[4] < losses[1]
    for name, parameter in model.named_parameters():
        frozen = name.startswith("text.")
        assert torch.equal(parameter, before[name]) == frozen, name


def test_a_parameter_without_counterpart_is_refused():
    run, config, params, _, _ = make(TEXT_FROZEN)
    model = torch_step.HarvestLoss(run, config)
    with pytest.raises(ValueError, match="no counterpart of"):
        torch_step.load_ours(model, flat(params) | {"video/more": np.zeros(3)})
    with pytest.raises(KeyError, match="logit_scale"):
        torch_step.load_ours(model, {path: leaf for path, leaf in flat(params).items() if path != "logit_scale"})
