"""Objectives of labels and questions: their losses, the same in pieces, what trains, and the model's head."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from harvest_jax.config.run import load
from harvest_jax.model.config import HarvestConfig, HeadConfig
from harvest_jax.model.harvest import Harvest, parameter_shapes
from harvest_jax.model.heads import dropped
from harvest_jax.train.freeze import merge, multiplier, partition
from harvest_jax.train.objectives import inputs_of
from harvest_jax.train.objectives.labelled import label_loss
from harvest_jax.train.optim import decays
from harvest_jax.train.program import batch_shapes
from harvest_jax.train.step import Step
from tests.helpers.small_model import TINY
from tests.helpers.train_runs import BATCH, make_batch, make_run

CLASSES = ("jump", "run", "sit down", "stand up", "turn")
ALL = ((".*", 1.0),)
RUNS = {  # kind of the head: fields of the run
    "linear": {"objective__name": "classification", "objective__head": "linear"},
    "attentive": {"objective__name": "classification", "objective__head": "attentive"},
    "answers": {"objective__name": "videoqa"},
    "none": {"objective__name": "videoqa", "objective__answer_from": "mask"},
}


def model_of(kind):
    return Harvest(dataclasses.replace(TINY, head=None if kind == "none" else HeadConfig(kind, CLASSES)))


@functools.cache
def parameters(kind):
    return jax.tree.map(np.asarray, jax.jit(model_of(kind).init, static_argnums=1)(jax.random.key(0), "ramp"))


def batch_of(run, seed=0):
    """The arrays that the objective reads; labels of most clips."""
    rng = np.random.default_rng(seed)
    batch = make_batch(seed)
    labels = rng.integers(0, len(CLASSES), BATCH).astype(np.int32)
    labels[3] = -1
    batch |= {
        "labels": labels,
        "slots": np.full((BATCH, 1), 5, np.int32),
        "noise": rng.integers(0, 2**31, BATCH).astype(np.int32),
    }
    return {name: batch[name] for name in ("patches", "positions", *inputs_of(run))}


@functools.cache
def compiled_gradient(kind, pieces):
    run = make_run(**RUNS[kind], train__lr_multipliers=ALL)
    return jax.jit(Step(model_of(kind), run, pieces).gradient)


@functools.cache
def gradient(kind, pieces=1):
    """(metrics, gradients) of a batch."""
    return gradient_of(kind, batch_of(make_run(**RUNS[kind])), pieces)


def gradient_of(kind, batch, pieces=1):
    trained, frozen = partition(parameters(kind), ALL)
    return compiled_gradient(kind, pieces)(trained, frozen, batch)


def test_only_rows_with_a_label_count():
    logits = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    labels = np.array([2, -1, 0, 4], np.int32)
    loss, right = label_loss(jnp.asarray(logits), jnp.asarray(labels))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = [0, 2, 3]
    np.testing.assert_allclose(loss, -np.log(probabilities[rows, labels[rows]]).sum(), rtol=1e-5)
    assert right == np.sum(logits.argmax(axis=1)[rows] == labels[rows])


@pytest.mark.parametrize("kind", ["attentive", "answers", "none"])
def test_the_gradient_in_pieces_is_that_of_the_whole_batch(kind):
    """With dropout, whose choice belongs to the clip."""
    metrics, whole = gradient(kind)
    in_pieces, parts = gradient(kind, pieces=4)
    assert set(metrics) == set(in_pieces) == {"loss", "accuracy", "with_a_class"}
    assert metrics["with_a_class"] == pytest.approx(15 / 16)
    for name, value in metrics.items():
        np.testing.assert_allclose(in_pieces[name], value, rtol=1e-5, err_msg=name)
    size = float(optax.tree.norm(whole))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(whole), jax.tree.leaves(parts), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * size, path


@pytest.mark.parametrize("kind", RUNS)
def test_what_has_part_in_the_loss(kind):
    """All of a head learns, and the packaged configs freeze what has no part in the loss."""
    _, grads = gradient(kind)
    parts = {path: np.abs(leaf).max() > 0 for path, leaf in traverse_util.flatten_dict(grads, sep="/").items()}
    assert any(path.startswith("head/") for path in parts) == (kind != "none")
    idle = {path for path, has in parts.items() if not has}
    without_part = {"logit_scale", "video/proj/kernel", "text/text_projection/kernel"}
    if kind in ("linear", "attentive"):
        without_part |= {path for path in parts if path.startswith(("text/", "decoder/", "mask_embedding"))}
    if kind in ("attentive", "none"):
        without_part |= {path for path in parts if path.startswith("video/ln_post")}
    if kind == "answers":
        without_part |= {path for path in parts if path.startswith(("decoder/head_", "decoder/ln_head"))}
    assert idle == without_part
    if kind != "none":  # weight decay alone would change them
        table = load(f"finetune/{RUNS[kind]['objective__name']}").train.lr_multipliers
        assert not [path for path in idle if decays(path) and multiplier(path, table)]


def test_the_loss_is_the_mean_over_the_clips_with_a_class():
    run = make_run(**RUNS["linear"])
    batch = batch_of(run)
    metrics, _ = gradient_of("linear", batch)
    kept = batch["labels"] >= 0
    model, params = model_of("linear"), parameters("linear")
    video = jax.jit(model.encode_video)(params, batch["patches"], batch["positions"])
    logits = video["pooled"] @ params["head"]["classifier"]["kernel"] + params["head"]["classifier"]["bias"]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits[kept], batch["labels"][kept])
    np.testing.assert_allclose(metrics["loss"], losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(logits[kept].argmax(axis=1) == batch["labels"][kept]))


def test_a_batch_without_any_label_changes_nothing():
    run = make_run(**RUNS["linear"])
    nothing = batch_of(run) | {"labels": np.full(BATCH, -1, np.int32)}
    metrics, grads = gradient_of("linear", nothing)
    assert (float(metrics["loss"]), float(metrics["with_a_class"])) == (0, 0)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_the_answer_itself_is_hidden():
    """The id at the mask decides about the target alone: the head's logits do not see it."""
    run = make_run(**RUNS["answers"])
    batch = batch_of(run)
    other = batch | {"ids": batch["ids"].copy()}
    other["ids"][:, 5] = batch["ids"][:, 5] % 36 + 1
    assert np.all(other["ids"][:, 5] != batch["ids"][:, 5])
    assert gradient_of("answers", batch)[0]["loss"] == gradient_of("answers", other)[0]["loss"]
    assert gradient_of("none", batch)[0]["loss"] != gradient_of("none", other)[0]["loss"]


