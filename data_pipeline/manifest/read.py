"""Read the captioned videos to work on: checked rows, and a reject with its reason for every row that cannot be used.

A manifest is CSV, TSV, JSON (a list, or an object a line) or Parquet with `video` (path relative to the manifest's
folder or to `root`) and `caption`; optional `id` (default: the file's stem), `split`, `start` and `end` (seconds or
h:m:s, positions in the file). The layouts of well-known datasets are recognised (layouts.py). Every other column is
kept in `extra`. Instead of a manifest: a folder of WebDataset tars, a folder of videos with captions beside them, a
TFDS dataset, or a generated world (sources/).
"""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.manifest import layouts, tables
from data_pipeline.manifest.rows import DEFAULT_SPLIT, ClipRow, Reject, RowChecker, check_split
from data_pipeline.media_paths import MEDIA_SUFFIXES, VideoRejected, local_name, resolve_below
from data_pipeline.sources import generated_world, media_folder, tfds_folder, webdataset
from data_pipeline.sources.raw_row import ANSWER_COLUMNS, OWN_COLUMNS, RawRow, RowFault
from data_pipeline.sources.skipped_files import SkippedFiles
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.synthetic.rows import is_world
from harvest_jax.terminal import printable

_COLUMNS = (*OWN_COLUMNS, *ANSWER_COLUMNS, "type")  # that --columns may name
_MAX_HELD = 10_000  # rejects that wait for the first row whose split is known


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The rows and rejects of a manifest in its order; `root` is the real path that videos' names are relative to."""

    rows: list[ClipRow]
    rejects: list[Reject]
    root: Path

    @property
    def splits(self) -> list[str]:
        """The names of the splits, sorted, of rows and of rejects."""
        return sorted({row.split for row in self.rows} | {reject.split for reject in self.rejects})


@dataclasses.dataclass(frozen=True)
class ManifestStream:
    """The rows and rejects of all sources in their order; made by `iter_manifest`. Every `for` reads the files again.

    Memory: for each row that has been read, only what identifies a duplicate id is kept, 130 bytes
    (`benchmarks/manifest.py`), 1.3 GB for ten million rows.

    Attributes:
      sources: files and folders.
      root: real path of the folder that videos' names are relative to.
      split: only rows of this split are taken; None: all.
      fields: of a TFDS dataset, see `iter_manifest`.
      columns: of tables of others, see `iter_manifest`.
      rebased: names are relative to each manifest's own folder, and the root is a parent of several such folders.
      skipped: files in folders of videos that are none by their names; complete once all rows were read.

    Raises (while it is read):
      DataError: a source as a whole cannot be used: missing, unreadable, not UTF-8, without the columns that are
        needed, without rows; or no source has rows of this split. A fault in one row makes a Reject instead.
    """

    sources: tuple[Path, ...]
    root: Path
    split: str | None
    fields: str = ""
    columns: str = ""
    rebased: bool = False
    skipped: SkippedFiles = dataclasses.field(default_factory=SkippedFiles, compare=False)

    def __iter__(self) -> Iterator[ClipRow | Reject]:
        checker = RowChecker(self.root, self.split)
        names = _column_names(self.columns)
        self.skipped.clear()
        taken = False
        for source in self.sources:
            found = False
            for part in self._parts(source):
                checker.begin(part)
                for result in _with_splits(map(checker.check, self._raw_rows(part, names)), checker):
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

    def _raw_rows(self, source: Path, names: Mapping[str, str]) -> Iterator[RawRow]:
        if source.is_dir():
            name = self._below_root(source)
            if tfds_folder.is_dataset(source):
                return tfds_folder.read_rows(source, name, str(self.root), self.split, self.fields)
            return _media_rows(source, name, str(self.root), self.skipped)
        if webdataset.is_tar(source):
            return webdataset.read_rows(source, self._below_root(source))
        if is_world(source):
            return generated_world.read_rows(source, self._below_root(source), self.split)
        folder = self._below_root(source.parent) if self.rebased else ""
        return _table_rows(source, self.root / folder, "" if folder == "." else folder, names)

    def _below_root(self, path: Path) -> str:
        """The path's name relative to the root.

        Raises:
          DataError: it is not below the root, or a link leads out of the root.
        """
        real = os.path.realpath(path) if path.is_dir() else os.path.join(os.path.realpath(path.parent), path.name)
        name = local_name(os.path.relpath(real, self.root))
        try:
            if name != ".":
                resolve_below(str(self.root), name)
        except VideoRejected as error:
            raise DataError(
                f"{path} is not below {self.root} ({error.reason.split(';')[0]}): set --root to a folder that holds "
                "it and the target of the link, if it is one"
            ) from error
        return name


def iter_manifest(
    sources: Sequence[str | Path],
    root: str | Path | None = None,
    split: str | None = None,
    fields: str = "",
    columns: str = "",
) -> ManifestStream:
    """The clips of manifests, tars, folders and datasets, one at a time and checked.

    Args:
      sources: .csv, .tsv, .jsonl, .json and .parquet files, .tar files, folders (of tars, a TFDS dataset, of videos).
      root: folder that videos' names are relative to, and below which all of them are; default: the source's own
        folder, of several sources the deepest folder that holds them all.
      split: if a source has a column `split`, only the rows of this split are taken; otherwise the name that all rows
        get (default "train").
      fields: which fields of a TFDS dataset are the clip, its captions and its id, if that is not clear:
        "video=frames,caption=text,id=key".
      columns: which columns of tables are ours: "video=path,caption=text".

    Raises:
      DataError: no sources, no such file or folder, `split` cannot be the name of a split.
      ConfigError: `columns` has another form.
    """
    _column_names(columns)
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
    return ManifestStream(paths, real_root, split, fields, columns, rebased=root is None)


