"""One row of a manifest: its checks, and the reason for every fault."""

import bisect
import dataclasses
import datetime
import json
import math
import os
import posixpath
import re
import zlib
from pathlib import Path
from typing import Any

from data_pipeline.media_paths import (
    WHOLE_FILE,
    FilePart,
    VideoRejected,
    check_name,
    is_one_line,
    resolve_below,
    visible,
    wrong_byte,
)
from data_pipeline.sources.raw_row import ANSWER_COLUMNS, MAX_EXTRA, OWN_COLUMNS, RawRow, RowFault
from harvest_jax.errors import DataError

DEFAULT_SPLIT = "train"
MAX_CAPTION = 10_000  # characters of one caption
_MAX_ID = 256
_SPLIT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")  # a comma as in subtitles (.srt)
_TIMECODE = re.compile(r"\d+:\d+:\d+[:;]\d+")
_COMMA = re.compile(r"\d+,\d+")
_UNIT = re.compile(r"\s*(?:s|secs?|seconds?)$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class ClipRow:
    """A clip and its texts.

    Attributes:
      id: unique in the manifest.
      video: file name, relative to the manifest's root.
      captions: may be empty if `extra` has a question, a label or options.
      split: name of the split.
      start, end: seconds in the video; None: its start, its end.
      extra: the other columns.
      part: which part of the file is the video.
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
    """A row that cannot be used.

    Attributes:
      id: "line N" if it has none.
      video: file name as given.
      reason: in the form "kind: detail".
      split: its split, or the source's first split if that is not known.
    """

    id: str
    video: str
    reason: str
    split: str = ""


def check_split(name: str) -> None:
    """Refuse names that cannot be part of the names of the dataset's files.

    Raises:
      DataError: not letters, digits and underscores, or the reserved "all".
    """
    if not _SPLIT_NAME.fullmatch(name) or name == "all" or len(name) > 64:
        raise DataError(f"{name[:80]!r} cannot name a split: use letters, digits and underscores, and not 'all'")


class RowChecker:
    """Checks the rows of one source after the other, and remembers which ids are taken.

    Attributes:
      other_splits: names of splits whose rows were skipped.
      reject_split: the split for rejects whose own split is not known; "" until a row of the source names a split.
    """

    def __init__(self, root: Path, split: str | None):
        self.root, self.split = str(root), split
        self.other_splits: set[str] = set()
        self.reject_split = split or ""
        # for each id: its line, counted over all sources, << 32, and a checksum of its clip
        self._taken: dict[str, int] = {}
        self._sources: list[Path] = []
        self._begins: list[int] = []  # the number of lines before each source
        self._line = 0
        self._named = False  # whether a row of this source has a valid name of a split
        self._bad_split = ""  # the fault of the first name that is not valid

    def begin(self, source: Path) -> None:
        """Start a source: the rows that follow belong to it."""
        self._sources.append(source)
        self._begins.append(self._line)
        self.reject_split, self._named, self._bad_split = self.split or "", False, ""

    def end(self) -> None:
        """End a source, or stop waiting for a row that names a split.

        Raises:
          DataError: rows name splits, and none of the names can be used.
        """
        if self._bad_split and not self._named:
            raise DataError(f"{self._sources[-1]}: {self._bad_split}")
        self.reject_split = self.reject_split or DEFAULT_SPLIT

    def check(self, line: RawRow) -> ClipRow | Reject | None:
        """A raw row with our own columns as a row or a reject; None if its split is not wanted.

        A reject's split is "" if neither it nor any row before it names a split.
        """
        self._line = self._begins[-1] + line.number
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
        self._taken[row.id] = self._line << 32 | _checksum(line.clip or row.video, row.start, row.end)
        return row

    def _reject(self, line: RawRow, reason: str, split: str) -> Reject:
        name, video = (_printable(line.cells.get(column)) for column in ("id", "video"))
        if line.folder and video:
            video = f"{visible(line.folder)}/{video}"
        default = _printable(_stem(line.clip)) if line.clip else f"line {line.number}"
        return Reject(name or default, video, visible(reason), split or self.reject_split)

    def _split_of(self, cells: dict[str, Any]) -> str:
        """The row's split; "" if the column exists and the cell is empty."""
        name = str(cells["split"] or "").strip() if "split" in cells else self.split or DEFAULT_SPLIT
        if not name:
            return ""
        try:
            check_split(name)
        except DataError as error:
            self._bad_split = self._bad_split or str(error)
            raise RowFault(f"bad split: {error}") from error
        self._named = True
        self.reject_split = self.reject_split or name
        return name

    def _row(self, line: RawRow, split: str) -> ClipRow:
        cells = line.cells
        if not split:
            raise RowFault("bad split: the cell is empty")
        video = "" if cells.get("video") is None else cells["video"]
        if not isinstance(video, str):
            raise RowFault("bad path: the cell video is not a text: it is the name of a file, not its content")
        if not video.strip():
            raise RowFault("bad path: the cell video is empty")
        if video != video.strip() and not os.path.lexists(os.path.join(self.root, line.folder, video)):
            video = video.strip()  # spaces around a cell; those of a file's own name stay
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
            extra = _smallest(
                extra
            )  # long texts that a program stored with the clip (subtitles) are no reason to reject it
        _encodable(text + video, "a column")
        captions = _captions(cells, answers=any(extra.get(name) not in (None, "") for name in ANSWER_COLUMNS))
        name = self._id(cells.get("id"), line.clip or video, start, end)
        return ClipRow(name, video, captions, split, start, end, extra, line.part)

    def _id(self, given: Any, clip: str, start: float | None, end: float | None) -> str:
        if given is None or given == "":
            span = "".join(f"_{time:.10g}" for time in (start, end) if time is not None)
            stem = posixpath.splitext(clip)[0]
            # if another clip has the name: with its folder, with both times, with its suffix
            both = f"_{start or 0:.10g}_{'end' if end is None else f'{end:.10g}'}" if span else ""
            candidates = [f"{posixpath.basename(stem)}{span}", f"{stem}{span}", f"{stem}{both}", f"{clip}{span}"]
        elif isinstance(given, str | int) and not isinstance(given, bool):
            candidates = [str(given).strip()]
        else:
            raise RowFault("bad id: expected a text or a whole number")
        for name in candidates:
            if byte := wrong_byte(name):
                raise RowFault(f"bad id: it is not UTF-8 (byte {byte})")
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
    """The columns without the largest ones, so that the rest is not longer than MAX_EXTRA."""
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
    texts = [text for text in (value if isinstance(value, list | tuple) else [value]) if text is not None]
    if not all(isinstance(text, str) for text in texts):
        raise RowFault("bad caption: expected a text or a list of texts")
    return tuple(text.strip() for text in texts if text.strip())


def _seconds(value: Any, column: str) -> float | None:
    """A time in seconds from a number, a duration, a time of day or a text (12.5, 12,5, 12.5 s, h:m:s).

    None for an empty cell.
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        seconds = _seconds_of_text(value) if isinstance(value, str) else _seconds_of(value)
    except (TypeError, ValueError, OverflowError) as error:
        what = f"bad span: {column} {str(value)[:40]!r}"
        if isinstance(value, str) and _TIMECODE.fullmatch(value.strip()):
            raise RowFault(f"{what} is a timecode that counts frames: write seconds or h:m:s, as 0:01:02.5") from error
        if isinstance(value, str) and _COMMA.match(value.strip()):
            raise RowFault(f"{what} may be a decimal or thousands: write it with a point") from error
        raise RowFault(f"{what} is not a time: write seconds or h:m:s") from error
    if not 0 <= seconds < 1e7:  # also catches nan
        raise RowFault(f"bad span: {column} {seconds:g} s is outside 0..10,000,000")
    return seconds


def _seconds_of(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("no time")
    if isinstance(value, datetime.time):
        return 3600.0 * value.hour + 60.0 * value.minute + value.second + value.microsecond / 1e6
    return value.total_seconds() if isinstance(value, datetime.timedelta) else float(value)


def _seconds_of_text(text: str) -> float:
    text = text.strip()
    if clock := _CLOCK.fullmatch(text):
        return 3600.0 * int(clock[1] or 0) + 60.0 * int(clock[2]) + float(clock[3].replace(",", "."))
    number = _UNIT.sub("", text)
    if _COMMA.fullmatch(number) and len(number.partition(",")[2]) != 3:  # 1,500 may be one and a half or many
        number = number.replace(",", ".")
    return float(number)


def _jsonable(value: Any) -> Any:
    """The value as JSON: dates as text; NaN, infinity and bytes that are no text as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, bytes):
        return None
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, dict):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def _encodable(text: str, what: str) -> None:
    """Refuse what cannot be written as UTF-8: bytes of a file that are none; lone surrogates, which JSON can hold."""
    if byte := wrong_byte(text):
        raise RowFault(f"bad text: {what} is not UTF-8 (byte {byte}): save the file as UTF-8")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowFault(f"bad text: {what} contains a lone surrogate (half a character)") from error


def _printable(value: Any) -> str:
    return "" if value is None else visible(str(value)[:1000])
