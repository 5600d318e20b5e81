"""Values of a checkpoint's JSON configs, each checked where it is taken.

The configs come with downloaded files: any value may be missing or of another type.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.model.config import Preprocessing, is_number
from harvest_jax.terminal import printable

LIMIT = 60  # characters of a value that a message shows


@dataclasses.dataclass(frozen=True)
class ClipFields:
    """What a config says that the shapes do not; a pair is the image tower's and the text tower's."""

    heads: tuple[int, int]
    activations: tuple[str, str]
    preprocessing: Preprocessing | None  # None: the config does not say


def json_object(fields: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """A JSON object; empty where it is missing or null.

    Raises:
      DataError: it is something else.
    """
    found = fields.get(name)
    if found is not None and not isinstance(found, dict):
        raise DataError(f"{where}: {name}: expected a JSON object, got {printable(repr(found), LIMIT)}")
    return found or {}


def positive_integer(fields: Mapping[str, Any], name: str, default: int, where: str) -> int:
    """A whole number above zero; `default` where it is missing.

    Raises:
      DataError: it is something else.
    """
    found = fields.get(name, default)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise DataError(f"{where}: {name}: expected a positive whole number, got {printable(repr(found), LIMIT)}")
    return found


def finite_number(fields: Mapping[str, Any], name: str, default: float, where: str) -> float:
    """A finite number; `default` where it is missing.

    Raises:
      DataError: it is something else.
    """
    found = fields.get(name, default)
    if not is_number(found):
        raise DataError(f"{where}: {name}: expected a number, got {printable(repr(found), LIMIT)}")
    return float(found)


def preprocessing(fields: Mapping[str, Any], mean: str, std: str, resize: str, where: str) -> Preprocessing:
    """Mean and standard deviation of the fields of these names, CLIP's where they are missing.

    Raises:
      DataError: they are not three numbers, or a standard deviation is not above zero.
    """
    values = []
    for name, default in ((mean, Preprocessing().mean), (std, Preprocessing().std)):
        found = fields.get(name) or default
        if not isinstance(found, list | tuple) or len(found) != 3 or not all(map(is_number, found)):
            raise DataError(f"{where}: {name}: expected three numbers, got {printable(repr(found), LIMIT)}")
        values.append((float(found[0]), float(found[1]), float(found[2])))
    if min(values[1]) <= 0:
        raise DataError(f"{where}: {std} is {values[1]}; a standard deviation must be above zero")
    return Preprocessing(values[0], values[1], resize)