def read_manifest(path: str | Path, root: str | Path | None = None, split: str | None = None) -> Manifest:
    """Read a manifest (or another source of `iter_manifest`) into memory.

    Args:
      path: a .csv, .tsv, .jsonl, .json or .parquet file, a .tar file or a folder.
      root: as for `iter_manifest`; default: the manifest's folder.
      split: as for `iter_manifest`.

    Raises:
      DataError: the file as a whole cannot be used, see `ManifestStream`. A fault in one row makes a Reject.
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


def names_splits(path: str | Path) -> bool:
    """Whether a manifest has a column `split`; folders and tars have none.

    Raises:
      DataError: the file cannot be read.
    """
    path = Path(path)
    if path.is_dir() or webdataset.is_tar(path):
        return False
    return any("split" in line.cells for line in itertools.islice(tables.read_rows(path), 1))


def _with_splits(results: Iterable[ClipRow | Reject | None], checker: RowChecker) -> Iterator[ClipRow | Reject | None]:
    """The results of one source; rejects that come before any split is known wait until one is.

    Raises:
      DataError: the rows name splits, and none of the names can be used.
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
            yield from (dataclasses.replace(early, split=checker.reject_split) for early in held)
            held.clear()
        if not waits:
            yield result
    checker.end()
    yield from (dataclasses.replace(early, split=checker.reject_split) for early in held)


def _column_names(asked: str) -> dict[str, str]:
    """Our name of each column of theirs that is named in "video=path,caption=text".

    Raises:
      ConfigError: it has another form, or names a column that is not ours.
    """
    names: dict[str, str] = {}
    for part in filter(None, asked.split(",")):
        own, _, theirs = part.partition("=")
        if own not in _COLUMNS or not theirs or theirs in names or own in names.values():
            raise ConfigError(
                f"--columns {asked}: write it like video=path,caption=text; ours are {', '.join(_COLUMNS)}, each once"
            )
        names[theirs] = own
    return names


def _media_rows(folder: Path, name: str, root: str, skipped: SkippedFiles) -> Iterator[RawRow]:
    """The clips of a folder of videos.

    Raises:
      DataError: it holds no video, or no video has a caption and there is a manifest in the folder.
    """
    found = usable = False
    for row in media_folder.read_rows(folder, name, root, skipped):
        found, usable = True, usable or not row.fault
        yield row
    manifests = [] if usable else tables.manifests_in(folder)
    hint = f"to use the manifest in it, give --manifest {manifests[0]}" if manifests else ""
    if not found:
        raise DataError(
            f"{folder} is a folder without clips: no .tar files, no TFDS dataset (dataset_info.json), no videos or "
            f"pictures ({' '.join(MEDIA_SUFFIXES)}){hint and '; '}{hint}"
        )
    if hint:
        raise DataError(f"{folder}: no video in it has a caption beside it (NAME.txt or NAME.json); {hint}")


def _table_rows(path: Path, root: Path, folder: str, names: Mapping[str, str]) -> Iterator[RawRow]:
    """The rows of a manifest file in our own columns, whatever the file's layout.

    Args:
      path: the file.
      root: the folder that its names are relative to.
      folder: the same below the root.
      names: our names of columns that have others in the file; then it is in no known layout.
    """
    layout, first_fault = None, ""
    for line in tables.read_rows(path):
        if layout is None and line.cells:
            found = printable(", ".join(map(str, line.cells)), 300)
            if missing := [name for name in names if name not in line.cells]:
                raise DataError(f"{path} has no column {missing[0]!r}, which --columns names; it has {found}")
            layout = layouts.recognise(_renamed(line.cells, names), known=not names)
            if layout is None:
                raise DataError(
                    f"{path} lacks columns: it needs video and caption (or, instead of caption, one of "
                    f"{', '.join(ANSWER_COLUMNS)}); it has {found} (name others with --columns video=NAME,caption=NAME)"
                )
        fault = line.fault or ("" if layout else "no cells")
        if layout is None or fault:
            first_fault = first_fault or f"{path}, line {line.number}: {fault}"
            # the cells may be under the wrong columns, so none of them is used as a split
            cells = _renamed(line.cells, names) | {"split": None}
            yield RawRow(line.number, cells, f"bad row: {fault}", folder=folder)
            continue
        own = _renamed(line.cells, names)
        try:
            missing = sorted(layout.columns - set(own))
            if missing:
                raise RowFault(f"no {', '.join(missing)}")
            for cells in layout.expand(own, root):
                yield RawRow(line.number, cells, folder=folder)
        except RowFault as problem:
            yield RawRow(line.number, {"split": None} | own, f"bad row: {problem}", folder=folder)
        except RecursionError:
            fault = "bad row: its lists are nested too deeply"
            yield RawRow(line.number, {"split": None}, fault, folder=folder)
    if layout is None and first_fault:  # not one usable line: it is another kind of file
        raise DataError(first_fault)


def _renamed(cells: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The cells with our names of the columns; a column that had such a name before is left out."""
    if not names:
        return cells
    kept = {name: value for name, value in cells.items() if name not in names and name not in names.values()}
    return kept | {own: cells[theirs] for theirs, own in names.items() if theirs in cells}
