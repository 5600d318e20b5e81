"""Scores as lines of text for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from harvest_jax.terminal import printable


def number_lines(metrics: Mapping[str, Any]) -> list[str]:
    """One line for each single number; groups are left out."""
    plain = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return [f"{name:<24}{_number(value):>10}" for name, value in plain.items()]


def columns(names: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A header and one line for each row: its name and the columns `names`."""
    shown = {printable(name): row for name, row in rows.items()}
    width = max(20, *(len(name) + 2 for name in shown))
    header = " " * width + "".join(f"{name:>{max(10, len(name) + 2)}}" for name in names)
    body = [
        f"{row_name:<{width}}" + "".join(f"{_number(row[name]):>{max(10, len(name) + 2)}}" for name in names)
        for row_name, row in shown.items()
    ]
    return [header, *body]


def _number(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2f}"
