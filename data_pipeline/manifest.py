"""The captioned videos to work on: a manifest file in, checked rows out, and a reject with its reason for every other.

A manifest is CSV, TSV, JSON lines or Parquet with `video` (path relative to the manifest's folder or to `root`) and
`caption`; optional `id` (default: the file's stem), `split`, `start` and `end` (seconds or h:m:s, positions in the
file). Other people's layouts are recognised (manifest_layouts.py). Every other column is kept in `extra`.
"""

import dataclasses
import datetime
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline import manifest_layouts, manifest_tables
from data_pipeline.manifest_layouts import ANSWERS, OWN, RowFault
from data_pipeline.media_paths import VideoRejected, resolve_below
from harvest_jax.errors import DataError

DEFAULT_SPLIT = "train"
MAX_CAPTION = 10_000  # characters of one caption; of all other columns together ten times as many
_MAX_ID = 256
_SPLIT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)")


@dataclasses.dataclass(frozen=True)
class Place:
    """Which part of a file is the clip's: all of it, or what another program packed there.

    `offset` and `size`, in bytes: a tar's member, a TFRecord's record. `record`: the number of an ArrayRecord's record.
    `field`: the bytes are a `tf.train.Example`, and the clip is in this field of it.
    """

    offset: int | None = None
    size: int | None = None
    record: int | None = None
    field: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """A clip and what is said about it.

    `video` is a file, relative to the manifest's root, and `place` the part of it; `start` and `end` are seconds in the
    clip's own bytes, None their ends; `captions` may be empty where `extra` holds a question, a label or options.
    """

    id: str
    video: str
    captions: tuple[str, ...]
    split: str
    start: float | None = None
    end: float | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    place: Place = Place()


@dataclasses.dataclass(frozen=True)
class Reject:
    """A row that was not used. `id` is "line N" where it has none; `reason` reads "kind: detail"."""

    id: str
    video: str
    reason: str
    split: str = ""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a manifest file holds, in its order; `root` is the real path of the folder that videos are read below."""

    rows: list[Row]
    rejects: list[Reject]
    root: Path

    @property
    def splits(self) -> list[str]:
        """The names of the splits, sorted, of rows and of rejects."""
        return sorted({row.split for row in self.rows} | {reject.split for reject in self.rejects})


def read_manifest(path: str | Path, root: str | Path | None = None, split: str | None = None) -> Manifest:
    """Read and check a manifest.

    Args:
      path: a .csv, .tsv, .jsonl or .parquet file.
      root: folder below which all videos lie; default: the manifest's.
      split: with a `split` column only the rows of this split are taken; without one, all rows get this name ("train").

    Raises:
      DataError: the file as a whole cannot be used: missing, unreadable, not UTF-8, without the columns that are
        needed, without rows, without this split. What is wrong with one row makes a Reject instead.
    """
    path = Path(path)
    real_root = Path(os.path.realpath(path.parent if root is None else root))
    check_split(split or DEFAULT_SPLIT)
    if not real_root.is_dir():
        raise DataError(f"no folder {root if root is not None else path.parent} to read videos from")
    checker = _Checker(path, real_root, split)
    for line, cells in _own_cells(path, real_root, checker):
        checker.add(line, cells)
    if not checker.count:
        raise DataError(f"{path} has no rows")
    manifest = Manifest(checker.rows, checker.rejects, real_root)
    if not (manifest.rows or manifest.rejects):
        raise DataError(
            f"{path} has no rows of the split {split!r}; its splits: {', '.join(sorted(checker.other_splits))}"
        )
    return manifest


def check_split(name: str) -> None:
    """Refuse names that the dataset's files cannot carry.

    Raises:
      DataError: not letters, digits and underscores, or the reserved "all".
    """
    if not _SPLIT_NAME.fullmatch(name) or name == "all" or len(name) > 64:
        raise DataError(f"{name!r} cannot name a split: use letters, digits and underscores, and not 'all'")


def _own_cells(path: Path, root: Path, checker: "_Checker") -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows in our own columns, whatever the file's layout; broken lines go to the checker at once."""
    layout, first_fault = None, ""
    for line in manifest_tables.read_lines(path):
        if layout is None and line.cells:
            layout = manifest_layouts.recognise(line.cells)
            if layout is None:
                raise DataError(
                    f"{path} lacks columns: it needs video and caption (or, instead of caption, one of "
                    f"{', '.join(ANSWERS)}); it has {', '.join(map(str, line.cells))[:300]}"
                )
        if line.fault or layout is None:
            first_fault = first_fault or f"{path}, line {line.number}: {line.fault or 'no cells'}"
            checker.reject(line.number, line.cells, f"bad row: {line.fault or 'no cells'}")
            continue
        try:
            missing = sorted(layout.columns - set(line.cells))
            if missing:
                raise RowFault(f"no {', '.join(missing)}")
            for cells in layout.expand(line.cells, root):
                yield line.number, cells
        except RowFault as fault:
            checker.reject(line.number, line.cells, f"bad row: {fault}")
    if layout is None and first_fault:  # not one usable line: the file is something else
        raise DataError(first_fault)


