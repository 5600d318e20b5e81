"""What a step costs with all patches and with the kept ones, measured on this machine."""

import dataclasses
import statistics
import time

import jax
import numpy as np

from harvest_jax.config import RunConfig
from harvest_jax.input.patches import num_kept
from harvest_jax.input.text_masking import num_slots
from harvest_jax.model.harvest import Harvest
from harvest_jax.train.freeze import partition
from harvest_jax.train.initialise import model_config
from harvest_jax.train.step import Step

REPEATS = 3
CLIPS = 16  # a step, a quarter of the training's: with all patches kept a full one takes seconds on 2 cores


def random_batch(run: RunConfig, keep_ratio: float) -> dict[str, np.ndarray]:
    """A batch of CLIPS clips of the run's shapes, with random contents."""
    video, text = model_config(run).video, model_config(run).text
    kept = num_kept(video.num_frames, video.cells_per_frame, keep_ratio, run.model.drop_scope)
    rng = np.random.default_rng(0)
    size, slots = CLIPS, num_slots(run.text.length, run.text.mask_ratio)
    return {
        "patches": rng.integers(0, 256, (size, kept, video.patch_dim), dtype=np.uint8),
        "positions": np.tile(np.arange(kept, dtype=np.int32), (size, 1)),
        "ids": rng.integers(1, text.vocab_size, (size, run.text.length), dtype=np.int32),
        "slots": np.tile(np.arange(1, slots + 1, dtype=np.int32), (size, 1)),
        "slot_weights": np.ones((size, slots), np.float32),
    }


def step_ms(run: RunConfig, keep_ratio: float) -> float:
    """Median milliseconds of a whole training step of CLIPS clips (towers, decoder, losses, optimizer), one device."""
    run = dataclasses.replace(run, model=dataclasses.replace(run.model, keep_ratio=keep_ratio))
    model = Harvest(model_config(run))
    trained, frozen = partition(jax.jit(model.init)(jax.random.key(0)), run.train.lr_multipliers)
    step = Step(model, run)
    batch = random_batch(run, keep_ratio)
    state, compiled = step.init_state(trained), jax.jit(step)
    jax.block_until_ready(compiled(state, frozen, batch))
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(compiled(state, frozen, batch))
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)
