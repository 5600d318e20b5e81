"""Annotation files of benchmarks, read as text, JSON and tables.

They come from outside and are often not what their name says, so every fault is one line that names the file and the
place in it. What the files mean is for the modules of `datasets`.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from harvest_jax.errors import DataError
from harvest_jax.files import sha256_of
from harvest_jax.input.annotation_records import Record
from harvest_jax.terminal import one_line, printable

MAX_BYTES = 1 << 30  # the largest official file is 62 MB (VATEX's training captions); a video in its place stops here
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", " ": "spaces"}


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
      DataError: it cannot be read, or has more than `MAX_BYTES` bytes.
    """
    try:
        if not os.path.isfile(path):
            raise DataError(f"no file {path}" + (": it is a folder" if os.path.isdir(path) else ""))
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_BYTES:
                raise DataError(f"{path} has {size:,} bytes: no annotation file has more than {MAX_BYTES:,}")
            return stream.read(MAX_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or one_line(error, 200)}") from error


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes.

    Raises:
      DataError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or one_line(error, 200)}") from error


def read_text(path: Path) -> str:
    """The content of a file as text; a byte order mark at its start is removed.

    Raises:
      DataError: it cannot be read, is too large, is not UTF-8 or holds byte 0.
    """
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        hint = ": this is no text file" if b"\0" in content else ""
        raise DataError(f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8 text{hint}") from error
    if "\0" in text:
        raise DataError(f"{path}, line {text.count(chr(10), 0, text.index(chr(0))) + 1}: byte 0x00 is not text")
    return text


def holds_json(path: Path) -> bool:
    """Whether the file's text begins like a JSON list or object, whatever its name is.

    Raises:
      DataError: as for `read_text`.
    """
    return read_text(path).lstrip()[:1] in ("[", "{")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without the spaces around them; empty lines are left out.

    Raises:
      DataError: as for `read_text`; or there are no lines; or one is there twice.
    """
    lines = [line.strip() for line in read_text(path).split("\n")]
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if line and first.setdefault(line, number) != number:
            raise DataError(f"{path}, line {number}: {printable(line, 80)!r} is in line {first[line]} already")
    if not first:
        raise DataError(f"{path} has no lines")
    return list(first)


def read_json(path: Path, kind: type[list] | type[dict] | tuple[type, ...]) -> Any:
    """A JSON file whose value is a list or an object.

    Raises:
      DataError: as for `read_text`; or it is not JSON (an object that has a key twice, and NaN, are none), is nested
        too deeply, or holds another kind of value.
    """
    value = _parse(read_text(path), str(path))
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds):
        wanted = " or ".join(_JSON_NAMES[each] for each in kinds)
        raise DataError(
            f"{path} holds {_JSON_NAMES.get(type(value), 'a number')}, where the official file has {wanted}"
        )
    return value


_JSON_NAMES: dict[type, str] = {
    list: "a list", dict: "an object", str: "a text", bool: "true or false", type(None): "null",
}  # fmt: skip


def read_records(path: Path) -> list[Record]:
    """The objects of a JSON file that is a list of objects.

    Raises:
      DataError: as for `read_json`; or an entry is not an object; or there are none.
    """
    return records_of(read_json(path, list), str(path))


def records_of(entries: Iterable[Any], where: str) -> list[Record]:
    """Entries of a JSON list as records; they are counted from 1 in messages.

    Raises:
      DataError: an entry is not an object; or there are none.
    """
    records = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise DataError(
                f"{where}, entry {number}: must be an object, is {_JSON_NAMES.get(type(entry), 'a number')}"
            )
        records.append(Record(f"{where}, entry {number}", entry))
    if not records:
        raise DataError(f"{where} has no entries")
    return records


def read_json_lines(path: Path) -> list[Record]:
    """The objects of a file with one JSON object a line; empty lines are left out.

    Raises:
      DataError: as for `read_text`; or a line is not a JSON object; or there are none.
    """
    records = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            cells = _parse(line, f"{path}, line {number}")
            if not isinstance(cells, dict):
                raise DataError(f"{path}, line {number}: must be an object, as in {{...}}")
            records.append(Record(f"{path}, line {number}", cells))
    if not records:
        raise DataError(f"{path} has no lines")
    return records


def read_json_rows(path: Path) -> list[Record]:
    """The objects of a JSON list, or of a file with one object a line: some files are published in both forms.

    Raises:
      DataError: as for `read_records` and `read_json_lines`.
    """
    return read_records(path) if read_text(path).lstrip().startswith("[") else read_json_lines(path)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text else ""
        raise DataError(f"{where}, {line}column {error.colno}: not JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON that can be used ({one_line(error, 120)})") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key {printable(twice, 80)!r} twice")
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def read_table(
    path: Path,
    columns: Sequence[str],
    delimiter: Literal[",", "\t"] = ",",
    header: bool = True,
    quotes: bool = True,
) -> list[Record]:
    """The rows of a table; every cell is text.

    Args:
      path: the file.
      columns: with a header: the columns that must be there (others are kept, too); without: the names of all columns.
      delimiter: what separates cells.
      header: whether the first line names the columns.
      quotes: whether a cell may be put into double quotes; False: a quote is a letter like others.

    Raises:
      DataError: as for `read_text`; or a column is missing or named twice, or a row has too many or too few cells,
        or a quote is not closed, or there are no rows.
    """
    reader = csv.reader(
        io.StringIO(read_text(path), newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        strict=quotes,
    )
    names = None if header else list(columns)
    records = []
    begin = 1
    try:
        for cells in reader:
            begin, where = reader.line_num + 1, f"{path}, line {begin}"
            if not cells:
                continue
            if names is None:
                names = [cell.strip() for cell in cells]
                _check_header(names, columns, delimiter, where)
            elif len(cells) != len(names):
                text = delimiter.join(cells)
                hint = _other_delimiter(text, delimiter) if len(cells) == 1 else ""
                raise DataError(f"{where}: {len(cells)} cells, but {len(names)} columns{hint}")
            else:
                records.append(Record(where, dict(zip(names, cells, strict=True))))
    except csv.Error as error:
        hint = " (is a quote not closed? one inside a quoted cell is doubled)" if quotes else ""
        raise DataError(f"{path}, line {begin}: {error}{hint}") from error
    if not records:
        raise DataError(f"{path} has no rows")
    return records


def check_no_header(records: Sequence[Record], column: str) -> None:
    """Check that the first line of a table without a header is a row.

    Args:
      records: of the table.
      column: one that has a number in every row.

    Raises:
      DataError: it has none there, as the names of columns.
    """
    if not any(letter.isdecimal() for letter in str(records[0].value(column))):
        raise records[0].fault("this is a header, and the official file has none: remove the line")


def _check_header(names: list[str], columns: Sequence[str], delimiter: str, where: str) -> None:
    missing = [name for name in columns if name not in names]
    if missing:
        hint = _other_delimiter(names[0], delimiter) if len(names) == 1 else ""
        found = printable(", ".join(names), 200)
        raise DataError(
            f"{where}: the first line must name the columns {', '.join(columns)}; "
            f"{', '.join(missing)} not in: {found}{hint}"
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{where}: the column {printable(twice, 80)!r} is named twice")


def _other_delimiter(line: str, delimiter: str) -> str:
    """A hint for a line in which the delimiter does not occur."""
    other = next((mark for mark in ("\t", ",", ";") if mark != delimiter and mark in line), None)
    if other is None:
        return ""
    return f" (cells are separated by {_SEPARATORS[other]}, in the official file by {_SEPARATORS[delimiter]})"


def only(files: Mapping[str, Path]) -> Path:
    """The file of a benchmark that needs one."""
    (path,) = files.values()
    return path
