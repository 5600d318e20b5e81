"""Checked dataclasses out of nested mappings: types, ranges and choices stand once, in the dataclass's annotations.

@dataclasses.dataclass(frozen=True)
class Fields:
    steps: Annotated[int, Range(1, 10**9)]
    crop: Literal["random", "center"]
    optimizer: OptimizerFields  # a dataclass: a group of fields
"""

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from harvest_jax.errors import ConfigError

Fields = TypeVar("Fields")

_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; never NaN."""

    low: int | float
    high: int | float = math.inf

    def __str__(self) -> str:
        return f"{self.low} and more" if self.high == math.inf else f"{self.low}..{self.high}"


class _Fault(Exception):
    """Why a value cannot be used: the text that follows the field's name."""


def build(cls: type[Fields], values: Mapping[str, Any] | ConfigDict) -> Fields:
    """One dataclass from one mapping, checked against its annotations.

    Known annotations: bool, int, float (whole numbers are taken too), str, Literal of texts,
    `Annotated[number, Range]`, `tuple[X, ...]`, `tuple[X, Y]`, and dataclasses for groups.

    Raises:
      ConfigError: one message that names every unknown, missing or unusable field.
    """
    faults: list[str] = []
    built = _build(cls, values, "", faults)
    if faults:
        raise ConfigError("; ".join(faults))
    return typing.cast(Fields, built)


def unknown_field(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The message for a field that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"unknown field {prefix}{name}" + (f" (did you mean {prefix}{near[0]}?)" if near else "")


def _build(cls: type, values: Any, prefix: str, faults: list[str]) -> Any:
    if not isinstance(values, Mapping | ConfigDict):
        faults.append(f"{prefix.removesuffix('.')} is a group of fields, not {values!r}")
        return None
    hints = typing.get_type_hints(cls, include_extras=True)
    names = [field.name for field in dataclasses.fields(cls)]
    faults += [unknown_field(str(key), names, prefix) for key in values if key not in names]
    kwargs: dict[str, Any] = {}
    for name in names:
        if dataclasses.is_dataclass(hints[name]):
            kwargs[name] = _build(hints[name], values.get(name, {}), f"{prefix}{name}.", faults)
        elif name not in values:
            faults.append(f"missing field {prefix}{name}")
        else:
            try:
                kwargs[name] = _checked(hints[name], values[name])
            except _Fault as fault:
                faults.append(f"{prefix}{name}{fault}")
    return None if faults else cls(**kwargs)


def _checked(hint: Any, value: Any) -> Any:
    """The value as the annotation wants it.

    Raises:
      _Fault: it cannot be used.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        value = _checked(arguments[0], value)
        for limit in arguments[1:]:
            if not limit.low <= value <= limit.high:  # also refuses NaN
                raise _Fault(f"={value} is outside {limit}")
        return value
    if origin is typing.Literal:
        if value not in arguments:
            near = difflib.get_close_matches(str(value), arguments, n=1)
            hint_text = f" (did you mean {near[0]}?)" if near else ""
            raise _Fault(f"={value!r} is none of {', '.join(map(str, arguments))}{hint_text}")
        return value
    if origin is tuple:
        return _checked_tuple(arguments, value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise _Fault(f": expected {_WORDS[hint]}, got {value!r}")
    return value


def _checked_tuple(arguments: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, list | tuple):
        raise _Fault(f": expected a list, got {value!r}")
    if arguments[-1] is ...:
        return tuple(_checked(arguments[0], part) for part in value)
    if len(value) != len(arguments):
        raise _Fault(f": expected {len(arguments)} values, got {value!r}")
    return tuple(_checked(kind, part) for kind, part in zip(arguments, value, strict=True))
