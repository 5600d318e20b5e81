"""Result files of `harvest eval`, read back and checked, with the ranks of their queries."""

import dataclasses
import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harvest_jax.errors import DataError
from harvest_jax.evaluate.result.protocol import digest
from harvest_jax.evaluate.result.queries import SCHEMA
from harvest_jax.evaluate.result.results import FORMAT
from harvest_jax.input.annotation_files import read_bytes, read_json
from harvest_jax.terminal import one_line, printable

_PARTS: dict[str, type | tuple[type, ...]] = {
    "task": str, "protocol": dict, "protocol_hash": str, "model": dict, "data": dict, "metrics": dict,
    "n_expected": int, "n_missing": int, "warnings": list, "run": dict,
}  # fmt: skip
_OF_MODEL: dict[str, type] = {"name": str, "sha256": str, "origin": dict, "config": dict}


@dataclasses.dataclass(frozen=True)
class ResultFile:
    """One result as `evaluate.results.EvaluationResult.write` left it.

    Attributes:
      path: of the JSON file.
      content: the JSON object, whose parts have the right types.
      queries: the table beside it, with `queries.SCHEMA`; None if it cannot be used.
      fault: why there are no queries; else empty.
    """

    path: Path
    content: dict[str, Any]
    queries: pa.Table | None
    fault: str = ""

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.content["task"])

    @property
    def protocol(self) -> dict[str, Any]:
        """Every choice that decides the numbers."""
        return dict(self.content["protocol"])

    @property
    def protocol_hash(self) -> str:
        """sha256 (hex) of the protocol."""
        return str(self.content["protocol_hash"])

    @property
    def weights(self) -> str:
        """sha256 (hex) of the model."""
        return str(self.content["model"]["sha256"])

    @property
    def model(self) -> dict[str, Any]:
        """Name, sha256, origin and config of the model."""
        return dict(self.content["model"])

    @property
    def set_name(self) -> str:
        """Name of the evaluation set, with the split where it is the name of a file or folder, not of a benchmark."""
        data = self.content["data"]
        name, split = str(data.get("name", "")), str(data.get("split") or "")
        is_benchmark = str(data.get("kind", "")).startswith("benchmark")
        return f"{name}, split {split}" if split and not is_benchmark else name

    @property
    def warnings(self) -> list[str]:
        """What a reader of the numbers must know."""
        return [str(text) for text in self.content["warnings"]]

    def number(self, path: Sequence[str]) -> float | None:
        """A metric by its place in `metrics`, such as ("t2v", "R@1"); None if it is not there."""
        value: Any = self.content["metrics"]
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclasses.dataclass(frozen=True)
class Found:
    """What lies in the files and folders that were named.

    Attributes:
      results: in the order of the paths, within a folder by name.
      left_out: a line for each file that is no result that can be used, with the reason.
    """

    results: list[ResultFile]
    left_out: list[str]


def read_results(paths: Sequence[Path]) -> Found:
    """All results in files and below folders.

    A file that is named must be a result. Below a folder every file called *.json is looked at, hidden ones not; JSON
    files of other kinds are left out in silence, because folders of models and trainings hold such files.

    Raises:
      DataError: a path does not exist, a named file is no result, or there is no result at all.
    """
    results: list[ResultFile] = []
    left_out: list[str] = []
    seen: set[str] = set()
    for path in paths:
        if path.name.endswith(".queries.parquet"):
            continue  # named by a pattern such as results/*: it belongs to a result
        named = os.path.isfile(path)
        for file in [path] if named else _json_files(path):
            real = os.path.realpath(file)
            if real in seen:
                continue
            seen.add(real)
            _add(file, named, results, left_out)
    if not results:
        where = ", ".join(map(str, paths))
        more = f" ({'; '.join(left_out)[:400]})" if left_out else ""
        raise DataError(f"no results of harvest eval in {where}{more}: give their JSON files or a folder with them")
    return Found(results, left_out)


def _add(file: Path, named: bool, results: list[ResultFile], left_out: list[str]) -> None:
    try:
        results.append(read_result(file))
    except _OtherJson:
        if named:
            raise
    except _OlderResult as error:
        left_out.append(f"{error} (left out)")
    except DataError as error:
        if named:
            raise
        left_out.append(f"{error} (left out)")


class _OtherJson(DataError):
    """A JSON file of another kind."""


class _OlderResult(DataError):
    """A result of a version that wrote no format."""


def _json_files(folder: Path) -> list[Path]:
    """Files called *.json below a folder, sorted.

    Raises:
      DataError: there is no such folder, or it cannot be listed.
    """
    if not os.path.isdir(folder):
        raise DataError(f"no file or folder {folder}: give results of harvest eval, or a folder with them")

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from error

    found = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if name.endswith(".json") and not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def read_result(file: Path) -> ResultFile:
    """One result.

    Raises:
      DataError: the file cannot be read or is not a result of this format.
    """
    content = read_json(file, (dict, list))
    if not isinstance(content, dict) or not {"task", "protocol_hash", "metrics"} <= content.keys():
        raise _OtherJson(f"{file} is JSON, but not a result of harvest eval")
    if "format" not in content:
        raise _OlderResult(
            f"{file} was written by version 0.1.0 or older and does not say enough about itself to be compared: run "
            "the evaluation again"
        )
    if content["format"] != FORMAT:
        raise DataError(
            f"{file} is a result of format {content['format']!r:.40}, and this program reads format {FORMAT}: "
            "use the version that wrote it, or run the evaluation again"
        )
    for part, kind in _PARTS.items():
        if not isinstance(content.get(part), kind):
            raise DataError(f"{file}: a result has no usable {part!r}: the file was changed or is damaged")
    for part, kind in _OF_MODEL.items():
        if not isinstance(content["model"].get(part), kind):
            raise DataError(f"{file}: a result has no usable model {part!r}: the file was changed or is damaged")
    if digest(content["protocol"]) != content["protocol_hash"]:
        raise DataError(f"{file}: protocol_hash is not that of its protocol: the file was changed or is damaged")
    _check_finite(content["metrics"], file)
    try:
        return ResultFile(file, content, _queries(file, content))
    except DataError as error:
        return ResultFile(file, content, None, str(error))


def _check_finite(metrics: dict[str, Any], file: Path) -> None:
    for value in metrics.values():
        if isinstance(value, dict):
            _check_finite(value, file)
        elif isinstance(value, float) and not math.isfinite(value):
            raise DataError(f"{file}: a score is not finite: the file was changed or is damaged")


def _queries(file: Path, content: dict[str, Any]) -> pa.Table:
    """The table beside the result.

    Raises:
      DataError: it is missing, another, or damaged.
    """
    named = content.get("queries")
    if (
        not isinstance(named, dict)
        or not isinstance(named.get("name"), str)
        or not isinstance(named.get("sha256"), str)
    ):
        raise DataError(f"{file} names no table of queries: no intervals for it")
    if os.path.basename(named["name"]) != named["name"] or named["name"] in ("", ".", ".."):
        raise DataError(f"{file} names a table of queries in another folder, {printable(named['name'], 80)!r}")
    path = file.with_name(named["name"])
    if not path.is_file():
        raise DataError(f"{path} is not there: no intervals for {file.name}")
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != named["sha256"]:
        raise DataError(f"{path} is not the table that {file.name} was written with: no intervals for it")
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no Parquet table ({one_line(error, 120)}): no intervals for {file.name}") from error
    if not table.schema.equals(SCHEMA):
        raise DataError(f"{path} has other columns than this program's: no intervals for {file.name}")
    return table
