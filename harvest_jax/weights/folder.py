"""A model folder: `config.json` (what the towers are) and `model.safetensors` (their parameters, by path).

Written by training, read by `harvest_jax.load` and as a starting point; never pickled.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from harvest_jax.errors import DataError
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import Harvest, Params
from harvest_jax.version import __version__

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_model(folder: Path, config: HarvestConfig, params: Params, origin: dict[str, Any], dtype: Any = None) -> None:
    """Write a model folder; each file appears whole or not at all.

    Args:
      folder: made if missing.
      config: what the parameters are for.
      params: nested dict of host arrays.
      origin: JSON values that say where the weights come from (kept in config.json).
      dtype: stored in this type (np.float16 halves the file); None keeps each array's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    flat = {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}
    # safetensors stores the buffer as it lies: C order is part of the format (and ascontiguousarray spoils scalars)
    flat = {path: np.asarray(leaf, dtype or leaf.dtype, order="C") for path, leaf in flat.items()}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
        # one entry: safetensors writes several in an order that changes from save to save
        save_file(flat, Path(scratch) / WEIGHTS, metadata={"format": "harvest_jax"})
        text = json.dumps({"model": config.to_dict(), "origin": origin, "version": __version__}, indent=2)
        (Path(scratch) / CONFIG).write_text(text + "\n", encoding="utf-8")
        (Path(scratch) / WEIGHTS).chmod(
            (Path(scratch) / CONFIG).stat().st_mode
        )  # safetensors writes for its owner only
        os.replace(Path(scratch) / WEIGHTS, folder / WEIGHTS)
        os.replace(Path(scratch) / CONFIG, folder / CONFIG)


def load_config(folder: Path) -> HarvestConfig:
    """The towers' description.

    Raises:
      DataError: no such folder, no config.json in it, or one that is not ours.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise DataError(f"{folder} is not a model folder: it holds no {CONFIG}")
    try:
        return HarvestConfig.from_dict(json.loads(path.read_text(encoding="utf-8"))["model"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} does not describe a model of this package: {error!r}") from error


def load_model(folder: Path) -> tuple[HarvestConfig, Params]:
    """Description and parameters (float32 numpy arrays, nested dict), every name and shape checked.

    Raises:
      DataError: a file is missing or broken, a parameter is missing, superfluous, of another shape, or not finite.
    """
    config = load_config(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise DataError(f"{folder} holds no {WEIGHTS}")
    try:
        flat = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    shapes = jax.eval_shape(Harvest(config).init, jax.random.key(0))
    check_parameters(flat, traverse_util.flatten_dict(shapes, sep="/"), str(path))
    nested = traverse_util.unflatten_dict({name: leaf.astype(np.float32) for name, leaf in flat.items()}, sep="/")
    return config, nested


def check_parameters(found: dict[str, np.ndarray], wanted: dict[str, Any], where: str) -> None:
    """Equal names, equal shapes, finite numbers; or one DataError that lists the differences."""
    faults = [f"missing {name}" for name in wanted if name not in found]
    faults += [f"superfluous {name}" for name in found if name not in wanted]
    for name, leaf in found.items():
        if name in wanted and leaf.shape != wanted[name].shape:
            faults.append(f"{name} has the shape {leaf.shape}, not {wanted[name].shape}")
        elif not np.isfinite(leaf.astype(np.float32)).all():
            faults.append(f"{name} holds numbers that are not finite")
    if faults:
        more = f" and {len(faults) - 6} more" if len(faults) > 6 else ""
        raise DataError(f"{where}: {'; '.join(faults[:6])}{more}")
