"""A model folder: `config.json` (the model's config, a digest) and `model.safetensors` (its parameters, by path).

A model whose tokenizer is not CLIP's has a `tokenizer.json` as well.

Training and `harvest weights` write it; `harvest_jax.load` and a new training read it. Nothing in it is pickled.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from harvest_jax.errors import DataError
from harvest_jax.files import scratch_folder, sync
from harvest_jax.input.file_tokenizer import FileTokenizer, TextTokenizer
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import Params, parameter_shapes
from harvest_jax.terminal import printable
from harvest_jax.version import __version__
from harvest_jax.weights.families.conversions import Shape
from harvest_jax.weights.families.family import Overrides
from harvest_jax.weights.families.native import NATIVE
from harvest_jax.weights.files.open_checkpoint import CONFIG, TOKENIZER, open_checkpoint, read_json
from harvest_jax.weights.files.safetensors_reader import open_safetensors
from harvest_jax.weights.files.safetensors_writer import all_finite, write_safetensors
from harvest_jax.weights.files.tensors import Tensors, TensorSpec
from harvest_jax.weights.files.weights_digest import DIGEST, check_digest
from harvest_jax.weights.mistaken_path import check_may_be_checkpoint, not_a_model_folder
from harvest_jax.weights.new_output import described_errors, new_folder, remove_leftovers
from harvest_jax.weights.translate import to_native

WEIGHTS = "model.safetensors"


def save_model(
    folder: Path,
    config: HarvestConfig,
    params: Params,
    origin: dict[str, Any],
    dtype: Any = None,
    tokenizer: FileTokenizer | None = None,
) -> None:
    """Write a model folder. A new one appears whole or not at all; in an existing folder both files are replaced.

    Args:
      folder: made if missing.
      config: what the parameters are for.
      params: nested dict of host arrays.
      origin: JSON values that say where the weights come from (kept in config.json).
      dtype: stored in this type (np.float16 halves the file); None keeps each array's own.
      tokenizer: as for `save_tensors`.

    Raises:
      DataError: a parameter is not finite in that type.
      HarvestError: the folder cannot be written.
    """
    flat = {path: np.asarray(leaf) for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}
    entries = {path: TensorSpec(leaf.shape, np.dtype(dtype or leaf.dtype)) for path, leaf in flat.items()}
    save_tensors(folder, config, entries, flat.__getitem__, origin, tokenizer)


def save_tensors(
    folder: Path,
    config: HarvestConfig,
    entries: dict[str, TensorSpec],
    read: Callable[[str], np.ndarray],
    origin: dict[str, Any],
    tokenizer: FileTokenizer | None = None,
) -> None:
    """As `save_model`, for parameters that are made one at a time.

    Args:
      folder: made if missing.
      config: what the parameters are for.
      entries: shape and stored dtype of each parameter by its path in the tree, such as "video/proj/kernel".
      read: gives one of them.
      origin: JSON values that say where the weights come from.
      tokenizer: of a model that has its own; its file is copied.

    Raises:
      DataError: a parameter has another shape or is not finite in that type.
      HarvestError: the folder cannot be written.
    """
    if config.text.tokenizer and tokenizer is None:
        raise ValueError("the folder of a model with its own tokenizer needs the tokenizer's file")

    def write(into: Path) -> None:
        digest = write_safetensors(into / WEIGHTS, entries, read, {"format": "harvest_jax"})
        content = {"model": config.to_dict(), "origin": origin, "version": __version__, DIGEST: digest}
        (into / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if tokenizer is not None:
            shutil.copyfile(tokenizer.path, into / TOKENIZER)

    remove_leftovers(folder)
    if not folder.is_dir() or not any(folder.iterdir()):
        with new_folder(folder) as aside:
            write(aside)
        return
    with described_errors(folder), scratch_folder(folder) as scratch:
        write(scratch)
        names = (TOKENIZER, WEIGHTS, CONFIG)  # the config last: with it the folder is a model folder
        for name in (name for name in names if (scratch / name).is_file()):
            sync(scratch / name)
            os.replace(scratch / name, folder / name)
        sync(folder)


def load_config(folder: Path) -> HarvestConfig:
    """The config of a model folder.

    Raises:
      DataError: it is not a model folder (the message says what it is), or its config.json is damaged.
    """
    path = folder / CONFIG
    model = read_json(path).get("model") if path.is_file() else None
    if not isinstance(model, dict) or "decoder" not in model:
        raise not_a_model_folder(folder)
    try:
        return HarvestConfig.from_dict(model)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} does not describe a model of this package: {error!r:.200}") from error


def own_tokenizer(config: HarvestConfig, folder: Path) -> FileTokenizer | None:
    """The tokenizer in a model's folder; None if the model is read with CLIP's.

    Raises:
      DataError: the file is missing, damaged, or another model's.
    """
    text = config.text
    return FileTokenizer(folder / TOKENIZER, text.tokenizer, text.vocab_size) if text.tokenizer else None


def load_tokenizer(config: HarvestConfig, folder: Path) -> TextTokenizer:
    """The tokenizer of a model, the file in its folder or CLIP's; errors as `own_tokenizer`."""
    return own_tokenizer(config, folder) or Tokenizer(config.text.vocab_size)


