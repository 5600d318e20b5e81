"""Where the parameters start: at random, or from a model folder whose image tower learns to see time."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from harvest_jax.config.run import SIZES, RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.model.config import DecoderConfig, HarvestConfig, harvest_config
from harvest_jax.model.harvest import Harvest, Params
from harvest_jax.train.losses import SIGMOID_LOGIT_BIAS, SIGMOID_LOGIT_SCALE
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


def parameters_at_random(run: RunConfig, model: Harvest) -> Params:
    """Random float32 parameters of a run, usable under jit and `jax.eval_shape`.

    With the sigmoid loss come its own `logit_scale` and a `logit_bias` [].
    """
    params = model.init(jax.random.key(run.seed), run.model.temporal_init)
    if run.train.contrastive_loss == "sigmoid":
        params |= {"logit_scale": jnp.float32(SIGMOID_LOGIT_SCALE), "logit_bias": jnp.float32(SIGMOID_LOGIT_BIAS)}
    return params


def initial_parameters(run: RunConfig, model: Harvest) -> Params:
    """Parameters at step 0: float32 host arrays, nested dict, the same on every process.

    From a folder come both towers, for the softmax loss `logit_scale`, and the decoder if it has the same shape. The
    table of frames comes along as it is where the number of frames is the same, and resized (`resize_temporal`) where
    it is another. A model of one frame, or one whose table is zero (an image model imported with --num_frames), knows
    nothing of time: `model.temporal_init` starts the table then, on top of that one frame's row.
    """
    fresh: Params = jax.tree.map(np.asarray, jax.jit(lambda: parameters_at_random(run, model))())
    if not run.model.init_from:
        return fresh
    found_config, found = load_model(Path(run.model.init_from))
    video, frames = dict(found["video"]), model.config.video.num_frames
    table = video["temporal_embedding"]
    if frames > 1 and (len(table) == 1 or not table.any()):
        video["temporal_embedding"] = fresh["video"]["temporal_embedding"] + resize_temporal(table, frames)
    elif frames != len(table):
        video["temporal_embedding"] = resize_temporal(table, frames)
    params = fresh | {"video": video, "text": found["text"]}
    if run.train.contrastive_loss == "softmax":
        params |= {"logit_scale": found["logit_scale"]}
    if found_config.decoder is not None and found_config.decoder == model.config.decoder:
        params |= {"decoder": found["decoder"], "mask_embedding": found["mask_embedding"]}
    return params
