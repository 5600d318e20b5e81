"""Config files: a Python file with `get_config()` read, and fields overridden from the command line."""

import ast
import difflib
import importlib.util
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from harvest_jax.errors import ConfigError


def load_dict(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """A config file ("configs/x.py" or "configs/x.py:argument") with "a.b=value" overrides, unchecked."""
    config = _execute(path)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"override {override!r} must read field=value")
        _override(config, key, value)
    return config


def config_file(name: str) -> Path:
    """Path of `configs/NAME`: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs" / name
    return installed if installed.is_file() else package.parent / "configs" / name


def _offer_configs_package() -> None:
    """Make `from configs import base` mean ours in every config file, from whatever folder it is run."""
    if "configs" not in sys.modules:
        init = config_file("__init__.py")
        spec = importlib.util.spec_from_file_location("configs", init, submodule_search_locations=[str(init.parent)])
        if spec is not None and spec.loader is not None:
            sys.modules["configs"] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules["configs"])


def load_module(file: str) -> types.ModuleType:
    """Run a config file.

    Raises:
      ConfigError: it is missing or fails.
    """
    _offer_configs_package()
    if not Path(file).is_file():
        raise ConfigError(f"no config file {file}")
    spec = importlib.util.spec_from_file_location(f"harvest_config_{Path(file).stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file} is not a Python config file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{file} cannot be read: {type(error).__name__}: {error}") from error
    return module


def _execute(path: str) -> ConfigDict:
    file, _, argument = path.partition(":")
    module = load_module(file)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{file} has no get_config()")
    try:
        config = module.get_config(argument) if argument else module.get_config()
    except TypeError as error:
        raise ConfigError(f"{file}: get_config({argument!r}): {error}") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"{file}: get_config() must return an ml_collections.ConfigDict")
    return config


def _override(config: ConfigDict, key: str, text: str) -> None:
    *groups, name = key.split(".")
    node = config
    for group in groups:
        if not isinstance(node.get(group), ConfigDict):
            raise ConfigError(_unknown(key, node, group))
        node = node[group]
    if name not in node or isinstance(node[name], ConfigDict):
        raise ConfigError(_unknown(key, node, name))
    old = node[name]
    try:
        if isinstance(old, bool):
            node[name] = {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        elif isinstance(old, int | float):
            node[name] = type(old)(text)
        elif isinstance(old, str):
            node[name] = text
        else:
            node[name] = ast.literal_eval(text)
    except (KeyError, ValueError, SyntaxError) as error:
        raise ConfigError(f"{key}={text}: not a {type(old).__name__}") from error


def _unknown(key: str, node: ConfigDict, name: str) -> str:
    """What is wrong with `name`, one of the dotted parts of `key`, which `node` does not hold."""
    near = difflib.get_close_matches(name, list(node), n=1)
    parts = [near[0] if part == name else part for part in key.split(".")] if near else []
    return f"unknown field {key}" + (f" (did you mean {'.'.join(parts)}?)" if near else "")
