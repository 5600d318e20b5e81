"""Model folders of random parameters."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from harvest_jax.model.config import HarvestConfig, harvest_config
from harvest_jax.model.harvest import parameter_shapes
from harvest_jax.weights.files.tensors import TensorSpec
from harvest_jax.weights.folder import save_tensors

DEMO_VIDEO = harvest_config("demo", num_frames=4, decoder_layers=1)


def save_random_model(
    folder: Path, config: HarvestConfig = DEMO_VIDEO, seed: int = 0, dtype: DTypeLike = np.float32
) -> Path:
    """Write a model folder; by default a video model of the demo's towers with a decoder."""
    rng = np.random.default_rng(seed)
    arrays = {name: np.asarray(rng.normal(size=shape), dtype) for name, shape in parameter_shapes(config).items()}
    entries = {name: TensorSpec(array.shape, array.dtype) for name, array in arrays.items()}
    save_tensors(folder, config, entries, arrays.__getitem__, {})
    return folder


def without_digest(folder: Path) -> Path:
    """Take the digest out of config.json: for weights that a test changes, and as earlier versions wrote a folder."""
    config = json.loads((folder / "config.json").read_text())
    del config["weights_sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder
