"""What a small step takes of a device: compiled for virtual devices, and modelled for GPUs; no libtpu needed."""

import functools
import importlib.util
import math

import jax
import pytest

from harvest_jax.errors import ConfigError
from harvest_jax.plan.analytic import analytic_resources
from harvest_jax.plan.collectives import by_kind
from harvest_jax.plan.compiled import compiled_resources, out_of_memory
from harvest_jax.plan.topology import devices, parse_topology
from harvest_jax.train import mesh as meshes
from harvest_jax.train.flops import step_flops
from harvest_jax.train.program import train_program
from tests.helpers.small_model import TINY

BATCH = 72  # that of tiny_run; no axis of a parameter has this length


@pytest.fixture(scope="module")
def compiled_step(tiny_run):
    """The program of a run and its plan on 8 virtual devices, each compiled once for the whole file."""

    @functools.cache
    def get(*overrides):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(meshes, "MIN_SPLIT", 256)  # else nothing so small is split
            program = train_program(tiny_run(*overrides), devices(parse_topology("cpu:8")))
            return program, compiled_resources(program)

    return get


def shapes_of(plan, kind):
    return [array.shape for one in plan.collectives if one.kind == kind for array in one.arrays]


def test_the_collectives_of_a_step(compiled_step):
    """One gather of text embeddings, gradients, and vectors as long as the batch: nothing larger, nothing else."""
    program, found = compiled_step()
    batch, dim = BATCH, TINY.video.embed_dim
    trained = [leaf.shape for leaf in jax.tree.leaves(program.state.params)]
    assert {one.kind for one in found.collectives} == {"all-gather", "all-reduce"}
    assert {one.count for one in found.collectives} == {1}
    assert {one.group for one in found.collectives} == {8}
    gathered = [shape for shape in shapes_of(found, "all-gather") if shape != (batch,)]
    assert gathered in ([(batch, dim)], [(batch, TINY.text.width)])  # after the last projection, or before it
    reduced = shapes_of(found, "all-reduce")
    assert reduced.count((batch, dim)) == 1  # the gradient of the texts, which every device has a part of
    sizes = [math.prod(shape) for shape in reduced if shape not in ((batch, dim), (batch,), ())]
    # the gradient of the places' table is one of the patches' rows, and one of the class token, of which it is a part
    places = TINY.video.cells_per_frame * TINY.video.width
    known = [math.prod(shape) for shape in trained]
    assert set(sizes) <= {*known, places}
    assert 0.98 * sum(known) < sum(sizes) <= sum(known)


def test_the_collectives_of_a_step_with_split_parameters(compiled_step):
    """Parameters are gathered once and gradients brought back; activations stay where their clips are."""
    program, found = compiled_step("mesh.fsdp=4")
    batch, dim = BATCH, TINY.video.embed_dim
    leaves = jax.tree.leaves((program.state.params, program.frozen))
    split = [leaf for leaf in leaves if not leaf.sharding.is_fully_replicated]
    assert split
    vectors = {(batch, dim), (batch, TINY.text.width), (batch,)}
    gathered = sorted(shape for shape in shapes_of(found, "all-gather") if shape not in vectors)
    assert gathered == sorted(leaf.shape for leaf in split)
    groups = {one.group for one in found.collectives if one.kind == "all-gather" and one.arrays[0].shape in gathered}
    assert groups == {4}
    reduced = {shape for shape in shapes_of(found, "all-reduce") if shape not in vectors}
    known = {math.prod(leaf.shape) for leaf in jax.tree.leaves(program.state.params)} | {1}
    known |= {math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in split}  # summed over `data`, a part each
    assert {math.prod(shape) for shape in reduced} <= known
    assert {one.kind for one in found.collectives} <= {"all-gather", "all-reduce", "reduce-scatter"}
    assert {one.count for one in found.collectives} == {1}


def test_flops_are_those_of_the_formula(compiled_step):
    program, found = compiled_step()
    expected = step_flops(program.run, program.config)
    on_device = (expected["total"] + expected["recomputed"]) * BATCH / 8
    assert found.cost.flops == pytest.approx(on_device, rel=0.02)
    assert found.cost.bytes > found.memory.arguments


def test_the_donated_state_is_not_counted_twice(compiled_step):
    program, found = compiled_step()
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.state))
    assert found.memory.aliased >= 0.95 * state
    memory = found.memory
    everything = memory.arguments + memory.outputs + memory.temporaries + memory.code
    assert memory.arguments < memory.peak <= everything - memory.aliased


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 18.50G of 15.75G hbm. Exceeded hbm capacity.",
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (18.50G) exceeds "
        "available HBM (15.75G).",
    ],
)
def test_what_the_compiler_says_of_memory(message):
    found = out_of_memory(message)
    assert (found.used, found.limit) == (int(18.5 * 2**30), int(15.75 * 2**30))


def test_what_else_the_compiler_says():
    assert out_of_memory("RESOURCE_EXHAUSTED: no").used == 0
    assert out_of_memory("INVALID_ARGUMENT: no") is None


def test_the_model_for_gpus_knows_state_and_pieces(tiny_run):
    """What is exact in it: the state; and what pieces and rematerialisation are for."""
    where = devices(parse_topology("cpu:8"))
    plain, pieces, again = (
        analytic_resources(train_program(tiny_run("train.batch_size=4096", *fields), where))
        for fields in ((), ("train.accumulate=4",), ("model.remat=full",))
    )
    program = train_program(tiny_run(), where)
    assert plain.memory.outputs == sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.state))
    assert max(pieces.memory.temporaries, again.memory.temporaries) < plain.memory.temporaries
    assert min(pieces.cost.flops, again.cost.flops) > plain.cost.flops
    sums = by_kind(plain.collectives)
    embeddings = 4096 * TINY.video.embed_dim * 4
    assert sums["all-gather"]["bytes"] == embeddings
    found = {one.source: one for one in plain.collectives}
    assert found["gradient of the text embeddings"].kind == "all-reduce"
    assert set(found) == {"text embeddings", "gradient of the text embeddings", "gradients"}


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed")
def test_a_tpu_slice(tiny_run):
    found = compiled_resources(train_program(tiny_run("mesh.fsdp=2"), devices(parse_topology("v5e:2x4"))))
    assert found.memory.peak > found.memory.arguments
    assert {one.kind for one in found.collectives} <= {"all-gather", "all-reduce", "reduce-scatter"}
    with pytest.raises(ConfigError, match="libtpu says"):
        devices(parse_topology("v5e:3x5"))
