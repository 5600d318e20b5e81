"""What a step costs with all patches and with the kept ones, measured on this machine."""

import dataclasses
import statistics
import time

import jax

from harvest_jax.config.run import MeshFields, RunConfig
from harvest_jax.train.freeze import partition
from harvest_jax.train.initialise import parameters_at_random
from harvest_jax.train.program import random_batch, train_program

REPEATS = 3
CLIPS = 16  # a step, a quarter of the training's: with all patches kept a full one takes seconds on 2 cores


def step_ms(run: RunConfig, keep_ratio: float) -> float:
    """Median milliseconds of a whole training step of CLIPS clips (towers, decoder, losses, optimizer), one device."""
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
    return statistics.median(times)
