"""Manifest files as rows of cells: CSV, TSV, JSON lines, JSON and Parquet. Faults of a whole file are raised here.

Text is read as UTF-8 of which single bytes may be wrong: they become lone surrogates (Python's `surrogateescape`),
which the checks of a row find. So they cost their row and not the file.
"""

import collections
import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.media_paths import MEDIA_SUFFIXES, wrong_byte
from data_pipeline.sources.raw_row import RawRow
from harvest_jax.errors import DataError
from harvest_jax.terminal import one_line

_MAX_CELL = (
    1 << 24
)  # characters; the csv module stops at 131,072, but a caption that is too long should cost only its row
_MAX_JSON = 1 << 30  # bytes of a .json file, which is read as a whole
_BATCH_BYTES = 64 << 20  # of rows of a Parquet file that are in memory at a time, by the sizes that it states
_JSON_LINES = (".jsonl", ".ndjson")
_DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}  # those that a file of this name may have
_SUFFIXES = (*_DELIMITERS, *_JSON_LINES, ".parquet")


def read_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a manifest, one at a time; empty lines are skipped.

    Raises:
      DataError: missing, unreadable, of an unknown kind, not UTF-8 text at all, without a header, damaged.
    """
    if not path.is_file():
        raise DataError(f"no manifest {path}" + (": it is a folder" if path.is_dir() else ""))
    kind = path.suffix.lower()
    try:
        if kind in _DELIMITERS:
            yield from _read_csv(path, _DELIMITERS[kind])
        elif kind in _JSON_LINES:
            yield from _read_jsonl(path)
        elif kind == ".json":
            yield from _read_json(path)
        elif kind == ".parquet":
            yield from _read_parquet(path)
        else:
            raise DataError(
                f"{path}: a manifest is a .csv, .tsv, .jsonl, .json, .parquet or .tar file or a folder, not "
                f"{kind or 'without suffix'}"
            )
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or one_line(error, 200)}") from error


def manifests_in(folder: Path) -> list[Path]:
    """The files in a folder whose suffix is that of a manifest, sorted by name; not .json, which may be of one clip."""
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in files if path.suffix.lower() in _SUFFIXES and path.is_file()]


def _check_text(path: Path, text: str) -> None:
    if byte := wrong_byte(text):
        raise DataError(f"{path} is not UTF-8 text (byte {byte}): save it as UTF-8")


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    before = csv.field_size_limit(_MAX_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_csv(path: Path, delimiters: str) -> Iterator[RawRow]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file, _long_cells():
        lines = _Lines(file)
        delimiter = delimiters[0]
        first = lines.peek()
        if first.lower().startswith("sep=") and len(first.strip()) == 5 and first[4] in delimiters:  # Excel's
            lines.take()
            delimiter = first[4]
        else:
            counts = [_width(first, mark) for mark in delimiters]
            delimiter = delimiters[counts.index(max(counts))]
        header: list[str] = []
        for number, cells, fault in _records(lines, delimiter, 0):
            _check_text(path, "".join(cells))
            if not header and fault:
                raise DataError(f"{path}, line {number}: {fault}")
            header = [name.strip() for name in cells]
            break
        if not any(header):
            raise DataError(f"{path} is empty: the first line names the columns, e.g. video{delimiter}caption")
        if len(set(header)) < len(header):
            twice = sorted({name for name in header if header.count(name) > 1})
            raise DataError(f"{path} names the column {', '.join(map(repr, twice))} twice")
        for number, cells, fault in _records(lines, delimiter, len(header)):
            if cells and not fault and len(cells) != len(header):
                fault = f"{len(cells)} cells under {len(header)} columns"
            if cells or fault:
                yield RawRow(number, dict.fromkeys(header) | dict(zip(header, cells, strict=False)), fault)


class _Lines:
    """The lines of a file, of which some may be put back. `number` counts those that are taken."""

    def __init__(self, file: Iterator[str]):
        self._file, self._back, self.number = file, collections.deque[str](), 0

    def peek(self) -> str:
        """The next line, which stays; "" at the end."""
        if not self._back:
            self._back.extend(line for line in (next(self._file, ""),) if line)
        return self._back[0] if self._back else ""

    def take(self) -> str:
        """The next line; "" at the end."""
        line = self._back.popleft() if self._back else next(self._file, "")
        self.number += bool(line)
        return line

    def put_back(self, lines: list[str]) -> None:
        self._back.extendleft(reversed(lines))
        self.number -= len(lines)


def _width(line: str, delimiter: str) -> int:
    """The number of cells of a line by itself; 0 if it cannot be read."""
    with contextlib.suppress(csv.Error):
        return len(next(csv.reader([line], delimiter=delimiter), []))
    return 0


def _records(lines: _Lines, delimiter: str, columns: int) -> Iterator[tuple[int, list[str], str]]:
    """The records of a CSV file: the number of the last line, the cells, and a fault of its quotes.

    A quote that is not closed would take the lines below into its cell. It costs its own line: the record ends there,
    and the lines below are read again. For most of them the csv module finds out itself (`strict`): the next quote
    closes the cell, and something else than a delimiter follows.

    Args:
      lines: of the file.
      delimiter: between cells.
      columns: how many cells a record should have; 0: any number.
    """
    while first := lines.take():
        taken = [first]

        def more(taken: list[str] = taken) -> Iterator[str]:
            yield taken[0]
            while line := lines.take():
                taken.append(line)
                yield line

        fault = ""
        try:
            cells = next(csv.reader(more(), delimiter=delimiter, strict=True), [])
            if len(taken) > 1 and columns and _has_swallowed(cells, taken[1:], delimiter, columns):
                fault = "a quote is not closed"
        except csv.Error as error:
            fault = "a quote is not closed"
            if len(taken) == 1 and "end of data" not in str(error):
                fault = "text follows a closing quote" if "expected after" in str(error) else one_line(error, 80)
        if fault:
            lines.put_back(taken[1:])
            cells = first.rstrip("\r\n").split(delimiter)
            if "quote" in fault:
                fault += " (a quote inside a quoted cell is doubled)"
        yield lines.number, cells, fault


def _has_swallowed(cells: list[str], below: list[str], delimiter: str, columns: int) -> bool:
    """Whether a record of several lines has whole rows in a cell, as a quote that is not closed makes it.

    Args:
      cells: of the record.
      below: its lines but the first.
      delimiter: between cells.
      columns: how many cells a record should have.
    """
    if len(cells) != columns:
        return True
    if delimiter == "\t" and any("\t" in cell and {"\n", "\r"} & set(cell) for cell in cells):
        return True
    rows = (line.strip().split(delimiter) for line in below if line.count(delimiter) + 1 >= columns)
    return any(cell.strip(' "').lower().endswith(MEDIA_SUFFIXES) for row in rows for cell in row)


def _read_jsonl(path: Path) -> Iterator[RawRow]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        yield from _json_lines(path, file)


def _json_lines(path: Path, lines: Iterator[str]) -> Iterator[RawRow]:
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            cells = json.loads(text)
        except (ValueError, RecursionError) as error:
            if number == 1:
                _check_text(path, text)  # not JSON because it is another encoding
            yield RawRow(number, {}, f"not JSON ({str(error)[:80]})")
            continue
        yield _json_row(number, cells)


def _json_row(number: int, cells: Any) -> RawRow:
    return RawRow(number, cells) if isinstance(cells, dict) else RawRow(number, {}, "not a JSON object")


def _read_json(path: Path) -> Iterator[RawRow]:
    """The rows of a list of objects; of a file with an object a line, which some call .json as well."""
    if (size := path.stat().st_size) > _MAX_JSON:
        raise DataError(f"{path} has {size:,} bytes, more than {_MAX_JSON:,}: write it as .jsonl, an object a line")
    text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip()[:1] == "{":
            yield from _json_lines(path, iter(text.split("\n")))
            return
        _check_text(path, text)
        raise DataError(f"{path} is not JSON ({str(error)[:80]})") from error
    if isinstance(entries, dict):  # one object, on one line or on several
        entries = [entries]
    if not isinstance(entries, list):
        raise DataError(f"{path} is not a list of objects: a manifest in JSON is [{{...}}, ...]")
    for number, cells in enumerate(entries, start=1):
        yield _json_row(number, cells)


def _read_parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            stated = sum(file.metadata.row_group(index).total_byte_size for index in range(file.num_row_groups))
            rows = _BATCH_BYTES * max(1, file.metadata.num_rows) // max(1, stated)
            number = 0
            for batch in file.iter_batches(batch_size=min(4096, max(1, rows))):
                for cells, fault in _cells_of(batch):
                    number += 1
                    yield RawRow(number, cells, fault)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:  # the latter: names of columns
        raise DataError(f"{path} is not a readable Parquet file: {one_line(error, 200)}") from error


def _cells_of(batch: Any) -> list[tuple[dict[str, Any], str]]:
    """The rows of a `pyarrow.RecordBatch`; one that Python cannot represent (a date before the year 1) has a fault."""
    try:
        return [({name: _text(cell) for name, cell in cells.items()}, "") for cells in batch.to_pylist()]
    except (ValueError, OverflowError):
        if len(batch) > 1:
            return [row for index in range(len(batch)) for row in _cells_of(batch.slice(index, 1))]
    cells, faults = {}, []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            cells[name] = _text(column[0].as_py())
        except (ValueError, OverflowError) as error:
            cells[name] = None
            faults.append(f"the cell {name} cannot be read ({one_line(error, 80)})")
    return [(cells, faults[0])]


def _text(cell: Any) -> Any:
    """Bytes as the text that they are: several programs write texts as binary columns. Other bytes stay."""
    if isinstance(cell, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return cell.decode()
    if isinstance(cell, list):
        return [_text(entry) for entry in cell]
    return cell
