"""The cost of a training step with all patches and with the kept ones: FLOPs by arithmetic, time by measurement."""

import dataclasses
import statistics
import time

import jax

from harvest_jax.bench.flops import step_flops
from harvest_jax.config.run import MeshFields, RunConfig
from harvest_jax.train.freeze import partition
from harvest_jax.train.model_of_run import parameters_at_random
from harvest_jax.train.program import random_batch, train_program

REPEATS = 3
CLIPS = 16  # a step; a quarter of the training's batch, because with all patches that takes seconds on 2 cores


@dataclasses.dataclass(frozen=True)
class StepCost:
    """A training step of CLIPS clips.

    Attributes:
      milliseconds: median time on this machine's first device.
      flops: floating-point operations of its matrix products, forward and backward.
    """

    milliseconds: float
    flops: float


def measure(run: RunConfig, keep_ratio: float) -> StepCost:
    """A whole training step (towers, decoder, losses, optimizer) with that share of the patches kept."""
    run = dataclasses.replace(
        run,
        model=dataclasses.replace(run.model, keep_ratio=keep_ratio),
        train=dataclasses.replace(run.train, batch_size=CLIPS, accumulate=1, loss_chunk=0),
        mesh=MeshFields(data=1, fsdp=1),
    )
    program = train_program(run, jax.devices()[:1])
    params = jax.jit(lambda: parameters_at_random(run, program.model))()
    trained, frozen = partition(params, run.train.lr_multipliers)
    step, batch = program.step(), random_batch(run, program.config)
    state, compiled = step.init_state(trained), jax.jit(step)
    jax.block_until_ready(compiled(state, frozen, batch))
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(compiled(state, frozen, batch))
        times.append(1e3 * (time.perf_counter() - began))
    return StepCost(statistics.median(times), CLIPS * step_flops(run, program.config)["total"])
