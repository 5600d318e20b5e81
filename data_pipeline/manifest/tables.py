"""Manifest files as rows of cells: CSV, TSV, JSON lines and Parquet. Faults of a whole file are raised here."""

import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.sources.raw_row import RawRow
from harvest_jax.errors import DataError
from harvest_jax.terminal import one_line

_MAX_CELL = (
    1 << 24
)  # characters; the csv module stops at 131,072, but a caption that is too long should cost only its row
_JSON_LINES = (".jsonl", ".ndjson")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SUFFIXES = (*_DELIMITERS, *_JSON_LINES, ".parquet")


def read_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a manifest, one at a time; empty lines are skipped.

    Raises:
      DataError: missing, unreadable, of an unknown kind, not UTF-8, without a header, damaged.
    """
    if not path.is_file():
        raise DataError(f"no manifest {path}" + (": it is a folder" if path.is_dir() else ""))
    kind = path.suffix.lower()
    try:
        if kind in _DELIMITERS:
            yield from _read_csv(path, _DELIMITERS[kind])
        elif kind in _JSON_LINES:
            yield from _read_jsonl(path)
        elif kind == ".parquet":
            yield from _read_parquet(path)
        else:
            raise DataError(
                f"{path}: a manifest is a .csv, .tsv, .jsonl, .parquet or .tar file or a folder, not "
                f"{kind or 'without suffix'}"
            )
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(f"{path} is not UTF-8 text (byte 0x{byte:02x}): save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or one_line(error, 200)}") from error


def manifests_in(folder: Path) -> list[Path]:
    """The files in a folder whose suffix is that of a manifest, sorted by name."""
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in files if path.suffix.lower() in _SUFFIXES and path.is_file()]


@contextlib.contextmanager
def _long_cells() -> Iterator[None]:
    before = csv.field_size_limit(_MAX_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_csv(path: Path, delimiter: str) -> Iterator[RawRow]:
    # strict: otherwise an unfinished quote hides the rest of the file silently
    with path.open(encoding="utf-8-sig", newline="") as file, _long_cells():
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            if not any(header):
                raise DataError(f"{path} is empty: the first line names the columns, e.g. video{delimiter}caption")
            if len(header) == 1 and delimiter == "," and "\t" in header[0]:
                raise DataError(f"{path} separates its columns by tabs: name it {path.stem}.tsv")
            if len(set(header)) < len(header):
                twice = sorted({name for name in header if header.count(name) > 1})
                raise DataError(f"{path} names the column {', '.join(map(repr, twice))} twice")
            for cells in reader:
                if not cells:
                    continue
                fault = "" if len(cells) == len(header) else f"{len(cells)} cells under {len(header)} columns"
                yield RawRow(reader.line_num, dict.fromkeys(header) | dict(zip(header, cells, strict=False)), fault)
        except csv.Error as error:
            raise DataError(
                f"{path}, line {reader.line_num}: {error} (a quote inside a quoted cell is doubled)"
            ) from error


def _read_jsonl(path: Path) -> Iterator[RawRow]:
    with path.open(encoding="utf-8-sig") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                cells = json.loads(text)
            except (ValueError, RecursionError) as error:
                yield RawRow(number, {}, f"not JSON ({str(error)[:80]})")
                continue
            yield RawRow(number, cells) if isinstance(cells, dict) else RawRow(number, {}, "not a JSON object")


def _read_parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=4096):
                for cells, fault in _cells_of(batch):
                    number += 1
                    yield RawRow(number, cells, fault)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a readable Parquet file: {one_line(error, 200)}") from error


def _cells_of(batch: Any) -> list[tuple[dict[str, Any], str]]:
    """The rows of a `pyarrow.RecordBatch`; one that Python cannot represent (a date before the year 1) has a fault."""
    try:
        return [(cells, "") for cells in batch.to_pylist()]
    except (ValueError, OverflowError) as error:
        if len(batch) == 1:
            return [({}, f"a cell cannot be read ({one_line(error, 80)})")]
    return [row for index in range(len(batch)) for row in _cells_of(batch.slice(index, 1))]
