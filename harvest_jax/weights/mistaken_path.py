"""What a path is that was given where a model or a config is expected, and the command that helps."""

import os
from pathlib import Path

from harvest_jax.checkpoint.workdir import Workdir, workdir_of_step
from harvest_jax.config.files import find_config
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.weights.files.open_checkpoint import CONFIG, read_json


def not_a_model_folder(path: Path) -> DataError:
    """The error for a path that is not a model folder: one line that says what it is and what to do."""
    return DataError(f"{path} {_other_kind(path) or _no_model(path)}")


def check_may_be_checkpoint(path: Path) -> None:
    """Refuse what cannot be a checkpoint of any program.

    Raises:
      DataError: it is a config, a folder of shards, or the like; the message says what and where it belongs.
    """
    if kind := _other_kind(path):
        raise DataError(f"{path} {kind}")


def check_may_be_config(config: str) -> None:
    """Refuse a folder that is given to --config, with its kind and where it belongs.

    Raises:
      ConfigError: there is no config of this name. (What is wrong inside a config file is found later.)
    """
    path = config.partition(":")[0]
    try:
        find_config(path)
    except ConfigError as error:
        kind = _kind_of_folder(Path(path))
        raise ConfigError(f"{error}: {kind}" if kind else str(error)) from None


def _kind_of_folder(path: Path) -> str | None:
    """A clause; None if the folder is of no known kind, or is no folder."""
    if Workdir(path).exists:
        return "it is a training folder; to go on training, give the config it began with and --workdir"
    if (path / "dataset_info.json").is_file():
        return "it is a folder of shards; name it by --config.data.shards"
    if not (path / CONFIG).is_file():
        return None
    try:
        if isinstance(read_json(path / CONFIG).get("model"), dict):
            return "it is a model folder; name it by --config.model.init_from or --model"
    except DataError:
        pass
    return "`harvest weights import` makes a model folder of a checkpoint of another program"


def _other_kind(path: Path) -> str | None:
    """The rest of a sentence that begins with the path; None if it may be a checkpoint of some program."""
    if not os.path.exists(path):  # unlike Path.exists, it takes any text for a name
        return "does not exist"
    if path.suffix == ".py" and path.is_file():
        return "is a config in Python, not a model: give it to --config of harvest train or harvest eval"
    if path.suffix in (".csv", ".jsonl", ".parquet") and path.is_file():
        return "is a table, not a model: harvest shards takes it as --manifest"
    if (path / "dataset_info.json").is_file():
        return f"is a folder of shards, not of a model: training takes it as --config.data.shards={path}"
    if (path / "signature.json").is_file() and (path / "encode_video.stablehlo").is_file():
        return "is a folder of StableHLO programs, which cannot be read back: give the model folder they were made from"
    return None


def _no_model(path: Path) -> str:
    """The same for a path that may hold another program's checkpoint, or one of a training."""
    make = "makes a model folder of it"
    step, workdir = workdir_of_step(path), Workdir(path)
    if step is not None and step[0].exists:
        source = f"{step[0].root}@{step[1]}"
        return f"is a checkpoint of a training, not a model folder: harvest weights import {source} --out D {make}"
    if workdir.exists:
        if workdir.export.is_dir():
            return f"is a training folder, not a model folder: the model that it trained is {workdir.export}"
        return f"is a training folder, not a model folder: harvest weights import {path} --out D {make}"
    if path.name == workdir.checkpoints.name and Workdir(path.parent).exists:
        return (
            f"holds the checkpoints of a training: harvest weights import {path.parent} --out D makes a model folder "
            "of the newest one"
        )
    if path.is_file():
        return f"is a file, not a model folder: harvest weights import {path} --out D {make}"
    if (path / "open_clip_config.json").is_file():
        return f"is a folder of OpenCLIP, not of this package: harvest weights import {path} --out D {make}"
    if not (path / CONFIG).is_file():
        return f"is not a model folder: it holds no {CONFIG}"
    config = read_json(path / CONFIG)
    if "train" in config and "data" in config:
        return f"is not a model folder: its {CONFIG} is that of a training run"
    if "model_type" in config or "vision_config" in config:
        return f"is a folder of Hugging Face, not of this package: harvest weights import {path} --out D {make}"
    return f"is not a model folder: its {CONFIG} does not describe a model of this package"