class _Checker:
    """Turns cells into rows and rejects, and remembers which ids are taken."""

    def __init__(self, path: Path, root: Path, split: str | None):
        self.path, self.root, self.split = path, str(root), split
        self.rows: list[Row] = []
        self.rejects: list[Reject] = []
        self.count = 0
        self.other_splits: set[str] = set()
        self._taken: dict[str, tuple[int, str]] = {}  # line and video of each id

    def add(self, line: int, cells: dict[str, Any]) -> None:
        """Check one row in our own columns."""
        self.count += 1
        split = self._split_of(cells)
        if self.split is not None and split not in (self.split, ""):
            self.other_splits.add(split)
            return
        try:
            row = self._row(line, cells, split)
        except (RowFault, VideoRejected) as fault:
            self._reject(line, cells, fault.reason if isinstance(fault, VideoRejected) else str(fault), split)
        else:
            self._taken[row.id] = line, row.video
            self.rows.append(row)

    def reject(self, line: int, cells: dict[str, Any], reason: str) -> None:
        """Put down a row that is broken as a whole, unless it is clearly of another split."""
        self.count += 1
        split = self._split_of(cells)
        if self.split is None or split in (self.split, ""):
            self._reject(line, cells, reason, split)

    def _reject(self, line: int, cells: dict[str, Any], reason: str, split: str) -> None:
        name, video = (_printable(cells.get(column)) for column in ("id", "video"))
        self.rejects.append(Reject(name or f"line {line}", video, reason, split or self.split or DEFAULT_SPLIT))

    def _split_of(self, cells: dict[str, Any]) -> str:
        """The row's split; "" where the column is there and the cell is empty."""
        if "split" not in cells:
            return self.split or DEFAULT_SPLIT
        name = str(cells["split"] or "").strip()
        if name:
            try:
                check_split(name)
            except DataError as error:
                raise DataError(f"{self.path}: {error}") from error
        return name

    def _row(self, line: int, cells: dict[str, Any], split: str) -> Row:
        if not split:
            raise RowFault("bad split: the cell is empty")
        video = cells.get("video")
        if not isinstance(video, str) or not video.strip():
            raise RowFault("bad path: no video is named")
        video = video.strip()
        resolve_below(self.root, video)
        start, end = _seconds(cells.get("start"), "start"), _seconds(cells.get("end"), "end")
        if end is not None and end <= (start or 0.0):
            raise RowFault(f"bad span: it ends at {end:g} s, not after its start at {start or 0:g} s")
        extra = {str(name): _jsonable(value) for name, value in cells.items() if name not in OWN}
        text = json.dumps(extra, ensure_ascii=False)
        if len(text) > 10 * MAX_CAPTION:
            raise RowFault(f"too much text: the other columns hold more than {10 * MAX_CAPTION:,} characters")
        _encodable(text + video, "a column")
        captions = _captions(cells, answers=any(extra.get(name) not in (None, "") for name in ANSWERS))
        return Row(self._id(line, cells, video, start, end), video, captions, split, start, end, extra)

    def _id(self, line: int, cells: dict[str, Any], video: str, start: float | None, end: float | None) -> str:
        given = cells.get("id")
        if given is None or given == "":
            span = "".join(f"_{time:g}" for time in (start, end) if time is not None)
            stem = video.rpartition(".")[0] or video
            # with its folder, or its ending too, where another file has the name
            candidates = [f"{stem.rpartition('/')[2]}{span}", f"{stem}{span}", f"{video}{span}"]
        else:
            candidates = [str(given).strip()]
        for name in candidates:
            if not name or len(name) > _MAX_ID or not name.isprintable():
                raise RowFault(f"bad id: it is empty, longer than {_MAX_ID} characters or holds control characters")
            if name not in self._taken:
                return name
            other, its_video = self._taken[name]
            if its_video == video:
                break
        raise RowFault(
            f"duplicate id: {name!r} is line {other}'s (several captions of one clip go into one row, as a list in a "
            ".jsonl file)"
        )


def _captions(cells: dict[str, Any], answers: bool) -> tuple[str, ...]:
    value = cells.get("caption", cells.get("captions"))
    texts = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in texts):
        raise RowFault("bad caption: it is neither a text nor a list of texts")
    captions = tuple(text.strip() for text in texts if text.strip())
    if not captions and not answers:
        raise RowFault("empty caption")
    longest = max(map(len, captions), default=0)
    if longest > MAX_CAPTION:
        raise RowFault(f"enormous caption: {longest:,} characters, more than {MAX_CAPTION:,}")
    for caption in captions:
        _encodable(caption, "the caption")
    return captions


def _seconds(value: Any, column: str) -> float | None:
    """A time in seconds from a number or from h:m:s; None for an empty cell."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    clock = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    try:
        seconds = 3600.0 * int(clock[1] or 0) + 60.0 * int(clock[2]) + float(clock[3]) if clock else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RowFault(f"bad span: {column} {str(value)[:40]!r} is neither seconds nor h:m:s") from error
    if not 0 <= seconds < 1e7:  # also catches nan
        raise RowFault(f"bad span: {column} {seconds:g} s lies before 0 or months later")
    return seconds


def _jsonable(value: Any) -> Any:
    """As JSON can hold it: dates as text, what is not a number as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, dict):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def _encodable(text: str, what: str) -> None:
    """JSON can spell half a character (a lone surrogate), which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowFault(f"bad text: {what} holds half a character (a lone surrogate)") from error


def _printable(value: Any) -> str:
    return "" if value is None else str(value)[:1000].encode(errors="replace").decode()
