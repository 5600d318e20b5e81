"""A training run: devices, data, state or resume, the loop, export; in this order."""

import contextlib
import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from harvest_jax.checkpoint import consensus
from harvest_jax.checkpoint.checkpointer import Checkpointer
from harvest_jax.checkpoint.load_step import load_step
from harvest_jax.checkpoint.scores import best_step
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.compiled_programs import share_compiled_programs
from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError, HungError
from harvest_jax.files import write_atomically
from harvest_jax.input.batches import Batches
from harvest_jax.input.file_tokenizer import FileTokenizer, TextTokenizer
from harvest_jax.input.patches import num_kept
from harvest_jax.input.pipeline import training_batches
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import Params
from harvest_jax.train import peers
from harvest_jax.train.agreement import check_same_fork_of_all, check_same_run, check_shared_workdir
from harvest_jax.train.events import Events
from harvest_jax.train.fork import Fork, Origin, begin_fork, check_fork, check_same_fork, find_origin, in_a_line
from harvest_jax.train.freeze import Tree
from harvest_jax.train.initial_state import initial_state
from harvest_jax.train.loop import AHEAD, run_steps
from harvest_jax.train.meter import device_rate
from harvest_jax.train.metrics import MetricWriter
from harvest_jax.train.model_of_run import tokenizer_of_run
from harvest_jax.train.preemption import StopSignal
from harvest_jax.train.profile import Profiler, Wanted
from harvest_jax.train.program import TrainProgram, train_program
from harvest_jax.train.resume_fields import identity
from harvest_jax.train.scoring import Scorer, Scoring, model_parameters, scored_by
from harvest_jax.train.sinks import sink_makers
from harvest_jax.train.step import TrainState
from harvest_jax.train.stop_time import StopTime
from harvest_jax.train.validate import repeated_clips, run_model_config, shard_folders
from harvest_jax.train.watchdog import Watchdog, least_seconds
from harvest_jax.version import __version__
from harvest_jax.weights.folder import save_model

log = logging.getLogger(__name__)


def train(
    run: RunConfig,
    workdir: Path,
    scorer: Scorer | None = None,
    fork: Fork | None = None,
    began: float | None = None,
    profile: Wanted | None = None,
    finished: Callable[[], None] | None = None,
) -> Path:
    """Train, or go on from the newest good checkpoint in `workdir`.

    Args:
      run: the checked config.
      workdir: made if missing.
      scorer: what evaluates the model as `run.eval` says; needed on process 0, where it is called.
      fork: the checkpoint of another run from which a new one begins; None: it begins at step 0.
      began: `time.monotonic()` when the command began, for the account of the time; None: now.
      profile: steps to trace into `workdir/profile`.
      finished: called when all is saved and exported, while a signal still does not end the process.

    Returns:
      the model folder `workdir/export`.

    Raises:
      ConfigError, DataError, CheckpointError: as their messages say.
      NonFiniteError: a loss or gradient was not a number; the state of the last good step is kept.
      Preempted: a signal came; the state is saved.
    A step, a save or an evaluation that hangs ends the process, with the status of HungError.
    """
    shard_folders(run)
    check_shared_workdir(workdir)
    lead = jax.process_index() == 0
    if run.eval.every and lead and scorer is None:
        raise ConfigError("eval.every is not 0, but nothing was given that evaluates: `harvest train` does")
    layout = Workdir(workdir)
    if jax.process_count() > 1:
        share_compiled_programs(layout.compiled)
    check_same_fork_of_all(fork.as_given() if fork else None)
    origin = find_origin(fork) if fork and not consensus.on_primary(layout.complete_steps) else None
    config = run_model_config(run, layout, origin.workdir if origin else None)
    tokenizer = tokenizer_of_run(run, config, layout.root, *([origin.workdir.root] if origin else []))
    program = train_program(run, config=config)
    with contextlib.ExitStack() as attempt, StopSignal() as stop:  # `attempt` closes last: that writes how it ended
        step, params, forked = _train(
            run, layout, config, tokenizer, program, scorer, stop, fork, origin, attempt, began, profile
        )
        stop.listen()  # all is saved: the export is finished, whatever comes
        if lead:
            made_by = {"workdir_step": step, "config": run.to_dict(), **forked}
            own = tokenizer if isinstance(tokenizer, FileTokenizer) else None
            save_model(layout.export, config, params, made_by, tokenizer=own)
            of_best = f", of the best step, {step}" if run.eval.export == "best" else ""
            print(f"model folder: {layout.export}{of_best}", flush=True)
        if finished is not None:
            finished()
    return layout.export


