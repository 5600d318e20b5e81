"""Reading compiled programs: instructions, loops, collectives, arithmetic and memory traffic."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from harvest_jax.plan import hlo
from harvest_jax.plan.chips import CHIPS
from harvest_jax.plan.collectives import between_slices, by_kind, collectives, group_size
from harvest_jax.plan.estimate import estimate, longest_kernels
from harvest_jax.plan.program_cost import program_cost
from harvest_jax.plan.resources import DeviceMemory, StepResources
from harvest_jax.plan.topology import parse_topology

# What TPU compilers write, shortened: tuples with comments, tiled layouts, memory spaces, loops without a trip count.
TPU = (Path(__file__).parents[1] / "data" / "tpu_program.txt").read_text()
# What the compiler for GPUs writes, in the same way: calls of cuBLAS and cuDNN with their working memory.
GPU = (Path(__file__).parents[1] / "data" / "gpu_program.txt").read_text()


def test_a_tpu_program_is_read():
    module = hlo.parse_module(TPU)
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


# What goes between slices: a chip's part, sent to its host, whose runtime exchanges it with the other slices.
BETWEEN = """HloModule two_slices

ENTRY %main (x: bf16[512,8,128]) -> bf16[64,8,128] {
  %x = bf16[512,8,128]{2,1,0} parameter(0)
  %scattered = bf16[64,8,128]{2,1,0} reduce-scatter(%x), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, to_apply=%add, metadata={op_name="jit(f)/transpose(jvp(Tower))/dot_general"}
  %part = bf16[64,8,128]{2,1,0} bitcast(%scattered)
  %token = token[] after-all()
  %send = (bf16[64,8,128]{2,1,0}, u32[], token[]) send(%part, %token), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %send.1 = (bf16[64,8,128]{2,1,0}, u32[], token[]) send(%part, %token), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_GATHER"}
  ROOT %out = bf16[64,8,128]{2,1,0} copy(%part)
}
"""  # noqa: E501


def test_what_goes_between_slices_is_apart():
    part = 64 * 8 * 128 * 2
    found = collectives(hlo.parse_module(BETWEEN), devices=8, slices=2)
    slow = {one.kind: one for one in between_slices(found)}
    assert [one.kind for one in found if not one.between_slices] == ["reduce-scatter"]
    assert {kind: (one.group, one.received) for kind, one in slow.items()} == {
        "all-reduce": (2, part),  # half of it, twice
        "all-gather": (2, part),  # the part of the other slice
    }
    assert slow["all-reduce"].to_dict()["from"] == "jit(f)/transpose(jvp(Tower))/dot_general"

    step = StepResources(DeviceMemory(0, 0, 0, 0, 0, 0), program_cost(hlo.parse_module(BETWEEN)), found)
    times = estimate(step, parse_topology("v5e:2x2", 2), 8)
    assert times.between_ms == pytest.approx(1e3 * 2 * part / 3.125e9)
    assert times.network_ms == pytest.approx(1e3 * 512 * 8 * 128 * 2 * 3 / 4 / 100e9)  # a 2 x 2 mesh has half the links
    assert times.bound_by == "network between slices"


def test_a_gpu_program_is_read_kernel_by_kernel(monkeypatch):
    cost = program_cost(hlo.parse_module(GPU))
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

    plan, where = StepResources(DeviceMemory(0, 0, 0, 0, 0, 0), cost, ()), parse_topology("h200:1")
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


def test_a_loop_of_unknown_length_counts_once_and_is_named():
    unknown = hlo.parse_module(TPU.replace("direction=LT", "direction=NE"))
    assert unknown.times["body"] == 1
    cost = program_cost(unknown)
    assert cost.unknown_loops == ("loop",)
    assert cost.flops < program_cost(hlo.parse_module(TPU)).flops


def test_loops_count_as_often_as_they_run():
    compiled = compiled_loop(6)
    module = hlo.parse_module(compiled.as_text())
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
    cost = program_cost(hlo.parse_module(text))
    assert (cost.flops, cost.bf16_flops) == (flops, 6 * flops)
