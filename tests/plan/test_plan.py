"""`harvest plan`: reading compiled programs, the estimates made of them, the search, the command; no libtpu needed."""

import dataclasses
import functools
import importlib.util
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from harvest_jax import cli
from harvest_jax.bench.flops import step_flops
from harvest_jax.config import files as config_files
from harvest_jax.config import run as run_config
from harvest_jax.errors import ConfigError
from harvest_jax.model.harvest import Harvest
from harvest_jax.plan import hlo
from harvest_jax.plan.analytic import analytic_plan
from harvest_jax.plan.chips import CHIPS, received_per_second
from harvest_jax.plan.collectives import Collective, by_kind, collectives, group_size
from harvest_jax.plan.compiled import Memory, Plan, compile_plan, out_of_memory
from harvest_jax.plan.cost import Cost, Kernel, program_cost
from harvest_jax.plan.estimate import estimate, longest_kernels
from harvest_jax.plan.hardware import devices, parse_topology
from harvest_jax.plan.search import largest_batch
from harvest_jax.train import mesh as meshes
from harvest_jax.train.program import train_program
from harvest_jax.weights.folder import save_model
from tests.train.test_train_step import TINY

BATCH = 72  # no axis of a parameter has this length
# What TPU compilers write, shortened: tuples with comments, tiled layouts, memory spaces, loops without a trip count.
TPU = (Path(__file__).parents[1] / "data" / "tpu_program.txt").read_text()
# What the compiler for GPUs writes, in the same way: calls of cuBLAS and cuDNN with their working memory.
GPU = (Path(__file__).parents[1] / "data" / "gpu_program.txt").read_text()


def test_a_tpu_program_is_read():
    module = hlo.parse(TPU)
    assert module.unknown_loops == ()
    assert {name: times for name, times in module.times.items() if times} == {
        "all-reduce-scatter": 1,
        "link": 12,
        "link.2": 1,
        "read_layer": 12,
        "body": 12,
        "condition": 12,
        "main": 1,
    }
    found = collectives(module, devices=8)
    assert {(one.kind, one.count, one.group, one.bytes, one.source) for one in found} == {
        ("all-reduce", 12, 4, 64 * 64 * 2, ""),
        ("reduce-scatter", 1, 4, 1024 * 512 * 4, "jit(f)/scatter"),
        ("all-gather", 1, 8, 1024 * 64 * 2, "jit(f)/text"),  # one that lies in two fusions
    }
    received = {one.kind: one.received for one in found}
    assert received["all-reduce"] == 2 * 8192 * 3 / 4
    assert received["reduce-scatter"] == 1024 * 512 * 4 * 3 / 4
    assert by_kind(found)["all-reduce"] == {
        "instructions": 1,
        "count": 12,
        "bytes": 12 * 8192,
        "received_bytes": 12 * 12288,
    }
    cost = program_cost(module)
    assert cost.flops == cost.bf16_flops == 12 * 2 * 128 * 64 * 64
    layer, rows = 64 * 64 * 2, 128 * 64 * 2
    # A turn: one layer is read of the twelve, and kept on the chip; rows are read and written; the reduced gradient is
    # written. After the loop: the scattered sum.
    counter = 4 + 4 + 4 + 1  # to choose the layer, and to see whether the loop goes on
    assert cost.bytes == 12 * (layer + 2 * rows + layer + counter) + (1024 + 128) * 512 * 4