def _train(
    run: RunConfig,
    layout: Workdir,
    config: HarvestConfig,
    tokenizer: TextTokenizer,
    program: TrainProgram,
    scorer: Scorer | None,
    stop: StopSignal,
    fork: Fork | None,
    origin: Origin | None,
    attempt: contextlib.ExitStack,
    began: float | None,
    profile: Wanted | None,
) -> tuple[int, Params, dict[str, Any]]:
    """All steps, saved; the step to export, its parameters, and for a fork what it began from."""
    workdir, lead = layout.root, jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        batches = training_batches(
            run,
            config.video.image_size,
            config.video.patch_size,
            tokenizer,
            jax.process_index(),
            jax.process_count(),
            config.head.classes if config.head else (),
        )
        stack.callback(batches.close)
        check_same_run(run, batches.sets.digest)
        known = identity(run, batches.sets.digest)
        if origin is not None:
            check_fork(origin, run, known)
        kept = run.train.keep_checkpoints, known, scored_by(run), run.train.keep_every
        checkpointer = stack.enter_context(Checkpointer(workdir, *kept))
        events = attempt.enter_context(_events(layout, program, lead, began))  # the folder is locked by now
        checkpointer.completed = lambda step: events.write("save_end", step=step)
        profiler = stack.enter_context(Profiler(layout.profile, events, profile))
        rate = device_rate(layout, run.model.dtype) if lead else 0.0
        if lead:
            _warn_of_another_start(run, layout)
            description = {"model": config.to_dict(), "version": __version__}
            if isinstance(tokenizer, FileTokenizer) and not layout.tokenizer.exists():
                write_atomically(layout.tokenizer, tokenizer.path.read_bytes())
            write_atomically(layout.model, json.dumps(description, indent=2).encode() + b"\n")
        begin = None
        if origin is not None and fork is not None:
            begin = functools.partial(begin_fork, program, fork, origin, known, checkpointer, batches)
        state, frozen = start(program, checkpointer, batches, begin)
        if fork is not None:
            check_same_fork(fork, checkpointer.forked_from, workdir)
        step = int(state.step)
        if lead:
            write_atomically(layout.config, json.dumps(run.to_dict(), indent=2).encode() + b"\n")
            if checkpointer.forked_from:
                print(in_a_line(checkpointer.forked_from), flush=True)
            print(opening(run, config, program.mesh, batches.sets.num_clips, step), flush=True)
            warning = repeated_clips(run, batches.sets.clips)
            if warning:
                log.warning("%s", warning)
        sinks = sink_makers(run.log.sinks, layout, step, run.to_dict(), events.run_id)
        writer = stack.enter_context(MetricWriter(workdir, run.train.steps, step, lead, sinks))
        batches.stop_requested = lambda: stop.received

        def end_hung(message: str) -> None:  # in the watchdog's thread; no `with` is left any more
            events.mark("failed", error=HungError.__name__, why=message, exit_code=HungError.exit_code)
            peers.end_hung(message)

        watchdog = stack.enter_context(Watchdog(end_hung, least_seconds()))
        stack.enter_context(peers.standing(watchdog.where))
        scoring = None
        if run.eval.every:
            clips, progress = batches.sets.num_clips, watchdog.progress
            scoring = Scoring(program, frozen, clips, scorer, checkpointer, writer, stop, progress)
        stop.time = StopTime(layout, AHEAD + 1, lambda: watchdog.usual, lambda: checkpointer.save_seconds)
        state = run_steps(
            program, state, frozen, batches, checkpointer, writer, stop, watchdog, scoring, events, rate, profiler
        )
        step = run.train.steps
        if run.eval.export == "best":
            step, state = best_state(program, checkpointer, step, state)
        forked = {"forked_from": checkpointer.forked_from} if checkpointer.forked_from else {}
        return step, model_parameters(program, state, frozen), forked


