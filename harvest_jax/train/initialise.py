"""Where the parameters start: at random, or from a model folder whose image tower learns to see time."""

from pathlib import Path

import jax
import numpy as np

from harvest_jax.config import RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.model.config import HarvestConfig, harvest_config
from harvest_jax.model.harvest import Harvest, Params
from harvest_jax.weights.folder import load_config, load_model


def model_config(run: RunConfig) -> HarvestConfig:
    """The towers of a run: the named size, or those of `model.init_from` with the run's frames and decoder.

    Raises:
      ConfigError: `model.size` is not what the folder holds, or text.length exceeds the text tower's context.
      DataError: the folder cannot be used.
    """
    fields = run.model
    config = harvest_config(fields.size, fields.num_frames, fields.decoder_layers)
    if fields.init_from:
        found = load_config(Path(fields.init_from))
        if found.name != fields.size:
            raise ConfigError(
                f"model.size={fields.size} but model.init_from={fields.init_from} holds {found.name}: set one of them"
            )
    if run.text.length > config.text.context_length:
        raise ConfigError(f"text.length={run.text.length} exceeds the {config.text.context_length} of {fields.size}")
    return config


def initial_parameters(run: RunConfig, model: Harvest) -> Params:
    """Parameters at step 0: float32 host arrays, nested dict, the same on every process.

    From a folder come both towers and `logit_scale`, and the decoder if it has the same shape. The temporal table comes
    along where the number of frames is the same; an image model has none, and `model.temporal_init` starts it.
    """
    key = jax.random.key(run.seed)
    fresh: Params = jax.tree.map(np.asarray, jax.jit(model.init, static_argnums=1)(key, run.model.temporal_init))
    if not run.model.init_from:
        return fresh
    found_config, found = load_model(Path(run.model.init_from))
    video = dict(found["video"])
    if found_config.video.num_frames != model.config.video.num_frames:
        video["temporal_embedding"] = fresh["video"]["temporal_embedding"]
    params = fresh | {"video": video, "text": found["text"], "logit_scale": found["logit_scale"]}
    if found_config.decoder is not None and found_config.decoder == model.config.decoder:
        params |= {"decoder": found["decoder"], "mask_embedding": found["mask_embedding"]}
    return params
