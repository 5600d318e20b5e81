"""Evaluations use all devices of their process."""

import dataclasses

import jax

from harvest_jax.api import Model
from harvest_jax.evaluate.clips.embeddings import VideoTextModel
from harvest_jax.evaluate.settings import TaskSettings
from harvest_jax.model.batches import BATCH_SIZES


def on_all_devices(model: VideoTextModel, settings: TaskSettings) -> tuple[VideoTextModel, TaskSettings]:
    """The model on all devices of this process, and settings with full batches for each of them.

    Smaller batches than full ones stay on one device: `batch_size` was made small to save memory.
    """
    devices = jax.local_devices()
    if len(devices) == 1 or not isinstance(model, Model) or settings.batch_size < BATCH_SIZES[-1]:
        return model, settings
    return model.over(devices), dataclasses.replace(settings, batch_size=settings.batch_size * len(devices))
