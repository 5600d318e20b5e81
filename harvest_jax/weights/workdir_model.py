"""The model of a training folder: a checkpoint of a run, finished or not, as a description and host arrays.

A path names a checkpoint in four ways: WORKDIR (its newest good step), WORKDIR@STEP, WORKDIR@best (the step with the
best score, of a run that is evaluated while it trains), WORKDIR/checkpoints/STEP.
Everything read is compared with its digests first. Nothing is written, locked or moved: the run may still be going on.
"""

import dataclasses
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from harvest_jax.checkpoint import digests
from harvest_jax.checkpoint.digests import DamagedError
from harvest_jax.checkpoint.orbax_files import load_on_host, load_record
from harvest_jax.checkpoint.scores import best_step
from harvest_jax.checkpoint.tree_digest import tree_digest
from harvest_jax.checkpoint.workdir import Workdir, workdir_of_step
from harvest_jax.errors import CheckpointError, DataError
from harvest_jax.files import address_fault
from harvest_jax.input.file_tokenizer import FileTokenizer
from harvest_jax.model.config import HarvestConfig, harvest_config
from harvest_jax.model.harvest import Params, parameter_shapes
from harvest_jax.weights.files.open_checkpoint import CONFIG, read_json
from harvest_jax.weights.files.tensors import Tensors, TensorSpec
from harvest_jax.weights.folder import check_parameters, load_config, load_model, own_tokenizer

log = logging.getLogger(__name__)

BEST = "best"
# The sigmoid loss's: it does not change a ranking. A model that came with one keeps it (`HarvestConfig.logit_bias`).
NOT_IN_A_MODEL = ("logit_bias",)


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model and where it comes from."""

    name: str  # the model folder, or WORKDIR@STEP
    config: HarvestConfig
    params: Params  # float32 numpy arrays, nested dict
    tokenizer: FileTokenizer | None  # None: CLIP's
    # JSON; of a checkpoint: "workdir", "workdir_step", "digest" and "config" (of the run); of a folder: what it says
    origin: dict[str, Any]


def load_any_model(path: str | os.PathLike[str]) -> LoadedModel:
    """The model of a model folder or of a training folder (see the text of this module).

    Raises:
      DataError: it is neither, or an address, or the model folder is damaged.
      CheckpointError: the checkpoint is missing or damaged.
    """
    fault = address_fault(os.fspath(path))
    if fault:
        raise DataError(fault)
    found = checkpoint_of(path)
    if found is not None:
        return load_checkpoint(*found)
    folder = Path(path)
    config, params = load_model(folder)
    origin = read_json(folder / CONFIG).get("origin")
    tokenizer = own_tokenizer(config, folder)
    return LoadedModel(os.fspath(path), config, params, tokenizer, origin if isinstance(origin, dict) else {})


def checkpoint_of(path: str | os.PathLike[str]) -> tuple[Workdir, int | None] | None:
    """The training folder and the step that a path names (None: the newest good one); None if it names no checkpoint.

    Raises:
      CheckpointError: what follows the @ is neither a number nor "best", or no step has a score.
    """
    folder = Path(path)
    of_step = workdir_of_step(folder)
    if of_step is not None and of_step[0].exists:
        return of_step
    if folder.exists():
        workdir = Workdir(folder)
        return (workdir, None) if workdir.exists else None
    base, at, step = os.fspath(path).rpartition("@")
    if not at or not Workdir(Path(base)).exists:
        return None
    workdir = Workdir(Path(base))
    if step == BEST:
        best = best_step(workdir)
        if best is None:
            raise CheckpointError(
                f"{path}: no checkpoint has a score that decides; eval.every and eval.metric of a training give them"
            )
        return workdir, best[0]
    if not step.isdecimal():
        raise CheckpointError(f"{path}: {step!r} is not a step; {_steps(workdir)}")
    return workdir, int(step)


def load_checkpoint(workdir: Workdir, step: int | None) -> LoadedModel:
    """The model of one step, or of the newest good step if `step` is None.

    Raises:
      CheckpointError: there is no such step, or it is damaged.
      DataError: the workdir does not say what its model is.
    """
    if step is None:
        step, manifest = newest_good(workdir)
        log.warning("%s is a training folder: its newest good checkpoint is used, %s@%d", *[workdir.root] * 2, step)
    else:
        manifest = verified(workdir, step)
    folder = workdir.step(step)
    record = load_record(folder)
    flat = load_on_host(folder, of_item(record["arrays"], "params"))
    if manifest["frozen_digest"] != tree_digest({}):
        flat |= _frozen(workdir, manifest["frozen_digest"])
    config = described_model(workdir)
    left_out = () if config.logit_bias else NOT_IN_A_MODEL
    flat = {path: leaf.astype(np.float32, copy=False) for path, leaf in flat.items() if path not in left_out}
    entries = {path: TensorSpec(leaf.shape, leaf.dtype) for path, leaf in flat.items()}
    check_parameters(entries, parameter_shapes(config), str(folder))
    origin = {"workdir": workdir.root.name, "workdir_step": step, "digest": digests.manifest_digest(manifest)}
    if workdir.config.is_file():
        origin["config"] = read_json(workdir.config)
    params = traverse_util.unflatten_dict(flat, sep="/")
    return LoadedModel(f"{workdir.root}@{step}", config, params, own_tokenizer(config, workdir.root), origin)


def as_tensors(model: LoadedModel) -> Tensors:
    """The model as an importer needs it."""
    flat = {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(model.params, sep="/").items()}
    entries = {path: TensorSpec(leaf.shape, leaf.dtype) for path, leaf in flat.items()}
    kind = f"checkpoint of step {model.origin['workdir_step']} of a training"
    details = {"config": {"model": model.config.to_dict()}, "origin": model.origin}
    return Tensors(kind, model.name, entries, flat.__getitem__, details)


def recorded_config(workdir: Workdir) -> HarvestConfig | None:
    """The model's description that training wrote: in model.json, or with the export; None if there is neither.

    Raises:
      DataError: a file is damaged.
    """
    if workdir.model.is_file():
        try:
            return HarvestConfig.from_dict(read_json(workdir.model)["model"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{workdir.model} does not describe a model of this package: {error!r:.200}") from error
    return load_config(workdir.export) if workdir.exported else None


def described_model(workdir: Workdir) -> HarvestConfig:
    """The description of a training folder's model, from whichever file has it.

    Raises:
      DataError: none does, or a file is damaged.
    """
    return recorded_config(workdir) or _config_of_run(workdir)


def _config_of_run(workdir: Workdir) -> HarvestConfig:
    """The same for a run of a version up to 0.1.0 that did not end: from its config.

    Raises:
      DataError: neither the config nor the model folder that it names is there.
    """
    if not workdir.config.is_file():
        raise DataError(f"{workdir.root} does not say what its model is: model.json and config.json are missing")
    fields = read_json(workdir.config)["model"]
    if not fields["init_from"]:
        return harvest_config(fields["size"], fields["num_frames"], fields["decoder_layers"])
    start = Path(fields["init_from"])
    if not start.is_dir():
        raise DataError(
            f"{workdir.root} does not say what its model is: model.json is missing (versions up to 0.1.0 wrote none), "
            f"and the model folder that it started from, {start}, is not there: put it back, or call this from the "
            "folder where training was started"
        )
    return load_config(start).for_clips(fields["num_frames"], fields["decoder_layers"])


def newest_good(workdir: Workdir) -> tuple[int, dict[str, Any]]:
    """The newest step whose files all agree with its manifest, and that manifest.

    Raises:
      CheckpointError: there is none.
    """
    for step in reversed(workdir.steps()):
        try:
            return step, workdir.verified(step)
        except DamagedError as error:
            log.warning("the checkpoint of step %d in %s is left out: %s", step, workdir.root, error)
    raise CheckpointError(f"{workdir.root} holds no good checkpoint: train.save_every says when one is saved")


def verified(workdir: Workdir, step: int) -> dict[str, Any]:
    """The manifest of a step whose files all agree with it.

    Raises:
      CheckpointError: there is no such step, or it is damaged.
    """
    if not workdir.step(step).is_dir():
        raise CheckpointError(f"{workdir.root} holds no checkpoint of step {step}; {_steps(workdir)}")
    try:
        return workdir.verified(step)
    except DamagedError as error:
        raise CheckpointError(
            f"the checkpoint of step {step} in {workdir.root} is damaged: {error}; {_steps(workdir)}"
        ) from error


def _steps(workdir: Workdir) -> str:
    steps = workdir.complete_steps()
    return f"it has the steps {', '.join(map(str, steps))}" if steps else "it has no complete step"


def _frozen(workdir: Workdir, digest: str) -> dict[str, np.ndarray]:
    """The frozen parameters by path."""
    return load_on_host(workdir.frozen, of_item(verified_frozen(workdir, digest)["arrays"], "params"))


def verified_frozen(workdir: Workdir, digest: str) -> dict[str, Any]:
    """The manifest of the frozen parameters, whose files all agree with it.

    Args:
      workdir: a training folder.
      digest: of the frozen parameters, from a step's manifest.

    Raises:
      CheckpointError: they are damaged, or others.
    """
    try:
        manifest = digests.verify(workdir.frozen)
    except DamagedError as error:
        raise CheckpointError(f"{workdir.frozen} is damaged: {error}; resume the training, which repairs it") from error
    if manifest["tree_digest"] != digest:
        raise CheckpointError(
            f"the frozen parameters in {workdir.frozen} do not match the checkpoint (found {manifest['tree_digest']}, "
            f"expected {digest})"
        )
    return manifest


def of_item(arrays: dict[str, list[Any]], item: str) -> dict[str, list[Any]]:
    """The paths within one item: {"params/video/a": ...} -> {"video/a": ...}."""
    prefix = f"{item}/"
    return {path.removeprefix(prefix): entry for path, entry in arrays.items() if path.startswith(prefix)}
