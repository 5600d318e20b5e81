"""The rows of a benchmark out of its annotation files, checked against what the benchmark is known to hold."""

from collections.abc import Mapping
from pathlib import Path

from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row, counts
from harvest_jax.evaluate.benchmarks.locate_annotations import locate
from harvest_jax.terminal import printable


def read(benchmark: Benchmark, annotations: Path, partial: bool = False) -> list[Row]:
    """The rows of a benchmark's own files.

    Args:
      benchmark: what to read.
      annotations: a folder with the annotation files, or the file if there is one; see `locate_annotations.locate`.
      partial: as `read_files`.

    Raises:
      DataError: a file is missing; or as `read_files`.
    """
    return read_files(benchmark, locate(benchmark, annotations), partial)


def read_files(benchmark: Benchmark, files: Mapping[str, Path], partial: bool = False) -> list[Row]:
    """The rows, in the order of the file.

    Args:
      benchmark: what to read.
      files: of `locate_annotations.locate`.
      partial: accept other counts than the benchmark's; what is read is another set then.

    Raises:
      DataError: a file is wrong, an id appears twice, a span is empty, a row has no caption or too many for the
        benchmark's policy, or the counts are not the benchmark's.
    """
    rows = benchmark.read(files)
    where = ", ".join(str(path) for path in dict.fromkeys(files.values()))
    if not rows:
        raise DataError(f"{benchmark.title}: no rows in {where}")
    _check_rows(benchmark, rows, where)
    if not partial:
        _check_counts(benchmark, rows, files, where)
    return rows


def _check_rows(benchmark: Benchmark, rows: list[Row], where: str) -> None:
    first: dict[str, Row] = {}
    for row in rows:
        before = first.setdefault(row.id, row)
        if before is not row:
            there = f", in {before.where.rpartition(', ')[2]}" if before.where else ""
            raise DataError(f"{row.where or where}: the id {printable(row.id, 80)!r} is used already{there}")
        end = float("inf") if row.end is None else row.end
        if not 0 <= (row.start or 0.0) < end:
            raise DataError(f"{where}: {printable(row.id, 80)} has an empty span, {row.start} to {row.end} s")
        if any(not caption.strip() for caption in row.captions):
            raise DataError(f"{where}: {printable(row.id, 80)} has an empty caption")
        if benchmark.captions in ("one", "paragraph") and len(row.captions) != 1:
            raise DataError(
                f"{where}: {printable(row.id, 80)} has {len(row.captions)} captions, but in {benchmark.title} each "
                "video has one text: is it the file of another benchmark?"
            )
        if benchmark.captions == "several" and not row.captions:
            raise DataError(f"{where}: {printable(row.id, 80)} has no caption")


def _check_counts(benchmark: Benchmark, rows: list[Row], files: Mapping[str, Path], where: str) -> None:
    found = counts(rows)
    wrong = [name for name, count in benchmark.expected.items() if found[name] != count]
    if wrong:
        # only the most telling count is named
        name = min(wrong, key=("classes", "videos", "captions", "rows").index)
        raise DataError(
            f"{benchmark.title}: expected {benchmark.expected[name]:,} {name}, found {found[name]:,} in {where}; "
            "--config.data.partial=True scores them as another set"
        )