@pytest.mark.parametrize("kind", ["attentive", "answers"])
def test_training_learns_the_labels(kind):
    run = make_run(**RUNS[kind], train__lr_multipliers=ALL, objective__dropout=0.1)
    trained, frozen = partition(parameters(kind), ALL)
    step = Step(model_of(kind), run)
    compiled, state, batch = jax.jit(step), step.init_state(trained), batch_of(run)
    losses = []
    for _ in range(30):
        state, metrics = compiled(state, frozen, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]


def test_a_probe_trains_the_head_alone():
    probe = (("head/.*", 1.0), (".*", 0.0))
    run = make_run(**RUNS["attentive"], train__lr_multipliers=probe)
    trained, frozen = partition(parameters("attentive"), probe)
    assert set(trained) == {"head"}
    step = Step(model_of("attentive"), run)
    state, _ = jax.jit(step)(step.init_state(trained), frozen, batch_of(run))
    after = merge(state.params, frozen)
    for name, before in parameters("attentive").items():
        same = all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before, after[name])), strict=True))
        assert same == (name != "head")


def test_dropout_scales_what_it_keeps_and_differs_by_row_and_layer():
    noise, ones = jnp.arange(64), jnp.ones((64, 500))
    found = np.asarray(dropped(ones, 0.25, noise, 0))
    assert set(np.unique(found)) == {0, np.float32(1 / 0.75)}
    assert np.mean(found == 0) == pytest.approx(0.25, abs=0.01)
    assert np.any(found[0] != found[1])
    assert np.any(found != np.asarray(dropped(ones, 0.25, noise, 1)))
    np.testing.assert_array_equal(found[10:20], dropped(ones[:10], 0.25, noise[10:20], 0))
    assert dropped(ones, 0.25, None, 0) is ones


def test_batches_have_what_the_objective_reads():
    names = {kind: set(batch_shapes(make_run(**fields), TINY)) for kind, fields in RUNS.items()}
    assert names["linear"] == {"patches", "positions", "labels"}
    assert names["answers"] == {"patches", "positions", "ids", "slots", "labels", "noise"}


def test_a_description_with_a_head_is_read_back_and_one_without_is_as_before():
    config = model_of("attentive").config
    assert HarvestConfig.from_dict(config.to_dict()) == config
    assert "head" not in TINY.to_dict()
    assert not any(path.startswith("head") for path in parameter_shapes(TINY))
    assert config.for_clips(2, 1).head is None
    for broken in ({"kind": "x", "classes": ["a"]}, {"kind": "linear", "classes": ["a", "a"]}, {"kind": "linear"}):
        with pytest.raises((ValueError, KeyError)):
            HarvestConfig.from_dict(config.to_dict() | {"head": broken})


def test_a_head_leaves_the_other_random_parameters_as_they_are():
    plain = jax.jit(Harvest(TINY).init, static_argnums=1)(jax.random.key(0), "ramp")
    with_head = dict(parameters("linear"))
    del with_head["head"]
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(with_head), strict=True):
        np.testing.assert_array_equal(a, b)
