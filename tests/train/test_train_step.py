"""One step: what trains and what does not, meshes of any size, non-finite batches."""

import dataclasses
import functools
import inspect
import types

import jax
import numpy as np
import optax
import pytest
from flax import traverse_util

from harvest_jax.config import run as run_config
from harvest_jax.errors import ConfigError
from harvest_jax.input.patches import keep_positions, patchify, take_patches
from harvest_jax.model.blocks import attend
from harvest_jax.model.harvest import Harvest
from harvest_jax.train import hardware
from harvest_jax.train import mesh as meshes
from harvest_jax.train.freeze import merge, partition
from harvest_jax.train.model_of_run import parameters_at_random
from harvest_jax.train.optim import adam, decays, schedule
from harvest_jax.train.program import train_program
from harvest_jax.train.step import MAX_LOGIT_SCALE, Step
from tests.helpers.small_model import TINY
from tests.helpers.train_runs import BATCH, make_batch, make_run


@functools.cache
def first_params(loss="softmax"):
    """Where every run of this file starts."""
    run = make_run(train__contrastive_loss=loss, model__temporal_init="ramp")
    return jax.tree.map(np.asarray, jax.jit(lambda: parameters_at_random(run, Harvest(TINY)))())


@functools.cache
def compiled_step(run, mesh_fields, devices, min_split):
    """Everything of a run that its batches do not change; the same program is compiled once."""
    model = Harvest(TINY)
    trained, _ = partition(first_params(run.train.contrastive_loss), run.train.lr_multipliers)
    fields = dataclasses.replace(run.mesh, data=mesh_fields[0], fsdp=mesh_fields[1])
    mesh = meshes.make_mesh(fields, BATCH, jax.devices()[:devices])
    whole = lambda tree: jax.lax.with_sharding_constraint(tree, meshes.replicated(mesh))  # noqa: E731
    split = lambda tree: jax.lax.with_sharding_constraint(tree, meshes.state_shardings(tree, mesh))  # noqa: E731
    step = Step(model, run, run.train.accumulate, whole, split)
    shardings = meshes.state_shardings(jax.eval_shape(step.init_state, trained), mesh)
    init = jax.jit(step.init_state, out_shardings=shardings)
    return init, jax.jit(step, donate_argnums=0, out_shardings=(shardings, None)), mesh


def take_steps(run, mesh_fields=(1, 1), count=3, devices=1, batches=None):
    """(losses, trained parameters, state, frozen, first parameters) after `count` steps on a mesh."""
    init, step, mesh = compiled_step(run, mesh_fields, devices, meshes.MIN_SPLIT)
    params = first_params(run.train.contrastive_loss)
    trained, frozen = partition(params, run.train.lr_multipliers)
    place = lambda tree: jax.device_put(tree, meshes.state_shardings(tree, mesh))  # noqa: E731
    state, frozen = init(place(trained)), place(frozen)
    losses = []
    for number in range(count):
        batch = make_batch(number) if batches is None else batches[number]
        state, metrics = step(state, frozen, meshes.put_batch(batch, mesh))
        losses.append(float(metrics["loss"]))
    return np.array(losses), meshes.fetch(state.params, mesh), state, frozen, params


@pytest.fixture(scope="module")
def one_device():
    return take_steps(make_run())


PIECES = {"train__accumulate": 2, "train__loss_chunk": 4}


@pytest.mark.parametrize(("data", "fsdp", "changes"), [(8, 1, {}), (2, 4, PIECES), (1, 8, {})])
def test_every_mesh_gives_the_one_device_losses(one_device, data, fsdp, changes, monkeypatch):
    """In one piece or in several: all have the same negatives."""
    monkeypatch.setattr(meshes, "MIN_SPLIT", 1)  # the test's matrices are small; split them all the same
    losses, params, state, *_ = take_steps(make_run(**changes), (data, fsdp), devices=8)
    np.testing.assert_allclose(losses, one_device[0], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(one_device[1]), strict=True):
        # Adam divides by the gradient's size: a gradient of rounding noise may move a parameter by a whole step
        np.testing.assert_allclose(a, b, atol=2e-3)
    kernel = state.params["video"]["transformer"]["blocks"]["mlp"]["c_fc"]["kernel"]
    assert kernel.addressable_shards[0].data.size * fsdp == kernel.size


