"""This package's own names: the paths of the parameter tree, in a model folder or in one exported file."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import parameter_shapes
from harvest_jax.weights.families.architecture import preprocessing_of
from harvest_jax.weights.families.conversions import UNCHANGED
from harvest_jax.weights.families.family import Family, KeyMapping, Overrides
from harvest_jax.weights.files.tensors import Tensors

HEADER = "harvest_jax_config"  # key of a safetensors header that holds the config of an exported file, as JSON


def header_config(tensors: Tensors, overrides: Overrides) -> HarvestConfig | None:
    """The config in the header of a file that this package exported, whatever names its tensors have; None without one.

    Raises:
      DataError: the header holds something else.
      ConfigError: an override is impossible.
    """
    text = tensors.details.get("metadata", {}).get(HEADER)
    return None if text is None else overridden(config_of(lambda: json.loads(text), tensors.where), overrides)


def config_of(values: Callable[[], Any], where: str) -> HarvestConfig:
    """The config that a checkpoint of this package holds.

    Raises:
      DataError: the values are not there, or not those of a config.
    """
    try:
        return HarvestConfig.from_dict(values())
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{where} has this package's tensors, but no sound config in its header or in a config.json beside it: "
            f"{error!r:.200}"
        ) from error


def overridden(config: HarvestConfig, overrides: Overrides) -> HarvestConfig:
    """The config with what the user says instead.

    Raises:
      ConfigError: an override is impossible.
    """
    video, text = config.video, config.text
    return dataclasses.replace(
        config,
        video=dataclasses.replace(video, activation=overrides.activation or video.activation),
        text=dataclasses.replace(text, activation=overrides.activation or text.activation),
        preprocessing=preprocessing_of(overrides, config.preprocessing, config.name),
    )


def _architecture(tensors: Tensors, overrides: Overrides) -> HarvestConfig:
    found = header_config(tensors, overrides)
    return found or overridden(config_of(lambda: tensors.details["config"]["model"], tensors.where), overrides)


NATIVE = Family(
    name="harvest_jax",
    recognise=lambda tensors: {"video/spatial_embedding", "text/positional_embedding"} <= set(tensors.entries),
    architecture=_architecture,
    mappings=lambda config: tuple(KeyMapping(name, (name,), UNCHANGED) for name in parameter_shapes(config)),
)
