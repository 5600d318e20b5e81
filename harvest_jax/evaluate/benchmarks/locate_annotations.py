"""Finding the annotation files of a benchmark by their known names."""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import Benchmark
from harvest_jax.input.annotation_files import file_digest

_MAX_DEPTH = 8  # folders below the one that is given
_MAX_FILES = 2_000_000
NONE_GIVEN: Mapping[str, Path | None] = {}


class MissingAnnotations(DataError):
    """A benchmark's annotation files are not there."""


def locate(benchmark: Benchmark, path: Path, given: Mapping[str, Path | None] = NONE_GIVEN) -> dict[str, Path]:
    """The annotation files of a benchmark that are read: purpose -> path.

    In a folder each file is looked for by its known names, in the order in which the benchmark gives them, in all
    subfolders (at most 8 deep). Upper and lower case are the same. Several files of one name are accepted if their
    content is the same. Hidden files, linked folders, and links that lead out of the folder are skipped.

    Args:
      benchmark: what is needed.
      path: a folder; or the file itself, under any name, if the benchmark needs only one.
      given: by purpose the file that is read in place of the benchmark's own, which need not be there; None: none is.

    Raises:
      MissingAnnotations: there is no such folder, or a file is missing in it.
      DataError: there are several files of one name with different content, the path is one file of several, or one of
        `Benchmark.more_files` is missing.
    """
    found = _own_files(benchmark, path, {name: of for name, of in benchmark.files.items() if name not in given})
    found |= {name: file for name, file in given.items() if file is not None and name in benchmark.files}
    files = {name: found[name] for name in benchmark.files if name in found}
    return {**files, **benchmark.more_files(files)}


def _own_files(benchmark: Benchmark, path: Path, needed: Mapping[str, tuple[str, ...]]) -> dict[str, Path]:
    if os.path.isfile(path):
        if len(needed) == 1:
            return dict.fromkeys(needed, path)
        names = ", ".join(known[0] for known in needed.values())
        raise DataError(f"{path} is one file, but {benchmark.title} needs {len(needed)}: give the folder with {names}")
    if not os.path.isdir(path):
        raise MissingAnnotations(
            f"no file or folder {path} for the annotations of {benchmark.title}: {benchmark.source}"
        )
    below, outside = _find(path, {PurePosixPath(name).name.casefold() for known in needed.values() for name in known})
    return {purpose: _choose(benchmark, path, purpose, below, outside) for purpose in needed}


def _choose(benchmark: Benchmark, folder: Path, purpose: str, below: list[Path], outside: list[Path]) -> Path:
    names = benchmark.files[purpose]
    for name in names:
        found = [path for path in below if _is_called(path, folder, name)]
        if found:
            first = file_digest(found[0])
            other = next((path for path in found[1:] if file_digest(path) != first), None)
            if other is None:
                return found[0]
            raise DataError(
                f"{benchmark.title}: {found[0]} and {other} are both called {name} and differ: "
                "give the folder or the file that is meant"
            )
    linked = [path for path in outside if any(_is_called(path, folder, name) for name in names)]
    hint = f"; {linked[0]} is a link that leads out of the folder: give the folder it leads to" if linked else ""
    raise MissingAnnotations(
        f"{benchmark.title}: no file with the {purpose} in {folder}: it is called {' or '.join(names)}; "
        f"{benchmark.source}{hint}"
    )


def _is_called(path: Path, folder: Path, name: str) -> bool:
    """Whether the path ends in the name, which may hold folders; the folder that was given counts as one of them."""
    parts = [part.casefold() for part in (folder.absolute().name, *path.relative_to(folder).parts)]
    wanted = [part.casefold() for part in PurePosixPath(name).parts]
    return parts[-len(wanted) :] == wanted


def _find(folder: Path, names: set[str]) -> tuple[list[Path], list[Path]]:
    """Files with one of the names (casefolded), sorted: those below the folder, and links that lead out of it.

    Raises:
      DataError: the folder cannot be listed, or has too many files below it.
    """
    real = os.path.realpath(folder)
    inside: list[Path] = []
    outside: list[Path] = []
    count = 0
    try:
        os.listdir(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}") from error
    for parent, folders, files in os.walk(folder):
        deep = len(Path(parent).relative_to(folder).parts) >= _MAX_DEPTH
        folders[:] = [] if deep else sorted(name for name in folders if not name.startswith("."))
        count += len(files)
        if count > _MAX_FILES:
            raise DataError(f"{folder} has more than {_MAX_FILES:,} files below it: give the annotations' own folder")
        for name in files:
            if name.casefold() in names:
                path = Path(parent, name)
                leads_out = os.path.commonpath((real, os.path.realpath(path))) != real
                if os.path.isfile(path):
                    (outside if leads_out else inside).append(path)
    return sorted(inside), sorted(outside)
