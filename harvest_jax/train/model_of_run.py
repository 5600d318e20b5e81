"""The model of a run: its towers, and their random parameters."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

from harvest_jax.config.run import SIZES, RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.input.file_tokenizer import TextTokenizer
from harvest_jax.input.question_prompt import split_prompt
from harvest_jax.input.targets import training_classes
from harvest_jax.model.config import HarvestConfig, HeadConfig, harvest_config
from harvest_jax.model.harvest import Harvest, Params
from harvest_jax.train.losses import SIGMOID_LOGIT_BIAS, SIGMOID_LOGIT_SCALE
from harvest_jax.weights.files.open_checkpoint import TOKENIZER
from harvest_jax.weights.folder import load_config, load_tokenizer


def model_config(run: RunConfig) -> HarvestConfig:
    """The towers of a run: the named size, or those of `model.init_from`, of whatever size.

    The folder gives the towers with their activation, resolution and preprocessing; the run gives the number of frames,
    the decoder and the head.

    Raises:
      ConfigError: the folder holds one of the named sizes and `model.size` is another, or text.length does not fit the
        text tower's context.
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
        config = found.for_clips(fields.num_frames, fields.decoder_layers)
    check_text_length(run, config)
    logit_bias = config.logit_bias and run.train.contrastive_loss == "sigmoid"  # the softmax loss has none
    return dataclasses.replace(config, head=head_config(run), logit_bias=logit_bias)


def head_config(run: RunConfig) -> HeadConfig | None:
    """The head that the run's objective trains, or None.

    Raises:
      ConfigError: `objective.prompt` is none, or there are neither shards nor a file of classes.
      DataError: the file of classes, or the shards that they are taken from, cannot be used.
    """
    objective = run.objective
    if objective.name == "post_pretraining":
        return None
    if objective.name == "videoqa":
        split_prompt(objective.prompt)
        if objective.answer_from == "mask":
            return None
    if not (objective.classes or run.data.shards):
        raise ConfigError("objective.classes and data.shards are empty: one of them must name the classes")
    kind = "answers" if objective.name == "videoqa" else objective.head
    return HeadConfig(kind, training_classes(run))


def tokenizer_of_run(run: RunConfig, config: HarvestConfig, *workdirs: Path) -> TextTokenizer:
    """The tokenizer of a run's model: CLIP's, or the file of the first of these folders that has it.

    Args:
      run: the checked config; `model.init_from` is the last folder.
      config: of the model.
      workdirs: training folders.

    Raises:
      DataError: no folder has the file, or it is another model's.
    """
    start = Path(run.model.init_from)
    return load_tokenizer(config, next((folder for folder in workdirs if (folder / TOKENIZER).is_file()), start))


def check_text_length(run: RunConfig, config: HarvestConfig) -> None:
    """Raise ConfigError if captions are longer than the text tower's context, or shorter where it is fixed."""
    if config.text.fixed_length and run.text.length != config.text.context_length:
        raise ConfigError(
            f"text.length={run.text.length}: a text of {config.name} has {config.text.context_length} tokens, padding "
            f"included; set text.length={config.text.context_length}"
        )
    if run.text.length > config.text.context_length:
        raise ConfigError(f"text.length={run.text.length} exceeds the {config.text.context_length} of {config.name}")


def parameters_at_random(run: RunConfig, model: Harvest) -> Params:
    """Random float32 parameters of a run; usable under jit and `jax.eval_shape`.

    With the sigmoid loss come its own `logit_scale` and a `logit_bias` [], whether or not the model has one.
    """
    params = model.init(jax.random.key(run.seed), run.model.temporal_init)
    if run.train.contrastive_loss == "sigmoid":
        params |= {"logit_scale": jnp.float32(SIGMOID_LOGIT_SCALE), "logit_bias": jnp.float32(SIGMOID_LOGIT_BIAS)}
    return params
