"""The training step through XLA's compiler for GPUs, which needs JAX's CUDA plugin but no GPU (`make gpu`)."""

import re

import jax
import pytest

from harvest_jax.config import files as config_files
from harvest_jax.config import run as run_config
from harvest_jax.plan.compiled import compiled_resources
from harvest_jax.plan.gpu_target import COMPILER_OPTIONS, compiler_is_here
from harvest_jax.plan.topology import devices, parse_topology
from harvest_jax.train.flops import step_flops
from harvest_jax.train.program import train_program

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not compiler_is_here(), reason="JAX's CUDA plugin is not installed: pip install -e '.[gpu]'"),
]
BATCH = 64


def program(topology, *overrides):
    run = run_config.load(str(config_files.config_file("harvest_b16.py")), [f"train.batch_size={BATCH}", *overrides])
    return train_program(run, devices(parse_topology(topology)))


def calls(text):
    """Calls of cuDNN's attention, (forward, backward), and loops."""
    targets = re.findall(r'custom_call_target="__cudnn\$fmha(\w+)"', text)
    back = sum(target.endswith("Backward") for target in targets)
    return len(targets) - back, back, len(re.findall(r" while\(", text))


@pytest.mark.parametrize(
    ("fields", "all_patches"),
    [
        ((), False),
        (("model.keep_ratio=0.25", "text.length=31"), False),  # odd numbers of tokens, in both towers
        (("model.remat=full",), False),
        (("train.unmasked_steps=1",), True),
    ],
)
def test_attention_is_one_kernel_in_all_towers_and_layers_are_no_loop(fields, all_patches):
    one = program("h200:1", *fields)
    compiled = one.jitted(all_patches).lower(one.state, one.frozen, one.batch(all_patches))
    text = compiled.compile(compiler_options=COMPILER_OPTIONS).as_text()
    layers = 12 + 12 + 4  # video, text, decoder
    again = layers if "model.remat=full" in fields else 0  # dots keeps what the kernel gave
    assert calls(text) == (layers + again, layers, 0)


def test_memory_and_arithmetic_of_the_compiled_step():
    one = program("h200:1")
    plan = compiled_resources(one)
    flops = step_flops(one.run, one.config)["total"] * BATCH
    assert flops < plan.cost.flops < 1.02 * flops  # attention's scores are made again by its kernel
    stacked = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(one.state))
    assert plan.memory.aliased > 0.99 * stacked  # the old state's memory goes to the new one
    assert plan.memory.peak < plan.memory.arguments + 4 * 2**30
    attention = [kernel for kernel in plan.cost.kernels if "dot_product_attention" in kernel.source]
    assert sum(kernel.times for kernel in attention) == 2 * (12 + 12 + 4)
    assert 0 < sum(kernel.times * kernel.flops for kernel in attention) < 0.05 * plan.cost.flops


def test_no_collective_grows_with_the_square_of_the_batch():
    plan = compiled_resources(program("h100:8", "mesh.fsdp=2", "train.loss_chunk=8", "model.keep_ratio=0.25"))
    kinds = {one.kind for one in plan.collectives}
    assert kinds <= {"all-gather", "all-reduce", "reduce-scatter", "collective-permute"}
    assert {"all-gather", "all-reduce"} <= kinds
    assert not any(array.shape.count(BATCH) > 1 for one in plan.collectives for array in one.arrays)


def test_float32_takes_xla_for_attention_and_so_does_who_asks():
    for topology, field in (("a100:1", "model.dtype=float32"), ("h200:1", "model.attention=xla")):
        one = program(topology, field)
        lowered = one.jitted().lower(one.state, one.frozen, one.batch())
        assert calls(lowered.compile(compiler_options=COMPILER_OPTIONS).as_text())[:2] == (0, 0)
