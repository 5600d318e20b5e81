"""One row of a manifest: what it may say, and every way in which it cannot be used, with its reason."""

import bisect
import dataclasses
import datetime
import json
import math
import posixpath
import re
import zlib
from pathlib import Path
from typing import Any

from data_pipeline.media_paths import WHOLE_FILE, FilePart, VideoRejected, check_name, is_one_line, resolve_below
from data_pipeline.sources.raw_row import ANSWER_COLUMNS, MAX_EXTRA, OWN_COLUMNS, RawRow, RowFault
from harvest_jax.errors import DataError

DEFAULT_SPLIT = "train"
MAX_CAPTION = 10_000  # characters of one caption
_MAX_ID = 256
_SPLIT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)")


@dataclasses.dataclass(frozen=True)
class ClipRow:
    """A clip and what is said about it.

    `video` is a file, relative to the manifest's root, and `part` the part of it; `start` and `end` are seconds in the
    clip's own bytes, None their ends; `captions` may be empty where `extra` holds a question, a label or options.
    """

    id: str
    video: str
    captions: tuple[str, ...]
    split: str
    start: float | None = None
    end: float | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    part: FilePart = WHOLE_FILE


@dataclasses.dataclass(frozen=True)
class Reject:
    """A row that was not used. `id` is "line N" where it has none; `reason` reads "kind: detail".

    `split` is the one among whose rejects it is listed: its own or, where that is not known, the source's first.
    """

    id: str
    video: str
    reason: str
    split: str = ""


def check_split(name: str) -> None:
    """Refuse names that the dataset's files cannot carry.

    Raises:
      DataError: not letters, digits and underscores, or the reserved "all".
    """
    if not _SPLIT_NAME.fullmatch(name) or name == "all" or len(name) > 64:
        raise DataError(f"{name[:80]!r} cannot name a split: use letters, digits and underscores, and not 'all'")