def test_a_gpu_program_is_read_kernel_by_kernel(monkeypatch):
    cost = program_cost(hlo.parse(GPU))
    query, product = 4 * 256 * 4 * 64 * 2, 2 * 4 * 4 * 256 * 256 * 64  # bytes of an array, FLOPs of all heads' scores
    rows, weights, wide = 1024 * 64 * 2, 64 * 256 * 2, 1024 * 256 * 2
    attend = ("while/body/attn/dot_product_attention_fwd", 3, 2 * product, 4 * query + 4 * 4 * 256 * 4)
    back = ("while/body/checkpoint/attn/dot_product_attention_bwd", 3, 5 * product, 7 * query)
    gemm = ("mlp/dot_general", 1, 2 * 1024 * 64 * 256, rows + weights + wide)  # cuBLAS's and XLA's own
    found = {
        (one.source.removeprefix("jit(<unnamed function>)/"), one.times, one.flops, one.bytes) for one in cost.kernels
    }
    assert len(cost.kernels) == 5
    assert found == {attend, back, gemm, ("mlp/mul", 1, 0.0, 2.0 * wide)}
    assert cost.flops == cost.bf16_flops == 3 * 7 * product + 2 * gemm[2]
    assert cost.bytes == 3 * (attend[3] + back[3]) + 2 * gemm[3] + 2 * wide

    plan, where = Plan(Memory(0, 0, 0, 0, 0, 0), cost, (), "compiled"), parse_topology("h200:1")
    times, longest = estimate(plan, where, 1), longest_kernels(plan, where)
    assert [one["from"] for one in longest][1:] == ["attn/dot_product_attention_fwd", "mlp/dot_general", "mlp/mul"]
    assert (longest[0]["count"], longest[2]["count"]) == (3, 2)  # turns of a loop; two kernels of one origin
    assert times.step_ms == times.kernels_ms == pytest.approx(sum(one["ms"] for one in longest), abs=1e-3)
    slow = dataclasses.replace(CHIPS["h200"], flops=CHIPS["h200"].flops / 2)  # now some kernels are bound by arithmetic
    monkeypatch.setitem(CHIPS, "h200", slow)
    times = estimate(plan, where, 1)
    assert times.kernels_ms > 1.05 * max(times.compute_ms, times.memory_ms)


@pytest.mark.parametrize(
    ("shape", "layout", "stored"),
    [
        ((128, 158), "{1,0:T(8,128)(2,1)}", 128 * 256),
        ((128, 158), "{0,1:T(8,128)(2,1)S(1)}", 160 * 128),
        ((3, 5), "{1,0}", 15),
        ((5,), "{0:T(256)}", 256),
        ((2, 3, 4), "{0,2,1:T(8,128)}", 3 * 8 * 128),
        ((), "{:T(128)}", 1),
    ],
)
def test_a_tpu_stores_whole_tiles(shape, layout, stored):
    assert hlo.Array("bf16", shape, layout).stored == 2 * stored


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("replica_groups={{0,2},{1,3}}", 2),
        ("replica_groups=[32,8]<=[8,32]T(1,0)", 8),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=2] {'axis_0','axis_1'}", 16),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=2] {'axis_1'}", 2),
        ("replica_groups=mesh['axis_0'=8] {'axis_0':(2)4}", 4),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", 4),
        ("replica_groups={}", 64),
    ],
)
def test_groups_in_all_notations(written, size):
    assert group_size(f", channel_id=1, {written}, use_global_device_ids=true", devices=64) == size


