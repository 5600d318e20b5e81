"""A step's memory, arithmetic and traffic without a compiler: for GPUs where NVIDIA's libraries are not installed.

Exact are the bytes of state, frozen parameters and batch (with the shapes and shardings of the real program), the bytes
that automatic differentiation keeps for the backward pass (the program is traced, not run), and the matrix products
(`train.flops`). All else is an estimate; comments say which, where it is added.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harvest_jax.config.run import MeshFields, RunConfig
from harvest_jax.plan.collectives import Collective
from harvest_jax.plan.hlo import Array
from harvest_jax.plan.program_cost import ProgramCost
from harvest_jax.plan.resources import DeviceMemory, StepResources
from harvest_jax.train.flops import step_flops
from harvest_jax.train.hardware import DTYPES
from harvest_jax.train.program import TrainProgram, train_program

IN_FLIGHT = 2  # batches on the device: the one in use and the next
WORKING = 4  # arrays that are live beside the kept ones, each as large as the largest kept one of a layer
PROBE = 11  # clips of the traced batch, to count the bytes kept for each; no axis of a model has this length


def analytic_resources(program: TrainProgram, all_patches: bool = False) -> StepResources:
    """Estimate a run's step on GPUs.

    Args:
      program: on as many devices, of any kind, as there are GPUs.
      all_patches: the last stage, in which nothing is dropped.
    """
    run, count = program.run, program.mesh.size
    batch = run.train.batch_size // count
    pieces = run.train.unmasked_accumulate if all_patches else run.train.accumulate
    kept, largest = kept_bytes(_anywhere(run), all_patches)
    state, frozen = on_device(program.state), on_device(program.frozen)
    inputs, trained = on_device(program.batch(all_patches)), 4 * num_elements(program.state.params)
    elements = num_elements(program.state.params) + num_elements(program.frozen)
    copies = elements * jnp.dtype(DTYPES[run.model.dtype]).itemsize
    arguments = state + frozen + inputs
    temporaries = (
        trained  # gradients, float32 like the parameters, whole until they are scattered
        + copies  # parameters in the type of the computation, gathered where fsdp splits them
        + (IN_FLIGHT - 1) * inputs
        + math.ceil(batch / pieces) * (kept + WORKING * largest)
        + contrastive_bytes(run, program.config.video.embed_dim, count)
    )
    memory = DeviceMemory(arguments, state, state, int(temporaries), 0, int(arguments + temporaries))
    flops = step_flops(run, program.config, all_patches)
    arithmetic = (flops["total"] + flops["recomputed"]) * batch
    traffic = (
        2.0 * batch * kept  # kept activations are written once and read once
        + 2.0 * state  # the optimizer reads and writes parameters and moments
        + 2.0 * trained  # gradients are written and read
        + 3.0 * pieces * copies  # weights are read once forward and twice backward
        + inputs
    )
    return StepResources(memory, ProgramCost(arithmetic, arithmetic, traffic), communication(program, pieces))


def _anywhere(run: RunConfig) -> RunConfig:
    """The run without the fields that do not change the bytes of one clip, so that a search traces it once."""
    train = dataclasses.replace(run.train, batch_size=PROBE, accumulate=1, unmasked_accumulate=1, loss_chunk=0)
    return dataclasses.replace(run, train=train, mesh=MeshFields(dcn_data=1, data=1, fsdp=1))


@functools.cache
def kept_bytes(run: RunConfig, all_patches: bool) -> tuple[float, float]:
    """(Bytes a clip that the forward pass keeps for the backward pass, bytes a clip of one layer's largest array).

    `run` is of `_anywhere`. Fused attention (cuDNN's, in bfloat16) keeps no attention scores; the towers' scores are
    traced here and left out. The results of that kernel, which `remat=dots` keeps (a tenth more), are not counted.
    """
    (small, largest), (large, _) = (_kept(run, all_patches, size) for size in (PROBE, 2 * PROBE))
    return (large - small) / PROBE, largest


def _kept(run: RunConfig, all_patches: bool, size: int) -> tuple[float, float]:
    """(Bytes kept of a batch of `size` clips, bytes a clip of one layer's largest array)."""
    train = dataclasses.replace(run.train, batch_size=size)
    program = train_program(dataclasses.replace(run, train=train), jax.devices("cpu")[:1])
    step, batch = program.step(all_patches), program.batch(all_patches)

    def backward(trained: Any, frozen: Any, batch: Any) -> Any:
        return jax.vjp(lambda trained: step.loss(trained, frozen, batch)[0], trained)[1]

    kept = jax.tree.leaves(jax.eval_shape(backward, program.state.params, program.frozen, batch))
    if run.model.dtype == "bfloat16":
        scores = {(n, n) for n in (1 + batch["patches"].shape[1], batch["ids"].shape[1])}
        kept = [leaf for leaf in kept if leaf.ndim < 4 or leaf.shape[-2:] not in scores]
    layers = (program.config.video.layers, program.config.text.layers)
    of_clips = [leaf for leaf in kept if size in leaf.shape]  # the others are weights
    largest = max(
        _bytes(leaf) / (leaf.shape[0] if leaf.ndim > 3 and leaf.shape[0] in layers else 1) for leaf in of_clips
    )
    return float(sum(_bytes(leaf) for leaf in kept)), largest / size


def _bytes(leaf: Any) -> int:
    return int(leaf.size) * leaf.dtype.itemsize


def on_device(tree: Any) -> int:
    """Bytes on one device of a tree of ShapeDtypeStructs with shardings."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def num_elements(tree: Any) -> int:
    """The number of elements of all arrays of a tree, unsharded."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(tree))


def contrastive_bytes(run: RunConfig, dim: int, devices: int) -> int:
    """Bytes on one device of the similarity matrix and its gradient, float32."""
    if not run.train.contrastive_weight:
        return 0
    rows, columns = run.train.batch_size // devices, run.train.loss_chunk or run.train.batch_size
    return 4 * (2 * rows * columns + 3 * run.train.batch_size * dim)


def communication(program: TrainProgram, pieces: int) -> tuple[Collective, ...]:
    """The collectives of the step: one gather of text embeddings and its gradient; gradients; parameters with fsdp.

    Gradients are sent in the type of the computation.
    """
    run, devices, fsdp = program.run, program.mesh.size, program.mesh.shape["fsdp"]
    dtype = {"bfloat16": "bf16", "float32": "f32"}[run.model.dtype]
    found = []

    def add(kind: str, group: int, dtype: str, shape: tuple[int, ...], source: str, count: int = 1) -> None:
        if group > 1 and math.prod(shape) > 0:
            found.append(Collective(kind, count, group, (Array(dtype, shape),), source))

    embeddings = (run.train.batch_size, program.config.video.embed_dim)
    if run.train.contrastive_weight:
        add("all-gather", devices, "f32", embeddings, "text embeddings")
        add("all-reduce", devices, "f32", embeddings, "gradient of the text embeddings")
    leaves = jax.tree.leaves(program.state.params)
    split = num_elements([leaf for leaf in leaves if not leaf.sharding.is_fully_replicated])
    frozen = num_elements([leaf for leaf in jax.tree.leaves(program.frozen) if not leaf.sharding.is_fully_replicated])
    add("all-reduce", devices, dtype, (num_elements(leaves) - split,), "gradients")
    add("reduce-scatter", fsdp, dtype, (split,), "gradients of what fsdp splits")
    add("all-reduce", devices // fsdp, dtype, (split // fsdp,), "gradients of what fsdp splits, between its groups")
    add("all-gather", fsdp, dtype, (split + frozen,), "parameters that fsdp splits")  # once a step (`Step.gather`)
    return tuple(sorted(found, key=lambda one: -one.count * one.received))
