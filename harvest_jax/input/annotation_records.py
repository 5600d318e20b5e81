"""One record of an annotation file, with checked access to its cells: each fault names the file and the line."""

import dataclasses
import math
import re
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.terminal import printable

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_MAX_SECONDS = 1e7


@dataclasses.dataclass(frozen=True)
class Record:
    """A row of a table or an object of a JSON file.

    Attributes:
      where: file and line (or entry, counted from 1), for messages.
      cells: the values by column or key; of a table all are text.
    """

    where: str
    cells: dict[str, Any]

    def fault(self, message: str) -> DataError:
        """The error for a fault in this record, to be raised."""
        return DataError(f"{self.where}: {message}")

    def value(self, name: str) -> Any:
        """A cell as it is.

        Raises:
          DataError: there is none.
        """
        if name not in self.cells:
            found = printable(", ".join(map(str, self.cells)), 200) or "nothing"
            raise self.fault(f"no {name!r}; it has {found}")
        return self.cells[name]

    def text(self, name: str) -> str:
        """A text without the spaces around it.

        Raises:
          DataError: there is none, it is empty, of another type, or holds half a character (a lone surrogate).
        """
        return self._text(self.value(name), name)

    def texts(self, name: str) -> list[str]:
        """A list of texts, each as `text`.

        Raises:
          DataError: there is none, it is empty, of another type, or one of the texts cannot be used.
        """
        value = self.value(name)
        if not isinstance(value, list):
            raise self.fault(f"{name!r} must be a list of texts, is {_shown(value)}")
        if not value:
            raise self.fault(f"{name!r} is an empty list")
        return [self._text(entry, f"{name}[{number}]") for number, entry in enumerate(value)]

    def whole(self, name: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`, written as a number or as text.

        Raises:
          DataError: there is none, it is no whole number or outside the range.
        """
        value = self.value(name)
        if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fault(f"{name!r} must be a whole number from {low} to {high}, is {_shown(value)}")
        return value

    def number(self, name: str) -> float:
        """A finite number, written as a number or as text.

        Raises:
          DataError: there is none, or it is not a finite number.
        """
        return self._number(self.value(name), name)

    def seconds(self, name: str) -> float:
        """A time in seconds, 0 to 10,000,000.

        Raises:
          DataError: there is none, or it is not such a number.
        """
        value = self.number(name)
        if not 0 <= value <= _MAX_SECONDS:
            raise self.fault(f"{name!r} must be a time in seconds, is {value:g}")
        return value

    def spans(self, name: str) -> list[tuple[float, float]]:
        """A list of pairs of numbers.

        Raises:
          DataError: there is none, or it is of another type.
        """
        value = self.value(name)
        if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
            raise self.fault(f"{name!r} must be a list of pairs of numbers, is {_shown(value)}")
        return [(self._number(start, name), self._number(end, name)) for start, end in value]

    def _number(self, value: Any, name: str) -> float:
        try:
            number = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self.fault(f"{name!r} must be a number, is {_shown(value)}")
        return number

    def _text(self, value: Any, name: str) -> str:
        if not isinstance(value, str):
            raise self.fault(f"{name!r} must be a text, is {_shown(value)}")
        text = value.strip()
        if not text:
            raise self.fault(f"{name!r} is empty")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise self.fault(f"{name!r} holds half a character (a lone surrogate)") from error
        return text


def _shown(value: Any) -> str:
    """A value for a message: short, and one line."""
    return printable(repr(value), 60)
