"""Class names: lists of them in files, and the numbers of labels in such a list."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from harvest_jax.errors import DataError


def class_text(name: str) -> str:
    """A class name as words: underscores (`brush_hair`) and runs of spaces become one space."""
    return " ".join(name.replace("_", " ").split())


def read_classes(path: Path) -> list[str]:
    """Class names of a text file (one a line) or a CSV file with a column `name`, in the file's order, as words.

    Raises:
      DataError: the file cannot be read, is empty, or names a class twice.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"class names {path}: {error}") from error
    if path.suffix.lower() == ".csv":
        try:
            rows = list(csv.DictReader(text.splitlines()))
        except csv.Error as error:
            raise DataError(f"class names {path}: {error}") from error
        if rows and rows[0].get("name") is None:
            raise DataError(f"class names {path}: no column `name`")
        names = [class_text(row["name"] or "") for row in rows]
    else:
        names = [class_text(line) for line in text.splitlines()]
    names = [name for name in names if name]
    if not names:
        raise DataError(f"class names {path}: the file names no class")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"class names {path}: {twice[0]!r} appears more than once")
    return names


def label_numbers(labels: Sequence[str], ids: Sequence[str], classes: Sequence[str]) -> Int[np.ndarray, " rows"]:
    """The class number of each label; labels and classes are compared as `class_text` writes them.

    Raises:
      DataError: a label is not a class.
    """
    number = {name: i for i, name in enumerate(classes)}
    unknown = [(i, label) for i, label in zip(ids, labels, strict=True) if class_text(label) not in number]
    if unknown:
        raise DataError(f"{len(unknown)} labels are not a class, the first: {unknown[0][1]!r} of {unknown[0][0]}")
    return np.array([number[class_text(label)] for label in labels], np.int64)
