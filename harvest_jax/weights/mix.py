"""WiSE-FT (arXiv 2109.01903): linear interpolation of the parameters of two models.

A mix of a model and its fine-tuned version often generalises better than either. Published zero-shot results of video
CLIPs are often those of mixes. The config.json of a mix says that it is one.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.model.config import HarvestConfig
from harvest_jax.weights.files.tensors import TensorSpec
from harvest_jax.weights.folder import open_model, own_tokenizer, save_tensors
from harvest_jax.weights.new_output import check_free
from harvest_jax.weights.translate import common_dtype


def mix_models(first: Path, second: Path, alpha: float, out: Path) -> dict[str, Any]:
    """Write (1 - alpha) * first + alpha * second for the parameters that both have, and the second's for the others.

    The sum is computed in float32 and stored in the wider of both dtypes. The table of frames is mixed if both have the
    same number of frames, decoder and head if both have the same ones.

    Args:
      first: a model folder, usually the one that training started from.
      second: a model folder, usually the one that training wrote.
      alpha: 0 is the first, 1 the second, exactly.
      out: the model folder to write.

    Returns:
      JSON values: `mixed` (how many numbers were mixed), `kept` (parameters that are the second's).

    Raises:
      ConfigError: alpha is not within 0..1.
      DataError: a folder cannot be used, or the towers differ.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha={alpha}: must be from 0 (the first model) to 1 (the second)")
    check_free(out)
    (first_config, a), (second_config, b) = open_model(first), open_model(second)
    differences = differing_fields(first_config, second_config)
    if differences:
        raise DataError(f"{first} and {second} cannot be mixed: they differ in {', '.join(differences)}")
    shared = {name for name, entry in b.entries.items() if name in a.entries and a.entries[name].shape == entry.shape}
    if first_config.decoder != second_config.decoder:
        shared -= {name for name in shared if name.startswith(("decoder/", "mask_embedding"))}
    if first_config.head != second_config.head:
        shared -= {name for name in shared if name.startswith("head/")}
    entries = dict(b.entries)
    for name in shared:
        entries[name] = TensorSpec(b.entries[name].shape, common_dtype((a.entries[name].dtype, b.entries[name].dtype)))

    def read(name: str) -> np.ndarray:
        if name not in shared:
            return b.read(name)
        left, right = a.read(name).astype(np.float32), b.read(name).astype(np.float32)
        return np.asarray(np.float32(1 - alpha) * left + np.float32(alpha) * right)

    kept = sorted(set(b.entries) - shared)
    origin = {"mixed": {"first": first.name, "second": second.name, "alpha": alpha, "from_second_alone": kept}}
    save_tensors(out, second_config, entries, read, origin, own_tokenizer(second_config, second))
    numbers = sum(int(np.prod(b.entries[name].shape, dtype=np.int64)) for name in shared)
    return {"mixed": numbers, "kept": kept}


def differing_fields(first: HarvestConfig, second: HarvestConfig) -> list[str]:
    """Fields that must be equal and are not, as "video.width (64, 128)"; frames and decoders may differ."""
    found = []
    for part in ("video", "text", "preprocessing"):
        ours, theirs = (dataclasses.asdict(getattr(config, part)) for config in (first, second))
        found += [
            f"{part}.{name} ({ours[name]}, {theirs[name]})"
            for name in ours
            if ours[name] != theirs[name] and name != "num_frames"
        ]
    return found
