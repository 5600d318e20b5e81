"""The captioned videos to work on: a manifest file in, checked rows out, and a reject with its reason for every other.

A manifest is CSV, TSV, JSON lines or Parquet with `video` (path relative to the manifest's folder or to `root`) and
`caption`; optional `id` (default: the file's stem), `split`, `start` and `end` (seconds or h:m:s, positions in the
file). Other people's layouts are recognised (layouts.py). Every other column is kept in `extra`. A folder of
WebDataset tars, of videos with captions beside them, or a TFDS dataset does in its place (sources/).
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data_pipeline.manifest import layouts, tables
from data_pipeline.manifest.rows import DEFAULT_SPLIT, ClipRow, Reject, RowChecker, check_split
from data_pipeline.media_paths import VideoRejected, local_name, resolve_below
from data_pipeline.sources import media_folder, tfds_folder, webdataset
from data_pipeline.sources.raw_row import ANSWER_COLUMNS, RawRow, RowFault
from harvest_jax.errors import DataError
from harvest_jax.terminal import printable

_MAX_HELD = 10_000  # rejects that wait for a first row which says what its split is


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a manifest file holds, in its order; `root` is the real path of the folder that videos are read below."""

    rows: list[ClipRow]
    rejects: list[Reject]
    root: Path

    @property
    def splits(self) -> list[str]:
        """The names of the splits, sorted, of rows and of rejects."""
        return sorted({row.split for row in self.rows} | {reject.split for reject in self.rejects})


@dataclasses.dataclass(frozen=True)
class ManifestStream:
    """The rows and rejects of all sources in their order, read anew by every `for`; made by `iter_manifest`.

    `root` is the real path of the folder that videos are read below. Of the rows that have gone by, only what tells a
    duplicate id is kept: 130 bytes a row (`benchmarks/manifest.py`), 1.3 GB for ten million.

    Raises (while it is read):
      DataError: a source as a whole cannot be used: missing, unreadable, not UTF-8, without the columns that are
        needed, without rows; or none has rows of this split. What is wrong with one row makes a Reject instead.
    """

    sources: tuple[Path, ...]
    root: Path
    split: str | None
    fields: str = ""
    rebased: bool = False  # names are relative to each manifest's own folder, below a root that holds several of them

    def __iter__(self) -> Iterator[ClipRow | Reject]:
        checker = RowChecker(self.root, self.split)
        taken = False
        for source in self.sources:
            found = False
            for part in self._parts(source):
                checker.begin(part)
                for result in _with_splits(map(checker.check, self._lines(part)), checker):
                    found = True
                    if result is not None:
                        taken = True
                        yield result
            if not found:
                raise DataError(f"{source} has no rows")
        if not taken:
            sources = str(self.sources[0]) + (f" and {len(self.sources) - 1} more" if len(self.sources) > 1 else "")
            others = ", ".join(sorted(checker.other_splits))
            raise DataError(f"{sources} has no rows of the split {self.split!r}; its splits: {others}")

    def _parts(self, source: Path) -> list[Path]:
        if source.is_dir() and not tfds_folder.is_dataset(source):
            return webdataset.tars_of(source) or [source]
        return [source]

    def _lines(self, source: Path) -> Iterator[RawRow]:
        if source.is_dir():
            name = self._below_root(source)
            if tfds_folder.is_dataset(source):
                return tfds_folder.read_lines(source, name, str(self.root), self.split, self.fields)
            return media_folder.read_lines(source, name, str(self.root))
        if webdataset.is_tar(source):
            return webdataset.read_lines(source, self._below_root(source))
        folder = self._below_root(source.parent) if self.rebased else ""
        return _table_lines(source, self.root / folder, "" if folder == "." else folder)

    def _below_root(self, path: Path) -> str:
        """The path's name below the root.

        Raises:
          DataError: it lies elsewhere, or is a link to elsewhere.
        """
        real = os.path.realpath(path) if path.is_dir() else os.path.join(os.path.realpath(path.parent), path.name)
        name = local_name(os.path.relpath(real, self.root))
        try:
            if name != ".":
                resolve_below(str(self.root), name)
        except VideoRejected as error:
            raise DataError(
                f"{path} does not lie below {self.root} ({error.reason.split(';')[0]}): give --root a folder that "
                "holds it, and what it is a link to"
            ) from error
        return name


