"""Where the parameters start: at random, or from a model folder whose image tower learns to see time."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from harvest_jax.config import SIZES, RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.model.config import DecoderConfig, HarvestConfig, harvest_config
from harvest_jax.model.harvest import Harvest, Params
from harvest_jax.weights.folder import load_config, load_model
from harvest_jax.weights.resize import resize_temporal


def model_config(run: RunConfig) -> HarvestConfig:
    """The towers of a run: the named size, or those of `model.init_from` whatever their size is.

    From a folder come the towers with their activation, resolution and preprocessing; frames and decoder are the run's.

    Raises:
      ConfigError: the folder holds one of the named sizes and `model.size` is another, or text.length exceeds the text
        tower's context.
      DataError: the folder cannot be used.
    """
    fields = run.model
    config = harvest_config(fields.size, fields.num_frames, fields.decoder_layers)
    if fields.init_from:
        found = load_config(Path(fields.init_from))
        if found.name in SIZES and found.name != fields.size:
            raise ConfigError(
                f"model.size={fields.size} but model.init_from={fields.init_from} holds {found.name}: set one of them"
            )
        video, text = dataclasses.replace(found.video, num_frames=fields.num_frames), found.text
        decoder = DecoderConfig(fields.decoder_layers, text.width, text.heads, video.width, text.vocab_size)
        config = HarvestConfig(found.name, video, text, decoder if fields.decoder_layers else None, found.preprocessing)
    if run.text.length > config.text.context_length:
        raise ConfigError(f"text.length={run.text.length} exceeds the {config.text.context_length} of {config.name}")
    return config


def initial_parameters(run: RunConfig, model: Harvest) -> Params:
    """Parameters at step 0: float32 host arrays, nested dict, the same on every process.

    From a folder come both towers and `logit_scale`, and the decoder if it has the same shape. The table of frames
    comes along as it is where the number of frames is the same, and resized (`resize_temporal`) where it is another. An
    image model has none, nor has a model whose table is zero (an image model imported with --num_frames):
    `model.temporal_init` starts it then.
    """
    key = jax.random.key(run.seed)
    fresh: Params = jax.tree.map(np.asarray, jax.jit(model.init, static_argnums=1)(key, run.model.temporal_init))
    if not run.model.init_from:
        return fresh
    found_config, found = load_model(Path(run.model.init_from))
    video, frames = dict(found["video"]), model.config.video.num_frames
    table = video["temporal_embedding"]
    if frames != len(table) == 1 or (frames > 1 and not table.any()):
        video["temporal_embedding"] = fresh["video"]["temporal_embedding"]
    elif frames != len(table):
        video["temporal_embedding"] = resize_temporal(table, frames)
    params = fresh | {"video": video, "text": found["text"], "logit_scale": found["logit_scale"]}
    if found_config.decoder is not None and found_config.decoder == model.config.decoder:
        params |= {"decoder": found["decoder"], "mask_embedding": found["mask_embedding"]}
    return params