def gradients(run, pieces):
    """(metrics, gradients) of a batch computed in pieces."""
    trained, frozen = partition(first_params(run.train.contrastive_loss), run.train.lr_multipliers)
    step = Step(Harvest(TINY), run, pieces)
    return jax.jit(step.gradient)(trained, frozen, make_batch())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "train__contrastive_loss": "sigmoid",
            "train__loss_chunk": 8,
            "text__contrastive": "clean",
            "train__lr_multipliers": ((".*", 1.0),),
        },
    ],
    ids=["usual", "sigmoid, in chunks, clean, text trained"],
)
def test_accumulated_gradients_are_those_of_the_whole_batch(changes):
    run = make_run(**changes)
    metrics, whole = gradients(run, 1)
    in_pieces, parts = gradients(run, 4)
    assert metrics.keys() == in_pieces.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(in_pieces[name], value, rtol=1e-5, err_msg=name)
    size = float(optax.tree.norm(whole))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(whole), jax.tree.leaves(parts), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * size, path
        assert np.abs(a).max() > 0, path


def test_a_fixed_mask_vector_saves_the_backward_pass_through_the_frozen_tower():
    """With nothing to train behind it the program computes no gradient of the text tower."""

    def flops(run):
        trained, frozen = partition(first_params(), run.train.lr_multipliers)
        compiled = jax.jit(Step(Harvest(TINY), run).gradient).lower(trained, frozen, make_batch()).compile()
        return compiled.cost_analysis()["flops"]

    fixed = (("text/.*|mask_embedding", 0.0), (".*", 1.0))
    width, tokens = TINY.text.width, BATCH * 8
    products = 2 * 12 * width**2 * tokens  # of the one block's four matrices, for the gradient of their inputs
    assert flops(make_run()) - flops(make_run(train__lr_multipliers=fixed)) > products


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_training_lowers_the_loss(loss):
    run = make_run(train__contrastive_loss=loss)
    losses, params, _, _, before = take_steps(run, count=30, batches=[make_batch(0)] * 30)
    assert losses[-1] < 0.5 * losses[0]
    assert ("logit_bias" in params) == (loss == "sigmoid")
    if loss == "sigmoid":
        assert before["logit_bias"] == -10
        assert params["logit_bias"] != -10


def test_frozen_text_stays_and_the_rest_moves(one_device):
    _, trained, _, frozen, before = one_device
    assert set(frozen) == {"text"}
    for a, b in zip(jax.tree.leaves(frozen["text"]), jax.tree.leaves(before["text"]), strict=True):
        np.testing.assert_array_equal(np.asarray(a), b)
    moved = traverse_util.flatten_dict(trained, sep="/")
    start = traverse_util.flatten_dict(before, sep="/")
    still = [path for path, leaf in moved.items() if np.array_equal(leaf, start[path])]
    assert still == []  # the mask embedding and the scale too: the gradient passes through the frozen tower
    assert "mask_embedding" in moved
    assert "logit_scale" in moved


def test_a_batch_that_is_not_finite_changes_nothing():
    good = make_batch()
    bad = good | {"slot_weights": np.full((BATCH, 2), np.nan, np.float32)}
    before = take_steps(make_run(), count=1, batches=[good])
    losses, _, after, *_ = take_steps(make_run(), count=2, batches=[good, bad])
    state = before[2]
    assert np.isfinite(losses[0])
    assert not np.isfinite(losses[1])
    assert int(state.first_bad_step) == -1
    assert int(after.first_bad_step) == 1
    for a, b in zip(
        jax.tree.leaves((state.params, state.opt_state)), jax.tree.leaves((after.params, after.opt_state)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    later = take_steps(make_run(), count=4, batches=[good, bad, good, bad])[2]
    assert int(later.first_bad_step) == 1  # the first one is remembered


def test_dropping_nothing_equals_no_dropping_exactly():
    """At keep_ratio=1, drawing positions and gathering gives the loss of the whole clips that went through neither."""
    video = np.random.default_rng(0).integers(0, 256, (BATCH, 3, 8, 8, 3), dtype=np.uint8)
    cells = patchify(video, 4)
    rng = np.random.default_rng(1)
    for scope in ("clip", "frame", "tube"):
        positions = np.stack([keep_positions(rng, 3, 4, 1.0, scope) for _ in range(BATCH)])
        dropped = make_batch() | {"patches": take_patches(cells, positions), "positions": positions}
        whole = make_batch() | {"patches": cells, "positions": np.tile(np.arange(12, dtype=np.int32), (BATCH, 1))}
        losses = [take_steps(make_run(), count=2, batches=[batch] * 2)[0] for batch in (dropped, whole)]
        np.testing.assert_array_equal(*losses)
    half = np.stack([keep_positions(rng, 3, 4, 0.5) for _ in range(BATCH)])
    fewer = take_steps(
        make_run(), count=2, batches=[whole | {"patches": take_patches(cells, half), "positions": half}] * 2
    )
    assert (fewer[0] != losses[1]).all()


def test_clean_and_masked_contrastive_text_differ_and_agree_without_masks():
    batch = make_batch()
    masked = take_steps(make_run(), count=1, batches=[batch])[0]
    clean = take_steps(make_run(text__contrastive="clean"), count=1, batches=[batch])[0]
    assert masked != clean
    nothing = [batch | {"slot_weights": np.zeros((BATCH, 2), np.float32)}]
    masked = take_steps(make_run(), count=1, batches=nothing)[0]
    clean = take_steps(make_run(text__contrastive="clean"), count=1, batches=nothing)[0]
    np.testing.assert_allclose(masked, clean, rtol=1e-6)


def test_logit_scale_is_clamped():
    run = make_run(train__learning_rate=10.0)
    _, params, *_ = take_steps(run, count=4)
    assert 0.0 <= params["logit_scale"] <= np.float32(MAX_LOGIT_SCALE)


def test_schedule_warms_up_and_ends_at_zero():
    rate = schedule(make_run(train__warmup_steps=10, train__steps=100, train__learning_rate=1.0).train)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(55), rate(100)], [0, 0.5, 1, 0.5, 0], atol=1e-6)


