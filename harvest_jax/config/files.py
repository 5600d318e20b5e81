"""Config files: found by name, run, and changed field by field by "a.b=value" overrides."""

import difflib
import importlib.util
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ml_collections import ConfigDict, FrozenConfigDict

from harvest_jax.config.fields import literal
from harvest_jax.errors import ConfigError, HarvestError
from harvest_jax.files import address_fault
from harvest_jax.terminal import printable

Kind = Literal["training", "evaluation"]
# A field that configs of one kind alone have, and the command that takes them.
_OF_KIND: dict[Kind, tuple[str, str]] = {
    "training": ("train", "harvest train --config {path} --workdir DIR"),
    "evaluation": ("task", "harvest eval --config {path} --model DIR"),
}


def load_dict(path: str, overrides: Sequence[str] = (), kind: Kind | None = None) -> ConfigDict:
    """A config file with overrides, its values unchecked.

    Args:
      path: as for `find_config`, with ":argument" behind it where `get_config` takes an argument.
      overrides: "a.b=value", each of an existing field.
      kind: what the caller needs; None takes any config.

    Raises:
      ConfigError: the file is missing or broken, of another kind, or an override names no field.
    """
    config = _execute(path)
    if kind is not None:
        _check_kind(path, config, kind)
    apply_overrides(config, overrides)
    check_paths(config)
    return config


def check_paths(config: ConfigDict, prefix: str = "") -> None:
    """Refuse addresses, such as gs://bucket/shards, in any field.

    Raises:
      ConfigError: naming the field.
    """
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            check_paths(value, f"{prefix}{name}.")
        elif isinstance(value, str | list | tuple):
            fault = address_fault(str(value))
            if fault:
                raise ConfigError(f"{prefix}{name}: {printable(fault)}")


def set_fields(config: ConfigDict, values: Mapping[str, Any]) -> None:
    """Set the fields of nested values, as JSON gives them; unknown ones are added, for `fields.build` to report."""
    for name, value in values.items():
        if isinstance(value, Mapping) and isinstance(config.get(name), ConfigDict):
            set_fields(config[name], value)
        else:
            with config.ignore_type(), config.unlocked():
                config[name] = value


def apply_overrides(config: ConfigDict, overrides: Sequence[str]) -> None:
    """Set fields by "a.b=value" words.

    Raises:
      ConfigError: a word names no field.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"override {printable(override)!r} must read FIELD=VALUE")
        _override(config, key.replace("-", "_"), value)


def config_file(name: str) -> Path:
    """Path of the packaged config `configs/NAME`: beside the package in a checkout, inside it when installed."""
    return _packaged() / name


def find_config(path: str) -> Path:
    """The file that a config's name means: a file by its path, or one that comes with this package.

    "demo", "demo.py" and "configs/demo.py" are the packaged demo config wherever the command runs, unless the current
    folder has a file of the same path.

    Raises:
      ConfigError: there is none.
    """
    if Path(path).is_file():
        return Path(path)
    name = path.removeprefix("./").removeprefix("configs/").removesuffix(".py")
    packaged = {str(file.relative_to(_packaged()).with_suffix("")): file for file in _packaged().rglob("[!_]*.py")}
    if name in packaged:
        return packaged[name]
    shown = printable(path)
    if Path(path).is_dir():
        raise ConfigError(f"--config {shown} is a folder, not a config file")
    near = difflib.get_close_matches(name, packaged, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the packaged configs are {', '.join(sorted(packaged))}"
    raise ConfigError(f"no config file {shown} ({hint})")


def load_module(path: str) -> types.ModuleType:
    """Run a config file, given as for `find_config`.

    Raises:
      ConfigError: it is missing or fails.
    """
    _offer_configs_package()
    file = find_config(path)
    spec = importlib.util.spec_from_file_location(f"harvest_config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{printable(path)} is not a Python config file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{printable(path)} cannot be read: {type(error).__name__}: {error}") from error
    return module


def _packaged() -> Path:
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def _offer_configs_package() -> None:
    """Make `from configs import base` mean the packaged configs in every config file, in any folder."""
    if "configs" not in sys.modules:
        init = config_file("__init__.py")
        spec = importlib.util.spec_from_file_location("configs", init, submodule_search_locations=[str(init.parent)])
        if spec is not None and spec.loader is not None:
            sys.modules["configs"] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules["configs"])


def _execute(path: str) -> ConfigDict:
    name, _, argument = path.partition(":")
    module = load_module(name)
    shown = printable(name)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{shown} has no get_config()")
    try:
        config = module.get_config(argument) if argument else module.get_config()
    except HarvestError:
        raise
    except Exception as error:
        call = f"get_config({argument!r})" if argument else "get_config()"
        raise ConfigError(f"{shown}: {call} fails: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict | FrozenConfigDict):
        raise ConfigError(f"{shown}: get_config() must return an ml_collections.ConfigDict")
    return ConfigDict(config) if isinstance(config, FrozenConfigDict) else config


def _check_kind(path: str, config: ConfigDict, kind: Kind) -> None:
    for other, (field, command) in _OF_KIND.items():
        if other != kind and field in config and _OF_KIND[kind][0] not in config:
            article = "an" if other == "evaluation" else "a"
            raise ConfigError(f"{printable(path)} is {article} {other} config: {command.format(path=path)}")


def _override(config: ConfigDict, key: str, text: str) -> None:
    """Set one field; a text that its type cannot be made of is kept unchanged; `fields.build` reports it."""
    *groups, name = key.split(".")
    node = config
    for group in groups:
        if not isinstance(node.get(group), ConfigDict):
            raise ConfigError(_unknown(key, node, group))
        node = node[group]
    if name not in node:
        raise ConfigError(_unknown(key, node, name))
    if isinstance(node[name], ConfigDict):
        example = f", such as {key}.{next(iter(node[name]))}" if len(node[name]) else ""
        raise ConfigError(f"{key} is a group of fields: set one of them{example}")
    with node.ignore_type():
        node[name] = _parsed(text, node[name])


def _parsed(text: str, old: Any) -> Any:
    """The value that a text means for a field that has the value `old`, or the text itself."""
    try:
        if isinstance(old, bool):
            return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
        if isinstance(old, int | float):
            return type(old)(text)
        return text if isinstance(old, str) else literal(text)
    except ValueError:
        return text


def _unknown(key: str, node: ConfigDict, name: str) -> str:
    """What is wrong with `name`, one of the dotted parts of `key`, which `node` does not hold."""
    near = difflib.get_close_matches(name, list(node), n=1)
    parts = [near[0] if part == name else part for part in key.split(".")] if near else []
    return f"unknown field {printable(key)}" + (f" (did you mean {'.'.join(parts)}?)" if near else "")