class RowChecker:
    """Turns the lines of one source after the other into rows and rejects, and remembers which ids are taken.

    What it remembers of a row is its id and one number, see `_taken`.

    Attributes:
      other_splits: those that were not wanted.
      home: where the source's rejects are listed whose split is not known; "" before the first one that is.
    """

    def __init__(self, root: Path, split: str | None):
        self.root, self.split = str(root), split
        self.other_splits: set[str] = set()
        self.home = split or ""
        # of each id: where it was (lines counted over all sources) and a checksum of its clip, packed into one number
        self._taken: dict[str, int] = {}
        self._sources: list[Path] = []
        self._begins: list[int] = []  # the number of lines before each source
        self._place = 0
        self._named = False  # whether a row of this source has a split that can be one
        self._bad_split = ""  # what is wrong with the first that cannot

    def begin(self, source: Path) -> None:
        """The lines that follow are this source's."""
        self._sources.append(source)
        self._begins.append(self._place)
        self.home, self._named, self._bad_split = self.split or "", False, ""

    def end(self) -> None:
        """No more lines follow that could say what the splits are.

        Raises:
          DataError: no row named a split that can be one, but some tried to.
        """
        if self._bad_split and not self._named:
            raise DataError(f"{self._sources[-1]}: {self._bad_split}")
        self.home = self.home or DEFAULT_SPLIT

    def check(self, line: RawRow) -> ClipRow | Reject | None:
        """A line in our own columns as a row or a reject; None where it is of a split that is not wanted.

        A reject's split is "" where neither it nor any line before it says what it is.
        """
        self._place = self._begins[-1] + line.number
        split = ""
        try:
            split = self._split_of(line.cells)
            if self.split is not None and split not in (self.split, ""):
                self.other_splits.add(split)
                return None
            if line.fault:
                raise RowFault(line.fault)
            row = self._row(line, split)
        except VideoRejected as fault:
            return self._reject(line, fault.reason, split)
        except RowFault as fault:
            return self._reject(line, str(fault), split)
        except RecursionError:
            return self._reject(line, "bad row: its lists are nested too deeply", split)
        self._taken[row.id] = self._place << 32 | _checksum(line.clip or row.video, row.start, row.end)
        return row

    def _reject(self, line: RawRow, reason: str, split: str) -> Reject:
        name, video = (_printable(line.cells.get(column)) for column in ("id", "video"))
        if line.folder and video:
            video = f"{line.folder}/{video}"
        default = _printable(_stem(line.clip)) if line.clip else f"line {line.number}"
        return Reject(name or default, video, reason, split or self.home)

    def _split_of(self, cells: dict[str, Any]) -> str:
        """The row's split; "" where the column is there and the cell is empty."""
        name = str(cells["split"] or "").strip() if "split" in cells else self.split or DEFAULT_SPLIT
        if not name:
            return ""
        try:
            check_split(name)
        except DataError as error:
            self._bad_split = self._bad_split or str(error)
            raise RowFault(f"bad split: {error}") from error
        self._named = True
        self.home = self.home or name
        return name

    def _row(self, line: RawRow, split: str) -> ClipRow:
        cells = line.cells
        if not split:
            raise RowFault("bad split: the cell is empty")
        video = cells.get("video")
        if not isinstance(video, str) or not video.strip():
            raise RowFault("bad path: no video is named")
        video = video.strip()
        check_name(video)
        if line.folder:
            video = f"{line.folder}/{video}"
        resolve_below(self.root, video)
        start, end = _seconds(cells.get("start"), "start"), _seconds(cells.get("end"), "end")
        if end is not None and end <= (start or 0.0):
            raise RowFault(f"bad span: it ends at {end:.10g} s, not after its start at {start or 0:.10g} s")
        others = (
            {name: value for name, value in cells.items() if name not in OWN_COLUMNS}
            if line.extra is None
            else line.extra
        )
        extra = {str(name): _jsonable(value) for name, value in others.items()}
        text = json.dumps(extra, ensure_ascii=False)
        if len(text) > MAX_EXTRA:
            if line.extra is None:
                raise RowFault(f"too much text: the other columns hold more than {MAX_EXTRA:,} characters")
            extra = _smallest(extra)  # what a program wrote beside the clip (subtitles, say) is no reason to lose it
        _encodable(text + video, "a column")
        captions = _captions(cells, answers=any(extra.get(name) not in (None, "") for name in ANSWER_COLUMNS))
        name = self._id(cells.get("id"), line.clip or video, start, end)
        return ClipRow(name, video, captions, split, start, end, extra, line.part)

    def _id(self, given: Any, clip: str, start: float | None, end: float | None) -> str:
        if given is None or given == "":
            span = "".join(f"_{time:.10g}" for time in (start, end) if time is not None)
            stem = posixpath.splitext(clip)[0]
            # with its folder, with both ends, or with its ending too, where another clip has the name
            both = f"_{start or 0:.10g}_{'end' if end is None else f'{end:.10g}'}" if span else ""
            candidates = [f"{posixpath.basename(stem)}{span}", f"{stem}{span}", f"{stem}{both}", f"{clip}{span}"]
        elif isinstance(given, str | int) and not isinstance(given, bool):
            candidates = [str(given).strip()]
        else:
            raise RowFault("bad id: it is neither a text nor a whole number")
        for name in candidates:
            if not name or len(name) > _MAX_ID or not is_one_line(name):
                raise RowFault(f"bad id: it is empty, longer than {_MAX_ID} characters or holds control characters")
            if name not in self._taken:
                return name
            if self._taken[name] & 0xFFFFFFFF == _checksum(clip, start, end):
                break
        raise RowFault(
            f"duplicate id: {name!r} is {self._whose(name)} (several captions of one clip go into one row, as a list "
            "in a .jsonl file)"
        )

    def _whose(self, name: str) -> str:
        place = self._taken[name] >> 32
        source = bisect.bisect_left(self._begins, place) - 1
        line = f"line {place - self._begins[source]}'s"
        return line if source == len(self._sources) - 1 else f"{line} of {self._sources[source].name}"


def _stem(clip: str) -> str:
    return posixpath.splitext(posixpath.basename(clip))[0]


def _checksum(clip: str, start: float | None, end: float | None) -> int:
    return zlib.crc32(f"{clip} {start} {end}".encode())


def _smallest(extra: dict[str, Any]) -> dict[str, Any]:
    """As many of the columns as are allowed together; the largest are left out."""
    sizes = {name: len(json.dumps({name: value}, ensure_ascii=False)) for name, value in extra.items()}
    total = sum(sizes.values())
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if total <= MAX_EXTRA:
            break
        total -= sizes.pop(name)
    return {name: value for name, value in extra.items() if name in sizes}


def _captions(cells: dict[str, Any], answers: bool) -> tuple[str, ...]:
    captions = _texts(cells.get("caption")) or _texts(cells.get("captions"))
    if not captions and not answers:
        raise RowFault("empty caption")
    longest = max(map(len, captions), default=0)
    if longest > MAX_CAPTION:
        raise RowFault(f"enormous caption: {longest:,} characters, more than {MAX_CAPTION:,}")
    for caption in captions:
        _encodable(caption, "the caption")
    return captions


def _texts(value: Any) -> tuple[str, ...]:
    texts = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in texts):
        raise RowFault("bad caption: it is neither a text nor a list of texts")
    return tuple(text.strip() for text in texts if text.strip())


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