def open_parameters(folder: Path) -> tuple[HarvestConfig, Tensors]:
    """A model folder's config and parameters; names, shapes and digest are checked, numbers are read when asked for.

    Raises:
      DataError: a file is missing, broken or altered, a parameter is missing, superfluous, or of another shape.
    """
    config = load_config(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise DataError(f"{folder} holds no {WEIGHTS}")
    tensors = open_safetensors(path)
    check_parameters(tensors.entries, parameter_shapes(config), str(path))
    check_digest(path, read_json(folder / CONFIG))
    return config, tensors


def load_model(folder: Path) -> tuple[HarvestConfig, Params]:
    """A model folder's config and parameters, checked: float32 numpy arrays in a nested dict.

    Raises:
      DataError: as `open_parameters`; or a parameter is not finite.
    """
    config, tensors = open_parameters(folder)
    flat: dict[str, np.ndarray] = {}
    for name in tensors.entries:
        flat[name] = tensors.read(name).astype(np.float32)
        if not all_finite(flat[name]):
            raise DataError(f"{tensors.where}: {name} holds numbers that are not finite")
    return config, traverse_util.unflatten_dict(flat, sep="/")


def open_model(folder: Path) -> tuple[HarvestConfig, Tensors]:
    """A model folder's config and its parameters, read one at a time.

    Args:
      folder: a model folder, or a file that `harvest weights export` wrote with this package's names.

    Raises:
      DataError: it is not one, or its parameters are not those of its config.
    """
    if folder.is_dir():
        load_config(folder)  # says what it is if it is something else
    check_may_be_checkpoint(folder)
    tensors = open_checkpoint(folder)
    if not NATIVE.recognise(tensors):
        raise not_a_model_folder(folder)
    config = NATIVE.architecture(tensors, Overrides())
    return config, to_native(tensors, NATIVE, config)


def check_parameters(found: dict[str, TensorSpec], wanted: dict[str, Shape], where: str) -> None:
    """Check that names and shapes are those of the model.

    Args:
      found: the parameters of a file.
      wanted: those of the model, by path.
      where: for messages.

    Raises:
      DataError: they differ; the message lists the first differences.
    """
    faults = [f"{name} is missing" for name in wanted if name not in found]
    faults += [f"{printable(name, 120)} is unknown" for name in found if name not in wanted]
    for name, entry in found.items():
        if name in wanted and entry.shape != wanted[name]:
            faults.append(f"{name} has the shape {entry.shape}, expected {wanted[name]}")
    if faults:
        more = f" and {len(faults) - 6} more" if len(faults) > 6 else ""
        raise DataError(f"{where}: {'; '.join(faults[:6])}{more}")