def iter_manifest(
    sources: Sequence[str | Path], root: str | Path | None = None, split: str | None = None, fields: str = ""
) -> ManifestStream:
    """The clips of manifests, tars, folders and datasets, one at a time and checked.

    Args:
      sources: .csv, .tsv, .jsonl and .parquet files, .tar files, folders (of tars, a TFDS dataset, of videos).
      root: folder below which all videos lie, and that their names are relative to; default: the source's own folder,
        of several the deepest one that holds them all.
      split: where a source has splits only the rows of this one are taken; elsewhere all rows get this name ("train").
      fields: which fields of a TFDS dataset are the clip, its captions and its id, where that is not clear:
        "video=frames,caption=text,id=key".

    Raises:
      DataError: no sources, no such file or folder, the split cannot be a name of one.
    """
    paths = tuple(Path(source) for source in sources)
    if not paths:
        raise DataError("no manifest was given")
    check_split(split or DEFAULT_SPLIT)
    homes = [path if path.is_dir() else path.parent for path in paths]
    for home in homes:
        if not home.is_dir():
            raise DataError(f"no folder {home} to read videos from")
    if root is not None and not Path(root).is_dir():
        raise DataError(f"no folder {root} to read videos from")
    real = [os.path.realpath(home) for home in homes]
    real_root = Path(os.path.commonpath(real) if root is None else os.path.realpath(root))
    return ManifestStream(paths, real_root, split, fields, rebased=root is None)


def read_manifest(path: str | Path, root: str | Path | None = None, split: str | None = None) -> Manifest:
    """Read and check a manifest (or another source of `iter_manifest`) at once.

    Args:
      path: a .csv, .tsv, .jsonl or .parquet file, a .tar file or a folder.
      root: folder below which all videos lie; default: the manifest's.
      split: with a `split` column only the rows of this split are taken; without one, all rows get this name ("train").

    Raises:
      DataError: the file as a whole cannot be used, see `ManifestStream`. What is wrong with one row makes a Reject.
    """
    stream = iter_manifest([path], root, split)
    rows: list[ClipRow] = []
    rejects: list[Reject] = []
    for result in stream:
        if isinstance(result, ClipRow):
            rows.append(result)
        else:
            rejects.append(result)
    return Manifest(rows, rejects, stream.root)


def _with_splits(results: Iterable[ClipRow | Reject | None], checker: RowChecker) -> Iterator[ClipRow | Reject | None]:
    """The results of one source; rejects that come before any split is known are held back until one is.

    Raises:
      DataError: no row has a split that can be one, and some should.
    """
    held: list[Reject] = []
    for result in results:
        waits = isinstance(result, Reject) and not result.split
        if isinstance(result, Reject) and waits:
            held.append(result)
            if len(held) < _MAX_HELD:
                continue
        if held:
            checker.end()
            yield from (dataclasses.replace(early, split=checker.home) for early in held)
            held.clear()
        if not waits:
            yield result
    checker.end()
    yield from (dataclasses.replace(early, split=checker.home) for early in held)


def _table_lines(path: Path, root: Path, folder: str) -> Iterator[RawRow]:
    """The rows in our own columns, whatever the file's layout."""
    layout, first_fault = None, ""
    for line in tables.read_lines(path):
        if layout is None and line.cells:
            layout = layouts.recognise(line.cells)
            if layout is None:
                raise DataError(
                    f"{path} lacks columns: it needs video and caption (or, instead of caption, one of "
                    f"{', '.join(ANSWER_COLUMNS)}); it has {printable(', '.join(map(str, line.cells)), 300)}"
                )
        fault = line.fault or ("" if layout else "no cells")
        if layout is None or fault:
            first_fault = first_fault or f"{path}, line {line.number}: {fault}"
            # the cells may stand under the wrong columns: none of them is believed to be a split
            yield RawRow(line.number, line.cells | {"split": None}, f"bad row: {fault}", folder=folder)
            continue
        try:
            missing = sorted(layout.columns - set(line.cells))
            if missing:
                raise RowFault(f"no {', '.join(missing)}")
            for cells in layout.expand(line.cells, root):
                yield RawRow(line.number, cells, folder=folder)
        except RowFault as problem:
            yield RawRow(line.number, {"split": None} | line.cells, f"bad row: {problem}", folder=folder)
        except RecursionError:
            fault = "bad row: lists within lists within lists, too deep to be read"
            yield RawRow(line.number, {"split": None}, fault, folder=folder)
    if layout is None and first_fault:  # not one usable line: the file is something else
        raise DataError(first_fault)
