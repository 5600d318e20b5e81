"""The cost of a training step with all patches and with the kept ones: FLOPs by arithmetic, time by measurement.

The machine may have other work. So the steps that are compared take turns, and a short step is repeated for half a
second: else other work would interrupt the long step alone, and the ratio would grow.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence

import jax
from jaxtyping import Array, Float

from harvest_jax.config.run import MeshFields, RunConfig
from harvest_jax.model.blocks import attend
from harvest_jax.train.flops import step_flops
from harvest_jax.train.freeze import partition
from harvest_jax.train.model_of_run import parameters_at_random
from harvest_jax.train.program import TrainProgram, random_batch, train_program

_Heads = Float[Array, "b m h d"]
ROUNDS = 3
ROUND_SECONDS = 0.5  # at least so long each function is repeated in a round
CLIPS = 16  # a step; a quarter of the training's batch, because with all patches that takes seconds on 2 cores


@dataclasses.dataclass(frozen=True)
class StepCost:
    """A training step of CLIPS clips.

    Attributes:
      milliseconds: median time on this machine's first device.
      attention_ms: median time of the video tower's attention alone (scores, softmax, mixture), all layers, forward and
        backward, as a program of its own.
      flops: floating-point operations of its matrix products, forward and backward.
    """

    milliseconds: float
    attention_ms: float
    flops: float


def measure(run: RunConfig, keep_ratios: Sequence[float]) -> list[StepCost]:
    """A whole training step (towers, decoder, losses, optimizer) with each of these shares of the patches kept."""
    programs = [_program(run, ratio) for ratio in keep_ratios]
    times = iter(milliseconds_of([work(program) for program in programs for work in (_step, _attention)]))
    return [
        StepCost(next(times), next(times), CLIPS * step_flops(program.run, program.config)["total"])
        for program in programs
    ]


def _program(run: RunConfig, keep_ratio: float) -> TrainProgram:
    run = dataclasses.replace(
        run,
        model=dataclasses.replace(run.model, keep_ratio=keep_ratio),
        train=dataclasses.replace(run.train, batch_size=CLIPS, accumulate=1, loss_chunk=0),
        mesh=MeshFields(dcn_data=1, data=1, fsdp=1),
    )
    return train_program(run, jax.devices()[:1])


def _step(program: TrainProgram) -> Callable[[], object]:
    params = jax.jit(lambda: parameters_at_random(program.run, program.model))()
    trained, frozen = partition(params, program.run.train.lr_multipliers)
    step, batch = program.step(), random_batch(program.run, program.config)
    state, compiled = step.init_state(trained), jax.jit(step)
    return lambda: compiled(state, frozen, batch)


def _attention(program: TrainProgram) -> Callable[[], object]:
    video, model = program.config.video, program.model
    rows = 1 + program.batch()["patches"].shape[1]  # the class token, too
    shape = (CLIPS, rows, video.heads, video.width // video.heads)
    arrays = list(jax.random.normal(jax.random.key(0), (4, *shape), model.dtype))

    @jax.jit
    def layer(query: _Heads, key: _Heads, value: _Heads, gradient: _Heads) -> object:
        mixed, backward = jax.vjp(functools.partial(attend, implementation=model.attention), query, key, value)
        return mixed, backward(gradient)

    return lambda: [layer(*arrays) for _ in range(video.layers)]


def milliseconds_of(functions: Sequence[Callable[[], object]]) -> list[float]:
    """Median over the rounds of each function's time a call."""
    for function in functions:
        jax.block_until_ready(function())  # compiled here
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for function, found in zip(functions, times, strict=True):
            began, calls = time.perf_counter(), 0
            while (elapsed := time.perf_counter() - began) < ROUND_SECONDS or calls == 0:
                jax.block_until_ready(function())
                calls += 1
            found.append(1e3 * elapsed / calls)
    return [statistics.median(found) for found in times]
