"""Configs: files and overrides in, checked frozen dataclasses out. Config files of users may import these names."""

from harvest_jax.config.files import config_file, load_dict
from harvest_jax.config.run import RunConfig, check, load

__all__ = ["RunConfig", "check", "config_file", "load", "load_dict"]