def test_the_rate_can_fall_linearly():
    rate = schedule(
        make_run(train__warmup_steps=10, train__steps=110, train__learning_rate=1.0, train__decay="linear").train
    )
    np.testing.assert_allclose([rate(step) for step in (5, 10, 35, 60, 110)], [0.5, 1.0, 0.75, 0.5, 0.0], atol=1e-6)


def test_the_last_steps_have_a_schedule_of_their_own():
    run = make_run(
        train__warmup_steps=10,
        train__steps=100,
        train__learning_rate=1.0,
        train__unmasked_steps=20,
        train__unmasked_learning_rate=0.1,
    )
    rate = schedule(run.train)
    np.testing.assert_allclose([rate(10), rate(45), rate(80)], [1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose([rate(82), rate(84), rate(92), rate(100)], [0.05, 0.1, 0.05, 0], atol=1e-6)
    whole = schedule(make_run(train__steps=20, train__unmasked_steps=20, train__unmasked_learning_rate=0.1).train)
    np.testing.assert_allclose([whole(4), whole(12)], [0.1, 0.05], atol=1e-6)


def test_adam_is_optaxs_and_keeps_its_moments_where_it_must():
    rng = np.random.default_rng(0)
    params = {"a": np.zeros((3, 4), np.float32), "b": np.zeros((), np.float32)}
    ours, theirs = adam(0.9, 0.98, 1e-6), optax.scale_by_adam(0.9, 0.98, 1e-6)
    update = jax.jit(lambda grads, state, finite: ours.update(grads, state, finite=finite))
    one, other = ours.init(params), theirs.init(params)
    for _ in range(3):
        grads = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params)
        updates, after = update(grads, one, True)
        expected, other = jax.jit(theirs.update)(grads, other)
        for a, b in zip(jax.tree.leaves((updates, after)), jax.tree.leaves((expected, other)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
        one = after
    kept = update(jax.tree.map(lambda leaf: leaf + np.nan, params), one, False)[1]
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(one), strict=True):
        np.testing.assert_array_equal(a, b)


def test_decay_is_for_matrices_only():
    shapes = jax.eval_shape(Harvest(TINY).init, jax.random.key(0))
    paths = traverse_util.flatten_dict(shapes, sep="/")
    decayed = {path for path in paths if decays(path)}
    assert {path for path in paths if path.endswith("kernel")} == decayed


def test_partition_and_merge_are_inverse_and_first_pattern_wins():
    tree = {"video": {"a": 1, "b": 2}, "text": {"c": 3}}
    trained, frozen = partition(tree, (("video/a", 0.5), ("video/.*|text/.*", 0.0), (".*", 1.0)))
    assert trained == {"video": {"a": 1}}
    assert frozen == {"video": {"b": 2}, "text": {"c": 3}}
    assert merge(trained, frozen) == tree


def test_multiplier_tables_that_freeze_all_or_forget_some_are_refused():
    with pytest.raises(ConfigError, match="freezes every parameter"):
        partition({"a": 1}, ((".*", 0.0),))
    with pytest.raises(ConfigError, match="no pattern matches b"):
        partition({"a": 1, "b": 1}, (("a", 1.0),))


def test_multipliers_scale_the_update():
    table = (("text/.*", 0.0), ("video/proj/.*", 0.1), (".*", 1.0))
    slow = take_steps(make_run(train__lr_multipliers=table, train__weight_decay=0.0), count=1)
    fast = take_steps(make_run(train__weight_decay=0.0), count=1)
    before = slow[4]["video"]["proj"]["kernel"]
    np.testing.assert_allclose(
        slow[1]["video"]["proj"]["kernel"] - before, 0.1 * (fast[1]["video"]["proj"]["kernel"] - before), atol=1e-6
    )


def test_attention_is_chosen_by_device_and_type():
    cpu = meshes.make_mesh(run_config.MeshFields(dcn_data=1, data=1, fsdp=1), 16, jax.devices()[:1])
    several = meshes.make_mesh(run_config.MeshFields(dcn_data=1, data=8, fsdp=1), 16)
    assert hardware.attention("auto", "bfloat16", cpu) == "cpu"
    assert hardware.attention("auto", "bfloat16", several) == hardware.attention("xla", "float32", cpu) == "xla"
    with pytest.raises(ConfigError, match=r"attention=cudnn needs model\.dtype=bfloat16 and GPUs of the Ampere"):
        hardware.attention("cudnn", "bfloat16", cpu)
    device = types.SimpleNamespace(platform="gpu")
    gpu = types.SimpleNamespace(devices=np.array([device]), size=1)  # what attention() looks at
    choose = inspect.unwrap(hardware.attention)  # without the checks of types, which need a real mesh
    assert [choose("auto", dtype, gpu) for dtype in ("bfloat16", "float32")] == ["cudnn", "xla"]
    with pytest.raises(ConfigError, match="not float32 on gpu"):
        choose("cudnn", "float32", gpu)
    device.compute_capability = "7.5"
    assert choose("auto", "bfloat16", gpu) == "xla"


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN's attention runs on NVIDIA GPUs alone")
@pytest.mark.parametrize(
    ("queries", "keys", "causal"),
    [
        (158, 158, False),
        (393, 393, False),
        (1569, 1569, False),
        (5, 158, False),
        (5, 393, False),
        (32, 32, True),
        (31, 31, True),
    ],
)
def test_cudnn_attention_gives_what_xla_gives(queries, keys, causal):
    def output_and_gradient(implementation):
        random = iter(jax.random.split(jax.random.key(0), 4))
        query, key, value, weight = (
            jax.random.normal(next(random), (2, tokens, 12, 64), jax.numpy.bfloat16)
            for tokens in (queries, keys, keys, queries)
        )
        one = lambda *args: attend(*args, implementation, causal)  # noqa: E731
        total = lambda *args: (one(*args) * weight).astype(np.float32).sum()  # noqa: E731
        return one(query, key, value), *jax.grad(total, (0, 1, 2))(query, key, value)

    for a, b in zip(output_and_gradient("cudnn"), output_and_gradient("xla"), strict=True):
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), atol=0.03)


