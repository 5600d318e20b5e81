"""The training loop: read a batch, take a step, log, save. This order makes a resumed run equal to an unbroken one."""

import collections
import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Int32

from harvest_jax.checkpoint import consensus
from harvest_jax.checkpoint.checkpointer import Checkpointer
from harvest_jax.errors import NonFiniteError, Preempted
from harvest_jax.input.batches import Batches
from harvest_jax.train.events import Events
from harvest_jax.train.freeze import Tree
from harvest_jax.train.mesh import put_batch
from harvest_jax.train.meter import Meter
from harvest_jax.train.metrics import MetricWriter
from harvest_jax.train.preemption import StopSignal
from harvest_jax.train.profile import Profiler
from harvest_jax.train.program import TrainProgram
from harvest_jax.train.scoring import Scoring
from harvest_jax.train.step import TrainState
from harvest_jax.train.watchdog import Watchdog

AHEAD = 2  # steps that the host may be ahead of the device: each holds a batch in the device's memory
SAVING, EVALUATING = "saving", "evaluating"  # kinds of the watchdog
MULTIPLE = 8  # tokens: captions are cut at multiples of it


def run_steps(
    program: TrainProgram,
    state: TrainState,
    frozen: Tree,
    batches: Batches,
    checkpointer: Checkpointer,
    writer: MetricWriter,
    stop: StopSignal,
    watchdog: Watchdog,
    scoring: Scoring | None = None,
    events: Events | None = None,
    rate: float = 0.0,
    profiler: Profiler | None = None,
) -> TrainState:
    """Steps from `state.step` to `train.steps`; returns the last state, saved.

    State and position in the data are saved together, before the next batch is drawn, so that they always fit. The
    host waits for the device only to log and to save, and when it is more than AHEAD steps ahead.

    Args:
      program: the compiled steps of the run.
      state: donated.
      frozen: the other parameters.
      batches: this process's batches, at the position that fits the state.
      checkpointer, writer, stop: where states and measurements go, and what asks for a stop.
      watchdog: is told when steps, saves and evaluations begin and end.
      scoring: the evaluations of the run, if it has any. A step that is scored is saved first.
      events: counts the time; None: lines of this run go nowhere.
      rate: FLOP/s of one device, for the MFU; 0: not known.
      profiler: traces steps, if there is one.

    Raises:
      NonFiniteError: at the first logged or saved step after it happened; nothing non-finite is saved.
      Preempted: a stop was asked for; the state is saved.
    """
    train = program.run.train
    compiled = functools.cache(program.jitted)
    # several processes would have to agree on one length, and some text towers read the padding
    cut = jax.process_count() == 1 and not program.config.text.fixed_length
    on_device = tuple(program.batch())
    step = start = int(state.step)
    events = events or Events(None)
    events.ready(step)
    meter = Meter(program, events, step, rate)
    running: collections.deque[Any] = collections.deque()
    shapes_seen: set[Any] = set()
    if scoring is not None:
        with events.spend("evaluate"), watchdog.between(EVALUATING, step):
            scoring.at_start(step, state)
    while step < train.steps:
        watchdog.reading(step + 1)
        with events.spend("data_wait"):
            batch = next(batches)
        all_patches = step >= train.steps - train.unmasked_steps
        arrays = {name: batch[name] for name in on_device}
        if cut and "ids" in arrays:
            arrays["ids"] = without_padding(arrays["ids"])
        shapes = (all_patches, *(array.shape for array in arrays.values()))
        compiles = shapes not in shapes_seen
        shapes_seen.add(shapes)
        watchdog.running(compiles)
        if profiler is not None:
            profiler.before(step)
        with meter.step(all_patches, arrays, compiles):
            state, metrics = compiled(all_patches)(state, frozen, put_batch(arrays, program.mesh))
        step += 1
        if profiler is not None:
            profiler.after(step, metrics["loss"])
        running.append(metrics["loss"])
        if len(running) > AHEAD:  # this returns before the device has no work left
            jax.block_until_ready(running.popleft())
        last = step == train.steps
        stopping = not last and stop.requested(step)
        scored = scoring is not None and not stopping and scoring.due(step)
        save = stopping or last or scored or step % train.save_every == 0
        show = step % train.log_every == 0 or step == start + 1 or last
        if save or show:
            batches.damaged.share(consensus.all_gather)
        if show:
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            values |= meter.measurements() | batches.report(step * train.batch_size)
            stop.listen()  # from here on there is a state to save
            writer.write(step, values)
            _stop_if_bad(state, batch)
        if save:
            _stop_if_bad(state, batch)
        watchdog.done()
        if save:
            events.write("save_begin", step=step)
            with events.spend("save"), watchdog.between(SAVING, step):
                checkpointer.save(step, state, batches)
                if stopping or (last and not scored):  # an evaluation waits for it anyway
                    checkpointer.wait()
        if stopping:
            events.steps_done()
            raise Preempted(f"stopped by {stop.name}, saved at step {step}: run the same command again to go on")
        if scored and scoring is not None:
            with events.evaluation(step), watchdog.between(EVALUATING, step):
                scoring.score(step, state)
    events.steps_done()
    return state


def without_padding(ids: Int32[np.ndarray, "B L"]) -> Int32[np.ndarray, "B l"]:
    """Captions cut after the longest one's end token, at a multiple of tokens, so that few lengths are compiled.

    The text tower is causal: tokens after the end token change nothing. The end token has the largest id.
    """
    longest = int(ids.argmax(axis=1).max()) + 1
    return ids[:, : -(-longest // MULTIPLE) * MULTIPLE]


def _stop_if_bad(state: TrainState, batch: dict[str, np.ndarray]) -> None:
    bad = int(state.first_bad_step)
    if bad >= 0:
        indices = ", ".join(str(index) for index in batch["index"][:4])
        raise NonFiniteError(
            f"the loss or the gradient of step {bad + 1} is not a number (seen at the batch of clips {indices} ...); "
            "nothing after it was saved. The same command goes on from the last checkpoint and comes to the same step "
            "again, so it helps only if a device had failed; otherwise begin a new run from a checkpoint of this one "
            "(--fork WORKDIR --workdir NEW) with a lower train.learning_rate, or with train.clip_norm=1"
        )
