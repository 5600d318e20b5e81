"""Tables for a terminal and as Markdown."""

import shutil
import textwrap
from collections.abc import Sequence

from harvest_jax.evaluate.report.grids import Cell, Grid, Report

_HEAD = 24  # characters of a column's head in a line
_LABEL = 40  # of a row's


def terminal_width() -> int:
    """Characters of a line of this terminal; 120 where there is none."""
    return max(60, shutil.get_terminal_size((120, 24)).columns)


def terminal(report: Report, width: int) -> list[str]:
    """The lines of all tables, without the warnings.

    A table that is wider than `width` comes in several parts, each with the labels of the rows.
    """
    lines: list[str] = []
    for grid in report.grids:
        lines += [*_terminal(grid, width), ""]
    for text in report.method:
        lines += textwrap.wrap(text, width, break_on_hyphens=False)
    return lines


def _terminal(grid: Grid, width: int) -> list[str]:
    labels = [textwrap.wrap(label, min(_LABEL, width // 2), break_on_hyphens=False) or [""] for label, _ in grid.rows]
    first = max((len(line) for label in labels for line in label), default=0)
    heads = [[line for text in head for line in textwrap.wrap(text, _HEAD)] for head in grid.heads]
    texts = [[_plain(cell) for cell in cells] for _, cells in grid.rows]
    widths = [
        max(len(text) for text in (*heads[column], *(row[column] for row in texts))) for column in range(len(heads))
    ]
    lines = [grid.title, *(line for note in grid.notes for line in _wrapped(note, width))]
    for part in _parts(widths, width - first):
        depth = max(len(heads[column]) for column in part)
        lines.append("")
        for level in range(depth):
            cells = [(heads[column] + [""] * depth)[level].rjust(widths[column]) for column in part]
            lines.append("  ".join([" " * first, *cells]).rstrip())
        for label, row in zip(labels, texts, strict=True):
            cells = [row[column].rjust(widths[column]) for column in part]
            lines.append("  ".join([label[0].ljust(first), *cells]).rstrip())
            lines += label[1:]
    return lines


def _parts(widths: Sequence[int], width: int) -> list[list[int]]:
    """Columns that fit beside each other, with two spaces before each."""
    parts: list[list[int]] = [[]]
    used = 0
    for column, own in enumerate(widths):
        if parts[-1] and used + own + 2 > width:
            parts.append([])
            used = 0
        parts[-1].append(column)
        used += own + 2
    return parts


def _plain(cell: Cell) -> str:
    return f"{cell.text or '-'} {cell.detail}".strip()


def markdown(report: Report) -> str:
    """The tables as a Markdown page."""
    lines = ["# Results", ""]
    for grid in report.grids:
        lines += [f"## {_escaped(grid.title)}", ""]
        lines += [*(f"- {_escaped(note)}" for note in grid.notes), ""]
        lines.append("| | " + " | ".join("<br>".join(map(_escaped, head)) for head in grid.heads) + " |")
        lines.append("|---|" + "---:|" * len(grid.heads))
        for label, cells in grid.rows:
            shown = (_escaped(_plain(cell)) for cell in cells)
            lines.append(f"| {_escaped(label)} | " + " | ".join(shown) + " |")
        lines.append("")
    lines += [_escaped(text) + "\n" for text in report.method]
    lines += [f"- warning: {_escaped(text)}" for text in report.warnings]
    return "\n".join(lines).rstrip() + "\n"


def _escaped(text: str) -> str:
    """The text without a meaning in Markdown: names of models and sets come from outside."""
    for letter in "\\`*_[]<>|#":
        text = text.replace(letter, {"<": "&lt;", ">": "&gt;"}.get(letter, f"\\{letter}"))
    return text


def _wrapped(note: str, width: int) -> list[str]:
    """The lines of a note; the names of files in it are not broken at hyphens."""
    return textwrap.wrap(note, width, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
