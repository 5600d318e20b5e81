"""A training run: devices, data, state, resume, the loop, export; in this order."""

import contextlib
import functools
import json
from pathlib import Path
from typing import Any

import jax

from harvest_jax.checkpoint.checkpointer import Checkpointer
from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.files import write_atomically
from harvest_jax.input.patches import num_kept
from harvest_jax.input.pipeline import training_batches
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.model.config import HarvestConfig
from harvest_jax.train import mesh as meshes
from harvest_jax.train.agreement import check_same_run, check_shared_workdir
from harvest_jax.train.freeze import merge, partition
from harvest_jax.train.initialise import initial_parameters
from harvest_jax.train.loop import run_steps
from harvest_jax.train.metrics import MetricWriter
from harvest_jax.train.preemption import StopSignal
from harvest_jax.train.program import train_program
from harvest_jax.weights.folder import save_model


def identity(run: RunConfig, data_digest: str) -> dict[str, Any]:
    """What must be the same for a resumed run to be the same run.

    Devices, loader processes and logging may change, and what trades memory for time (so that a run that does not fit
    its last stage can go on): by that the numbers change in their last digits alone.
    """
    fields = run.to_dict()
    for section, names in {
        "model": ("init_from", "attention", "remat"),
        "data": ("shards", "workers", "prefetch", "bad_records"),
        "train": ("accumulate", "loss_chunk", "unmasked_accumulate", "log_every", "save_every", "keep_checkpoints"),
    }.items():
        for name in names:
            del fields[section][name]
    del fields["mesh"], fields["distributed"]
    if not run.data.weights:  # runs that began before there were any have no such field
        del fields["data"]["weights"]
    return json.loads(json.dumps(fields | {"data_digest": data_digest}))


def train(run: RunConfig, workdir: Path, to_terminal: bool | None = None) -> Path:
    """Train, or go on where the newest good checkpoint in `workdir` stopped.

    Args:
      run: the checked config.
      workdir: made if missing.
      to_terminal: a live display; None asks whether standard output is a terminal.

    Returns:
      the model folder `workdir/export`.

    Raises:
      ConfigError, DataError, CheckpointError: as their messages say.
      NonFiniteError: a loss or gradient was not a number; the state of the last good step is kept.
      Preempted: a signal came; the state is saved.
    """
    if not run.data.shards:
        raise ConfigError("data.shards is empty: set it to a folder written by `harvest shards`")
    lead = jax.process_index() == 0
    program = train_program(run)
    mesh, config = program.mesh, program.config

    with contextlib.ExitStack() as stack:
        batches = training_batches(
            run,
            config.video.image_size,
            config.video.patch_size,
            Tokenizer(config.text.vocab_size),
            jax.process_index(),
            jax.process_count(),
        )
        stack.callback(batches.close)
        check_same_run(run, batches.sets.digest)
        check_shared_workdir(workdir)
        train = run.train
        checkpointer = stack.enter_context(
            Checkpointer(workdir, train.save_every, train.keep_checkpoints, identity(run, batches.sets.digest))
        )

        trained, frozen = partition(initial_parameters(run, program.model), train.lr_multipliers)
        frozen = meshes.put(frozen, mesh)
        checkpointer.save_frozen(frozen)
        restored = checkpointer.restore_latest_good(program.state, batches)
        if restored is None:
            start_state = jax.jit(program.step().init_state, out_shardings=program.state_shardings)
            state = start_state(meshes.put(trained, mesh))
        else:
            state = restored[0]
        start = int(state.step)
        if lead:
            write_atomically(workdir / "config.json", json.dumps(run.to_dict(), indent=2).encode() + b"\n")
            print(_opening(run, config, mesh, batches.sets.num_clips, start), flush=True)

        writer = stack.enter_context(MetricWriter(workdir, train.steps, start, to_terminal, enabled=lead))
        stop = stack.enter_context(StopSignal())
        compiled = functools.cache(program.jitted)
        state = run_steps(run, compiled, state, frozen, batches, batches.report, mesh, checkpointer, writer, stop)

        params = meshes.fetch(merge(state.params, frozen), mesh)
        params.pop("logit_bias", None)  # of the sigmoid loss; ranks nothing, and a model folder has no place for it
    export = workdir / "export"
    if lead:
        save_model(export, config, params, {"workdir_step": train.steps, "config": run.to_dict()})
        print(f"model folder: {export}", flush=True)
    return export


def _opening(run: RunConfig, config: HarvestConfig, mesh: jax.sharding.Mesh, clips: int, start: int) -> str:
    """One line that says what begins (or goes on) where."""
    video = config.video
    total = video.num_frames * video.cells_per_frame
    kept = num_kept(video.num_frames, video.cells_per_frame, run.model.keep_ratio, run.model.drop_scope)
    begin = f"go on from step {start}" if start else "begin"
    devices = f"{mesh.size} {mesh.devices.flat[0].device_kind} in {jax.process_count()} process(es)"
    return (
        f"{begin} of {run.train.steps} steps: {config.name}, {video.num_frames} frames, {kept} of {total} patches, "
        f"batch {run.train.batch_size} of {clips} clips, {devices}"
    )