def test_pieces_must_be_divisible_over_the_devices():
    with pytest.raises(ConfigError, match="accumulate=4 makes pieces of 4 clips, which cannot be divided over 8 devic"):
        train_program(make_run(model__size="demo", train__accumulate=4))


def test_mesh_faults_name_both_numbers():
    fields = run_config.MeshFields(dcn_data=-1, data=-1, fsdp=3)
    with pytest.raises(ConfigError, match="the 8 devices"):
        meshes.make_mesh(fields, 16)
    with pytest.raises(ConfigError, match="batch_size=12 cannot be divided over 8 devices"):
        meshes.make_mesh(run_config.MeshFields(dcn_data=-1, data=-1, fsdp=1), 12)


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device in a job of several slices, as JAX describes it."""

    id: int
    slice_index: int
    process_index: int
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"


def test_the_slices_of_a_job_are_the_outer_part_of_data():
    chips = [Chip(number, slice_index=number % 2, process_index=number // 4) for number in range(16)]
    for asked in (-1, 2):
        mesh = meshes.make_mesh(run_config.MeshFields(dcn_data=asked, data=-1, fsdp=4), 16, chips)
        assert dict(mesh.shape) == {"data": 4, "fsdp": 4}
        assert [[chip.slice_index for chip in row] for row in mesh.devices] == [[0] * 4] * 2 + [[1] * 4] * 2
    gpus = [dataclasses.replace(chip, platform="gpu", device_kind="NVIDIA H200") for chip in chips]
    assert meshes.make_mesh(run_config.MeshFields(dcn_data=-1, data=1, fsdp=16), 16, gpus).shape["fsdp"] == 16
    for fields, words in (
        ((4, -1, 1), "mesh.dcn_data=4, but the 16 devices are in 2 slice"),
        ((1, -1, 1), "mesh.dcn_data=1, but the 16 devices are in 2 slice"),
        ((-1, -1, 16), "mesh.data=-1 x mesh.fsdp=16 does not make the 8 devices of each of the 2 slices"),
    ):
        with pytest.raises(ConfigError, match=words):
            meshes.make_mesh(run_config.MeshFields(*fields), 16, chips)
