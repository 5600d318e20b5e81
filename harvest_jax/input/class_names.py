"""Class names: lists of them in files, and the numbers of labels in such a list."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from harvest_jax.errors import DataError
from harvest_jax.input.annotation_files import read_text

NAME_COLUMNS = ("name", "label", "class", "class_name")  # of a table of classes
NUMBER_COLUMNS = ("id", "number", "index", "class_id", "label_id")
_CLIP_COLUMN = "youtube_id"  # a table with it is a list of clips (Kinetics), not of classes
_NUMBER_FIRST = re.compile(r"(\d+)\s+(\S.*)")  # UCF101's classInd.txt: 1 ApplyEyeMakeup
_NUMBER_LAST = re.compile(r"(.*\S)\s*,\s*(\d+)")  # moments_categories.txt: clapping,0
_LONGEST = 200  # characters of a line above which a file is prose


def class_text(name: str) -> str:
    """A class name as words.

    Quotes around it are removed; underscores (`brush_hair`), plus signs (`adult+male+singing`) and runs of spaces
    become one space.
    """
    name = name.strip()
    while len(name) > 1 and name[0] == name[-1] and name[0] in "\"'":
        name = name[1:-1].strip()
    return " ".join(name.replace("_", " ").replace("+", " ").split())


def read_classes(path: Path) -> list[str]:
    """The class names of a file, as `class_text` writes them.

    Text: a name a line, which may have its number before it (`1 ApplyEyeMakeup`) or after it (`clapping,0`). `.csv`: a
    table with a column `name`, `label`, `class` or `class_name`, or a name a line. JSON: a list of names, or an object
    that maps names to numbers or numbers to names. Numbers must be 0.. or 1.., each once, and give the order; otherwise
    it is the file's. A table of clips (with a column `youtube_id`, as Kinetics') has the distinct labels, sorted.

    Raises:
      DataError: the file cannot be read, is empty, names a class twice, or is not a list of class names.
    """
    try:
        text = read_text(path)
    except DataError as error:
        raise DataError(f"class names: {error}") from error
    try:
        found = _json_names(text) if path.suffix.lower() == ".json" else _listed_names(path, text)
    except (ValueError, RecursionError, csv.Error) as error:
        raise DataError(f"class names {path}: {error}") from error
    names = [name for name in map(class_text, found) if name]
    if not names:
        raise DataError(f"class names {path}: the file names no class")
    longest = max(names, key=len)
    if len(longest) > _LONGEST:
        raise DataError(f"class names {path}: not a list of class names; a line has {len(longest)} characters")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(f"class names {path}: {twice[0]!r} appears more than once")
    return names


def _listed_names(path: Path, text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if path.suffix.lower() == ".csv" and lines:
        header, *rows = csv.reader(lines)
        columns = [cell.strip().lower() for cell in header]
        own = [column for column in NAME_COLUMNS if column in columns]
        if own:
            place = columns.index(own[0])
            cells = [row[place] if place < len(row) else "" for row in rows]
            if _CLIP_COLUMN in columns:
                return sorted(set(map(class_text, cells)))
            return _in_order(cells, columns, rows)
        if len(header) > 1 and not all(_NUMBER_LAST.fullmatch(line) for line in lines):
            raise ValueError(f"no column {', '.join(f'`{column}`' for column in NAME_COLUMNS)}")
    some = False
    for form, number, name in ((_NUMBER_FIRST, 1, 2), (_NUMBER_LAST, 2, 1)):
        matches = [form.fullmatch(line) for line in lines]
        numbered = [(int(match[number]), match[name]) for match in matches if match]
        if len(numbered) == len(lines) and _is_numbering([place for place, _ in numbered]):
            return [words for _, words in sorted(numbered)]
        some = some or len(numbered) > len(lines) / 2
    if some and len(lines) > 2:
        raise ValueError("most lines have a number, but not all, or the numbers are not 0.. or 1.., each once")
    return lines


def _in_order(names: list[str], columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The names of a table by its column of numbers; as they stand if it has none.

    Raises:
      ValueError: the numbers are not 0.. or 1.., each once.
    """
    numbering = next((columns.index(name) for name in NUMBER_COLUMNS if name in columns), None)
    if numbering is None:
        return names
    cells = [row[numbering].strip() if numbering < len(row) else "" for row in rows]
    if not all(cell.isdecimal() for cell in cells) or not _is_numbering(list(map(int, cells))):
        raise ValueError(f"the numbers in the column `{columns[numbering]}` must be 0.. or 1.., each once")
    return [name for _, name in sorted(zip(map(int, cells), names, strict=True))]


def _json_names(text: str) -> list[str]:
    value = json.loads(text)
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return value
    if isinstance(value, dict):
        for pairs in (((number, name) for name, number in value.items()), value.items()):
            numbered = [(int(str(place)), name) for place, name in pairs if str(place).isdecimal()]
            if len(numbered) == len(value) and all(isinstance(name, str) for _, name in numbered):
                if not _is_numbering([place for place, _ in numbered]):
                    raise ValueError("the classes' numbers must be 0.. or 1.., each once")
                return [name for _, name in sorted(numbered)]
    raise ValueError("must be a list of names, or an object that maps names to numbers or numbers to names")


def _is_numbering(numbers: list[int]) -> bool:
    """Whether these are 0.. or 1.., each once, in any order."""
    return (
        bool(numbers) and sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers))) and min(numbers) < 2
    )


def loose(name: str) -> str:
    """A name without capitals, spaces and punctuation: "Yo Yo", "YoYo" and "yo-yo" are the same."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def class_finder(classes: Sequence[str]) -> Callable[[str], int | None]:
    """The function from a label to the number of its class; None if it is no class, or could be several.

    Labels and classes are compared as `class_text` writes them. A label that is no class in this form is compared
    without capitals, spaces and punctuation (`loose`), if no two classes are alike in that form.
    """
    exact = {class_text(name): i for i, name in enumerate(classes)}
    alike = Counter(map(loose, classes))
    near = {loose(name): i for i, name in enumerate(classes) if alike[loose(name)] == 1}
    return lambda label: exact.get(class_text(label), near.get(loose(label)))


def label_numbers(labels: Sequence[str], ids: Sequence[str], classes: Sequence[str]) -> Int[np.ndarray, " rows"]:
    """The class number of each label; `class_finder` says how they are compared.

    Raises:
      DataError: a label is not a class, or could be several.
    """
    find = class_finder(classes)
    numbers = {label: find(label) for label in dict.fromkeys(labels)}
    unknown = [(i, label) for i, label in zip(ids, labels, strict=True) if numbers[label] is None]
    if unknown:
        row, label = unknown[0]
        several = ", it could be several of them" if [*map(loose, classes)].count(loose(label)) > 1 else ""
        raise DataError(
            f"{len(unknown)} labels are not a class, the first: {label!r:.80} of {row}{several}; correct them, or the "
            f"list of the {len(classes)} classes"
        )
    return np.array([numbers[label] for label in labels], np.int64)
