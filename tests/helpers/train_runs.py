"""Runs and batches of a tiny model, for the tests of the training step and loop."""

import numpy as np

from harvest_jax.config import files as config_files
from harvest_jax.config import run as run_config
from harvest_jax.input.patches import keep_positions

BATCH = 16


def make_run(**changes):
    """A checked config; section__field=value changes a field."""
    config = config_files.load_dict(str(config_files.config_file("base.py")))
    config.model.dtype = "float32"
    config.text.length = 8
    config.train.batch_size = BATCH
    config.train.learning_rate = 1e-2
    config.train.warmup_steps = 0
    for field, value in changes.items():
        section, name = field.split("__")
        config[section][name] = value
    return run_config.check(config)


def make_batch(seed=0, keep_ratio=0.5):
    """Host arrays for TINY: captions of seven tokens in eight places, up to two words masked."""
    rng = np.random.default_rng(seed)
    positions = np.stack([keep_positions(rng, 3, 4, keep_ratio) for _ in range(BATCH)])
    ids = rng.integers(1, 37, (BATCH, 8)).astype(np.int32)
    ids[:, 0], ids[:, 6], ids[:, 7] = 38, 39, 0
    return {
        "patches": rng.integers(0, 256, (BATCH, positions.shape[1], 48), dtype=np.uint8),
        "positions": positions,
        "ids": ids,
        "slots": np.stack([rng.permutation(np.arange(1, 6))[:2] for _ in range(BATCH)]).astype(np.int32),
        "slot_weights": (rng.random((BATCH, 2)) < 0.8).astype(np.float32),
    }
