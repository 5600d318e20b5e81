"""What training refuses or warns of before its first step; `--validate_only` does nothing else."""

from pathlib import Path

from data_pipeline.shards.shard_format import open_shards
from harvest_jax.checkpoint.run_identity import check_identity
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import parameter_shapes
from harvest_jax.train.fork import Fork, check_fork, check_same_fork, find_origin
from harvest_jax.train.freeze import multiplier
from harvest_jax.train.model_of_run import check_text_length, model_config, tokenizer_of_run
from harvest_jax.train.program import train_program
from harvest_jax.train.resume_fields import identity
from harvest_jax.weights.workdir_model import described_model, recorded_config

TOWERS = ("video", "text")


def run_model_config(run: RunConfig, workdir: Workdir, origin: Workdir | None = None) -> HarvestConfig:
    """The model's description: the workdir's own if it holds a checkpoint, else by `model.init_from` and `model.size`.

    A fork has the model of `origin`, the training folder that it begins from. Versions up to 0.1.0 wrote no model.json.
    Then the description of the export is taken, or that of the config.

    Raises:
      ConfigError, DataError: as `model_config`; or a new run would train nothing useful (`check_start`).
    """
    if workdir.complete_steps():
        config = recorded_config(workdir) or model_config(run)
        check_text_length(run, config)
        return config
    if origin is not None:
        config = described_model(origin)
        check_text_length(run, config)
        return config
    config = model_config(run)
    check_start(run, config)
    return config


def check_start(run: RunConfig, config: HarvestConfig) -> None:
    """Refuse a new run whose random tower would stay as it is.

    Raises:
      ConfigError: without `model.init_from`, all parameters of a tower are frozen.
    """
    if run.model.init_from:
        return
    for tower in ("video",) if run.objective.name == "classification" else TOWERS:
        paths = [path for path in parameter_shapes(config) if path.startswith(f"{tower}/")]
        if not any(multiplier(path, run.train.lr_multipliers) for path in paths):
            raise ConfigError(
                f"without model.init_from the {tower} tower is random, and train.lr_multipliers freezes it: nothing "
                "useful can be learnt. Set model.init_from to a model folder (`harvest weights import` makes one of a "
                'CLIP), or train every parameter with train.lr_multipliers=((".*",1.0),)'
            )


def repeated_clips(run: RunConfig, clips: tuple[int, ...]) -> str | None:
    """A warning if a batch in which clips are compared holds one twice, or None.

    Args:
      run: the checked config.
      clips: how many the folders of `data.shards` hold, one number each.
    """
    if run.objective.name != "post_pretraining":
        return None
    weights = run.data.weights or clips
    for folder, count, weight in zip(run.data.folders, clips, weights, strict=True):
        share = run.train.batch_size * weight / sum(weights)
        if share > count:
            return (
                f"train.batch_size={run.train.batch_size} takes {share:.0f} clips of {folder}, which holds {count}: a "
                "batch repeats clips, and each copy counts as a negative of the other; lower train.batch_size"
            )
    return None


def validate(run: RunConfig, workdir: Path, fork: Fork | None = None) -> list[str]:
    """All that can be checked without training, as lines of text. No array is made.

    `fork` is what the run begins from if the workdir holds none yet. Devices and mesh are those of this machine. With
    `distributed=True` they are not checked: the run will have others.

    Raises:
      ConfigError, DataError, CheckpointError: what training would refuse.
    """
    folders = shard_folders(run)
    layout = Workdir(workdir)
    newest = max(layout.complete_steps(), default=None)
    stored = None if newest is None else layout.manifest(newest)
    origin = None
    if fork is not None and stored is not None:
        check_same_fork(fork, stored.get("forked_from"), workdir)
    elif fork is not None:
        origin = find_origin(fork)
    config = run_model_config(run, layout, origin.workdir if origin else None)
    if config.text.tokenizer:
        tokenizer_of_run(run, config, layout.root, *([origin.workdir.root] if origin else []))
    if not run.distributed:
        train_program(run, config=config)
    sets = [open_shards(folder, run.data.split) for folder in folders]
    known = identity(run, ",".join(shards.digest for shards in sets))
    if stored is not None:
        check_identity(stored["run_identity"], known, layout)
    if origin is not None:
        check_fork(origin, run, known)
    clips = tuple(map(len, sets))
    lines = [f"the config is sound; {sum(clips)} clips in split {run.data.split}"]
    if run.distributed:
        lines.append("not checked: devices and mesh, because distributed=True")
    warning = repeated_clips(run, clips)
    return [*lines, f"warning: {warning}"] if warning else lines


def shard_folders(run: RunConfig) -> tuple[str, ...]:
    """The folders of `data.shards`.

    Raises:
      ConfigError: there are none.
    """
    if not run.data.shards:
        raise ConfigError("data.shards is empty: set it to a folder that `harvest shards` wrote")
    return run.data.folders