def start(
    program: TrainProgram,
    checkpointer: Checkpointer,
    batches: Batches,
    begin: Callable[[], tuple[TrainState, Tree]] | None = None,
) -> tuple[TrainState, Tree]:
    """State and frozen parameters: those of the newest good checkpoint, else those of step 0, saved as far as frozen.

    `begin` gives and saves others than those of step 0, for a fork.

    Raises:
      CheckpointError, ConfigError, DataError: as `Checkpointer.restore` and `initial_state`.
    """
    state, frozen = checkpointer.restore(program.state, program.frozen, batches)
    if state is None and begin is not None:
        return begin()
    if frozen is None:  # nothing was restored, or the copy of the frozen parameters is damaged
        first, frozen = initial_state(program)
        checkpointer.save_frozen(frozen)
        state = first if state is None else state
    return state, frozen


def _events(layout: Workdir, program: TrainProgram, lead: bool, began: float | None) -> Events:
    """The attempt's events, with what it runs on in the first line."""
    device = program.mesh.devices.flat[0]
    about = {"devices": program.mesh.size, "device": device.device_kind, "processes": jax.process_count()}
    return Events(layout.events if lead else None, began, jax=jax.__version__, steps=program.run.train.steps, **about)


def best_state(
    program: TrainProgram, checkpointer: Checkpointer, last: int, state: TrainState
) -> tuple[int, TrainState]:
    """The step with the best score, and its state; those that are given if no step has a score.

    Raises:
      CheckpointError: the checkpoint is damaged.
    """
    best = consensus.on_primary(lambda: best_step(checkpointer.workdir))
    if best is None or best[0] == last:
        return last, state
    checkpointer.wait()
    return best[0], load_step(checkpointer.workdir, best[0], program.state)


def opening(run: RunConfig, config: HarvestConfig, mesh: jax.sharding.Mesh, clips: int, step: int) -> str:
    """One line: from what the run starts (or goes on), and its main sizes."""
    video = config.video
    total = video.num_frames * video.cells_per_frame
    kept = num_kept(video.num_frames, video.cells_per_frame, run.model.keep_ratio, run.model.drop_scope)
    origin = f"the model {run.model.init_from}" if run.model.init_from else "random parameters"
    begin = f"go on from step {step} of {run.train.steps}" if step else f"begin {run.train.steps} steps from {origin}"
    devices = f"{mesh.size} {mesh.devices.flat[0].device_kind} in {jax.process_count()} process(es)"
    return (
        f"{begin}: {config.name}, {video.num_frames} frames, {kept} of {total} patches, "
        f"batch {run.train.batch_size} of {clips} clips, {devices}"
    )


def _warn_of_another_start(run: RunConfig, layout: Workdir) -> None:
    """A run that goes on does not read `model.init_from`: say so if it is not what the run began with."""
    if not layout.complete_steps() or not layout.config.is_file():
        return
    try:
        began = json.loads(layout.config.read_bytes()).get("model", {}).get("init_from")
    except (OSError, ValueError):  # it is written anew; if the disk does not answer, the checkpoints say it
        return
    if run.model.init_from and Path(run.model.init_from).absolute() != Path(began or "").absolute():
        log.warning(
            "model.init_from=%s is not read: %s goes on from its own checkpoint and began from %r",
            run.model.init_from,
            layout.root,
            began,
        )