def compiled_loop(layers, gradient=True):
    """A scan over layers on 8 devices, the rows split over them."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def loss(weights, rows):
        return jnp.sum(jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), rows, weights)[0])

    shapes = (
        jax.ShapeDtypeStruct((layers, 32, 32), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec())),
        jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data"))),
    )
    return jax.jit(jax.grad(loss) if gradient else loss).lower(*shapes).compile()


def test_loops_count_as_often_as_they_run():
    compiled = compiled_loop(6)
    module = hlo.parse(compiled.as_text())
    assert module.unknown_loops == ()
    product = 2 * 8 * 32 * 32  # of a device's 8 rows
    # forward, gradient of rows, gradient of weights (of the first layer's rows none is asked for, the loop does it)
    assert program_cost(module).flops == 6 * 3 * product
    once = dataclasses.replace(module, times={name: min(times, 1) for name, times in module.times.items()})
    # XLA counts a loop's body once, and the elementwise arithmetic too
    assert program_cost(once).flops <= compiled.cost_analysis()["flops"] <= 1.4 * program_cost(once).flops
    sums = by_kind(collectives(module, 8))
    assert set(sums) == {"all-reduce"}
    assert sums["all-reduce"]["bytes"] == 6 * 32 * 32 * 4


@pytest.mark.parametrize("shapes", [((3, 5, 7), (3, 7, 4), ((2,), (1,), (0,), (0,))), ((6, 5), (5, 9), None)])
def test_convolutions_for_products_count_no_padding(shapes):
    """A TPU's compiler writes a batch of products as a convolution over a padded window."""
    left, right, _ = shapes
    if len(left) == 2:
        line = "  %c = f32[6,9]{1,0} convolution(%a, %b), dim_labels=bf_io->bf"
        flops = 2 * 6 * 5 * 9
    else:  # 3 products of 5 x 7 and 7 x 4
        line = (
            "  %c = f32[3,5,4]{2,1,0} convolution(%a, %b), "
            "window={size=3 stride=2 pad=0_0 lhs_dilate=3}, dim_labels=0bf_0io->0bf"
        )
        flops = 2 * 3 * 5 * 7 * 4
    sizes = [",".join(map(str, shape)) for shape in (left, right)]
    text = (
        "ENTRY %main (a: f32[1], b: f32[1]) -> f32[1] {\n"
        f"  %a = f32[{sizes[0]}] parameter(0)\n  %b = f32[{sizes[1]}] parameter(1)\n"
        f"  ROOT {line.strip()}, operand_precision={{highest,highest}}\n}}\n"
    )
    cost = program_cost(hlo.parse(text))
    assert (cost.flops, cost.bf16_flops) == (flops, 6 * flops)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    """A model folder, so that runs have its sizes: a step of them compiles in seconds."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    shapes = jax.eval_shape(Harvest(TINY).init, jax.random.key(0))
    save_model(folder, TINY, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes), {})
    return str(folder)


@pytest.fixture(scope="module")
def compiled_step(tiny_folder):
    """The program of a run and its plan on 8 virtual devices, each compiled once for the whole file."""

    @functools.cache
    def get(*overrides):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(meshes, "MIN_SPLIT", 256)  # else nothing so small is split
            program = train_program(tiny_run(tiny_folder, *overrides), devices(parse_topology("cpu:8")))
            return program, compile_plan(program)

    return get


def tiny_run(folder, *overrides):
    fields = [f"model.init_from={folder}", "model.num_frames=3", "model.decoder_layers=1", "text.length=8"]
    fields += ["text.mask_ratio=0.3", f"train.batch_size={BATCH}", "model.dtype=float32"]
    return run_config.load(str(config_files.config_file("base.py")), [*fields, *overrides])


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


def plan_of(flops=0.0, moved=0.0, collectives=()):
    return Plan(Memory(0, 0, 0, 0, 0, 0), Cost(flops, 2 * flops, moved), tuple(collectives), "compiled")


def test_an_estimate_is_the_slowest_resource():
    slice_ = parse_topology("v5e:16x16")
    times = estimate(plan_of(flops=197e12, moved=819e9), slice_, batch_size=100)
    assert (times.compute_ms, times.memory_ms, times.network_ms) == (2000, 1000, 0)  # at higher precision: twice
    assert (times.step_ms, times.bound_by, times.clips_per_s) == (2000, "compute", 50)
    gpus = estimate(plan_of(flops=989e12, moved=2 * 4800e9), parse_topology("h200:8"), batch_size=10, slower=1.5)
    assert (gpus.compute_ms, gpus.step_ms, gpus.bound_by) == (1500, 3000, "memory")
    assert estimate(plan_of(1.0), parse_topology("cpu:2"), 1) is None


@pytest.mark.parametrize(("sent", "bound"), [(0, "compute"), (450 * 10**6, "compute"), (2 * 10**9, "network")])
def test_what_goes_on_meanwhile_takes_no_time_of_its_own(sent, bound):
    """Kernels take 2 ms of arithmetic and 1 ms of memory traffic, one after another; a copy and the network do not."""
    flops = Kernel("a", 1, 2e-3 * 989e12, 2e-3 * 989e12, 0.0)
    memory, copy = (Kernel("b", 1, 0.0, 0.0, 1e-3 * 4800e9, meanwhile) for meanwhile in (False, True))
    cost = Cost(flops.flops, flops.bf16_flops, memory.bytes + copy.bytes - 1, (flops, memory, copy))
    array = hlo.Array("u8", (sent,))
    gather = Collective("collective-permute", 1, 8, (array,), "")
    plan = Plan(Memory(0, 0, 0, 0, 0, 0), cost, (gather,), "compiled")
    times = estimate(plan, parse_topology("h200:8"), 1)
    assert times.kernels_ms == pytest.approx(3)
    assert times.step_ms == pytest.approx(max(3, sent / 450e9 * 1e3))
    assert times.bound_by == bound
    assert [one["from"] for one in longest_kernels(plan, parse_topology("h200:8"))] == ["a", "b"]


def test_a_torus_is_as_fast_as_its_rings():
    """Two links a dimension: 200 GB/s into a v5e chip in 16 x 16, half of it in 8 x 8, whose ends are not joined."""
    v5e, v5p, h200 = CHIPS["v5e"], CHIPS["v5p"], CHIPS["h200"]
    assert received_per_second(v5e, (16, 16)) == 200e9
    assert received_per_second(v5e, (8, 8)) == 100e9
    assert received_per_second(v5e, (8, 16)) == 150e9
    assert received_per_second(v5e, (1, 8)) == 50e9
    assert received_per_second(v5p, (4, 4, 4)) == 600e9
    assert (received_per_second(h200, (8,)), received_per_second(h200, (16,))) == (450e9, 50e9)


@pytest.mark.parametrize("start", [8, 64, 1024])
@pytest.mark.parametrize("most", [0, 8, 24, 504, 512, 520, 10_000])
def test_the_search_ends_near_the_largest(start, most):
    asked = []

    def fits(size):
        asked.append(size)
        return size <= most

    found = largest_batch(fits, start, unit=8, limit=4096)
    assert len(asked) == len(set(asked))
    assert all(size % 8 == 0 and 0 < size <= 4096 for size in asked)
    assert found <= most or found == most == 0
    if found == 4096 or most == 0:
        assert found == min(most, 4096) // 8 * 8
    else:
        assert most < found + max(8, found // 16)


@pytest.mark.parametrize(
    "name",
    ["v5e", "v5e:16", "v5e:4x4x4", "v5p:4x4", "v9:2x2", "h200:0", "h200:2x4", "cpu:", "cpu:8x", "v5e:-1x4", "x" * 99],
)
def test_topologies_that_are_none(name):
    with pytest.raises(ConfigError, match="write one such as"):
        parse_topology(name)


def test_topologies():
    found = parse_topology("v5p:4x4x8")
    assert (found.kind, found.shape, found.count) == ("v5p", (4, 4, 8), 128)
    assert parse_topology("h100:8").chip is CHIPS["h100"]
    assert parse_topology("cpu:4").chip is None
    with pytest.raises(ConfigError, match="wants 9 virtual devices and JAX has 8"):
        devices(parse_topology("cpu:9"))


def test_a_tpu_without_its_compiler_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install libtpu"):
        devices(parse_topology("v5e:2x2"))


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


def test_the_model_for_gpus_knows_state_and_pieces(tiny_folder):
    """What is exact in it: the state; and what pieces and rematerialisation are for."""
    where = devices(parse_topology("cpu:8"))
    plain, pieces, again = (
        analytic_plan(train_program(tiny_run(tiny_folder, "train.batch_size=4096", *fields), where))
        for fields in ((), ("train.accumulate=4",), ("model.remat=full",))
    )
    program = train_program(tiny_run(tiny_folder), where)
    assert plain.memory.outputs == sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.state))
    assert max(pieces.memory.temporaries, again.memory.temporaries) < plain.memory.temporaries
    assert min(pieces.cost.flops, again.cost.flops) > plain.cost.flops
    sums = by_kind(plain.collectives)
    embeddings = 4096 * TINY.video.embed_dim * 4
    assert sums["all-gather"]["bytes"] == embeddings
    found = {one.source: one for one in plain.collectives}
    assert found["gradient of the text embeddings"].kind == "all-reduce"
    assert set(found) == {"text embeddings", "gradient of the text embeddings", "gradients"}


@pytest.fixture
def no_gpu_compiler(monkeypatch):
    monkeypatch.setattr("harvest_jax.plan.hardware.compiler_is_here", lambda: False)


def run_command(capsys, *arguments):
    code = cli.main(["plan", "--config", str(config_files.config_file("base.py")), *arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_command_for_virtual_devices(tiny_folder, capsys):
    fields = [f"--config.{field}" for field in (f"model.init_from={tiny_folder}", "model.num_frames=3")]
    fields += [f"--config.{field}" for field in ("text.length=8", "train.batch_size=16", "model.dtype=float32")]
    fields += ["--config.train.mlm_weight=0", "--config.model.decoder_layers=0", "--config.train.unmasked_steps=1"]
    fields += ["--config.train.lr_multipliers=(('logit_scale', 1.0), ('.*', 0.0))"]  # no backward pass: compiles soon
    code, out, _ = run_command(capsys, "--topology", "cpu:8", "--json", *fields)
    assert code == 0
    found = json.loads(out.splitlines()[-1])
    assert (found["devices"], found["fits"], found["method"]) == (8, None, "compiled")
    assert found["per_device_bytes"] == found["memory"]["peak"] > found["memory"]["arguments"] > 0
    assert found["all_patches"]["flops"] > found["flops"] > 0
    assert {"kind", "count", "bytes", "group"} <= set(found["collectives"][0])
    assert found["estimate"] is None


@pytest.mark.usefixtures("no_gpu_compiler")
def test_the_command_for_gpus(tiny_folder, capsys):
    fields = [f"--config.{field}" for field in (f"model.init_from={tiny_folder}", "text.length=8")]
    code, out, _ = run_command(
        capsys, "--topology", "h200:8", "--json", "--search", *fields, "--config.train.batch_size=131072"
    )
    assert code == 0
    found = json.loads(out.splitlines()[-1])
    assert (found["devices"], found["fits"], found["method"]) == (8, True, "analytic")
    assert found["calibration"] == "not calibrated"
    assert found["estimate"]["bound_by"] in ("compute", "memory", "network")
    best = found["largest_batch"]
    assert best["batch"] >= 131072
    assert best["tried"][str(best["batch"])] is True
    assert not all(best["tried"].values())
    code, out, err = run_command(capsys, "--topology", "a100:1", *fields, "--config.train.batch_size=131072")
    assert code == 2
    assert "DOES NOT FIT" in out
    assert "GiB too much: try " in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("no_gpu_compiler")
def test_a_measured_step_scales_the_model(tiny_folder, tmp_path, capsys):
    config = str(config_files.config_file("base.py"))
    fields = [f"model.init_from={tiny_folder}", "text.length=8", "train.batch_size=512"]
    arguments = ["--topology", "h200:1", "--json", *(f"--config.{field}" for field in fields)]
    plain = json.loads(run_command(capsys, *arguments)[1])
    result = {
        "device": "NVIDIA H200",
        "devices": 1,
        "step_ms_unblocked": 3 * plain["estimate"]["step_ms"],
        "peak_bytes": plain["per_device_bytes"] // 2,
        "config": config,
        "overrides": fields,
    }
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(result))
    scaled = json.loads(run_command(capsys, *arguments, "--measured", str(path))[1])
    assert scaled["estimate"]["step_ms"] == pytest.approx(3 * plain["estimate"]["step_ms"], rel=1e-3)
    assert scaled["per_device_bytes"] == pytest.approx(plain["per_device_bytes"] / 2, rel=1e-6)
    path.write_text(json.dumps(result | {"device": "NVIDIA A100-SXM4-80GB"}))
    code, _, err = run_command(capsys, *arguments, "--measured", str(path))
    assert (code, "not on NVIDIA H200 SXM" in err) == (2, True)
    path.write_text("{}")
    code, _, err = run_command(capsys, *arguments, "--measured", str(path))
    assert (code, "is no result of `harvest bench step --json`" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology", "v5e"], "--topology v5e is none that is known"),
        (["--topology", "h200:12"], "--topology h200:12: more than 8 GPUs are planned for as whole machines of 8"),
        (["--topology", "cpu:8", "--search"], "--search needs a memory that has an end"),
        (["--topology", "cpu:8", "--measured", "x"], "--measured scales plans for GPUs"),
        (["--topology", "h200:8", "--measured", "gone"], "--measured gone is no result"),
        (["--topology", "h200:8", "--config.train.batch_size=12"], "cannot be divided over 8 devices"),
        (["--topology", "h200:8", "--config.mesh.fsdp=3"], "the 8 devices"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    code, out, err = run_command(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_gpu_compiler_that_does_not_work_is_one_line(monkeypatch, capsys):
    """As with the plugin but without NVIDIA's libraries, or of another version of JAX."""
    monkeypatch.setattr("harvest_jax.plan.hardware.compiler_is_here", lambda: True)

    def missing(**description):
        assert description["topology"] == "1x1x8"
        assert "major: 9 minor: 0" in description["target_config"]
        raise RuntimeError("cuda is not among the platforms\nsecond line")

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", missing)
    code, out, err = run_command(capsys, "--topology", "h200:8")
    assert (code, out) == (2, "")
    assert "h200:8: JAX's CUDA plugin says: cuda is not among" in err


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed")
def test_a_tpu_slice(tiny_folder):
    found = compile_plan(train_program(tiny_run(tiny_folder, "mesh.fsdp=2"), devices(parse_topology("v5e:2x4"))))
    assert found.memory.peak > found.memory.arguments
    assert {one.kind for one in found.collectives} <= {"all-gather", "all-reduce", "reduce-scatter"}
    with pytest.raises(ConfigError, match="libtpu says"):
        devices(parse_topology("v5e:3x5"))
