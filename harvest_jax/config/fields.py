"""Checked dataclasses out of nested mappings: types, ranges and choices stand once, in the dataclass's annotations.

@dataclasses.dataclass(frozen=True)
class Fields:
    steps: Annotated[int, Range(1, 10**9)]
    crop: Literal["random", "center"]
    optimizer: OptimizerFields  # a dataclass: a group of fields
"""

import ast
import contextlib
import dataclasses
import difflib
import math
import types
import typing
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from harvest_jax.errors import ConfigError
from harvest_jax.terminal import printable

Fields = TypeVar("Fields")

_SHOWN = 80  # characters of a value that a message shows
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
    `Annotated[number, Range]`, `tuple[X, ...]`, `tuple[X, Y]`, `str | tuple[str, ...]` (a text that is a Python list of
    texts means that list, so that the command line can give one), `X | tuple[X, ...]` for numbers (the same), and
    dataclasses for groups. A field with a default may be missing.

    Raises:
      ConfigError: one message that names every unknown, missing or unusable field.
    """
    faults: list[str] = []
    built = _build(cls, values, "", faults)
    if faults:
        raise ConfigError("; ".join(faults))
    return typing.cast(Fields, built)


def literal(text: str) -> Any:
    """The list, tuple, number or text that a Python literal means.

    Raises:
      ValueError: it is not a literal.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in regular expressions: 'text/\\d'
            return ast.literal_eval(text)
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"no Python literal: {error}") from error


def _unknown_field(name: str, known: Iterable[str], prefix: str) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f" (did you mean {prefix}{near[0]}?)" if near else ""
    return f"unknown field {prefix}{printable(name, _SHOWN)}{hint}"


def _build(cls: type, values: Any, prefix: str, faults: list[str]) -> Any:
    if not isinstance(values, Mapping | ConfigDict):
        faults.append(f"{prefix.removesuffix('.') or 'the config'} is a group of fields, not {_shown(values)}")
        return None
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = dataclasses.fields(cls)
    names = [field.name for field in fields]
    optional = {field.name for field in fields if field.default is not dataclasses.MISSING}
    faults += [_unknown_field(str(key), names, prefix) for key in values if key not in names]
    kwargs: dict[str, Any] = {}
    for name in names:
        if dataclasses.is_dataclass(hints[name]):
            kwargs[name] = _build(hints[name], values.get(name, {}), f"{prefix}{name}.", faults)
        elif name not in values:
            if name not in optional:  # a config written before the field existed means its default
                faults.append(f"missing field {prefix}{name}")
        else:
            try:
                kwargs[name] = _checked(hints[name], values[name])
            except _Fault as fault:
                faults.append(f"{prefix}{name}{fault}")
    return None if faults else cls(**kwargs)


def _checked(hint: Any, value: Any) -> Any:
    """The value converted to the annotated type.

    Raises:
      _Fault: it cannot be used.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        value = _checked(arguments[0], value)
        for limit in arguments[1:]:
            if not limit.low <= value <= limit.high:  # also refuses NaN
                raise _Fault(f"={_shown(value)} is outside {limit}")
        return value
    if origin is typing.Literal:
        if value not in arguments:
            near = difflib.get_close_matches(str(value), arguments, n=1)
            hint_text = f" (did you mean {near[0]}?)" if near else ""
            raise _Fault(f"={_shown(value)} must be one of {', '.join(map(str, arguments))}{hint_text}")
        return value
    if origin in (types.UnionType, typing.Union):
        return _checked_text_or_list(value) if arguments[0] is str else _checked_number_or_list(arguments, value)
    if origin is tuple:
        return _checked_tuple(arguments, value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise _Fault(f"={_shown(value)} is too large") from error
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        hint_text = f" (write {whole})" if hint is int and (whole := _whole(value)) is not None else ""
        raise _Fault(f": expected {_WORDS[hint]}, got {_shown(value)}{hint_text}")
    return value


def _checked_text_or_list(value: Any) -> str | tuple[str, ...]:
    """`str | tuple[str, ...]`."""
    if isinstance(value, str):
        try:
            found = literal(value.strip())
        except ValueError:
            return value
        return _checked_text_or_list(found) if isinstance(found, list | tuple) else value
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise _Fault(f": expected a text or a list of texts, got {_shown(value)}")


def _checked_number_or_list(arguments: tuple[Any, ...], value: Any) -> Any:
    """`X | tuple[X, ...]` for a number X."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):  # a text that means no number is reported as it is
            value = literal(value.strip())
    return _checked(arguments[1] if isinstance(value, list | tuple) else arguments[0], value)


def _checked_tuple(arguments: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _Fault(f": expected a list, got {_shown(value)}{_as_list(arguments[0], value)}")
    if arguments[-1] is ...:
        return tuple(_checked(arguments[0], part) for part in value)
    if len(value) != len(arguments):
        raise _Fault(f": expected {len(arguments)} values, got {_shown(value)}")
    return tuple(_checked(kind, part) for kind, part in zip(arguments, value, strict=True))


def _as_list(hint: Any, value: Any) -> str:
    """The advice to write a list of one, where the value could stand in it."""
    try:
        _checked(hint, value)
    except _Fault:
        return ""
    return f" (write ({_shown(value)},))"


def _whole(value: Any) -> int | None:
    """The whole number that a text such as "1e6" or the number 3.0 stands for."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() and abs(number) < 1e15 and not isinstance(value, bool) else None


def _shown(value: Any) -> str:
    """A value for a message: short and printable."""
    try:
        return printable(repr(value), _SHOWN)
    except (ValueError, RecursionError):  # an integer of thousands of digits, lists in lists without end
        return f"a {type(value).__name__} that is too large to show"
