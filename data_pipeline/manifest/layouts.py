"""Layouts of manifests: our own columns, WebVid's, InternVid's and Panda-70M's, all converted to our own columns.

Own: `video`; `start`, `end`; `caption` (or `captions`), a text or, in JSONL and Parquet, a list of texts.
WebVid: `videoid`, `page_dir`, `name`. The file is `page_dir/videoid.mp4`, or `videoid.mp4` if only that exists; the
caption is `name`; the clip is the whole file.
InternVid: `YoutubeID`, `Start_timestamp`, `End_timestamp`, `Caption`. The file is `YoutubeID.mp4`.
Panda-70M: one row per video, with `videoID`, `timestamp` and `caption`, the last two lists; `videoID.mp4` gives one
clip for each pair of times.

If the `.mp4` does not exist below the root, `.webm` and `.mkv` are tried. Every other column is kept.
"""

import ast
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from data_pipeline.sources.raw_row import ANSWER_COLUMNS, MAX_EXTRA, RowFault

_SUFFIXES = (".mp4", ".webm", ".mkv")
_MAX_LITERAL = 1 << 20  # characters of a list written as text
_MAX_CLIPS = 10_000  # of one row: a day in pieces of nine seconds


@dataclasses.dataclass(frozen=True)
class ColumnLayout:
    """A set of columns that is recognised, and the function that converts a row of it to rows with our own columns."""

    name: str
    columns: frozenset[str]
    expand: Callable[[dict[str, Any], Path], list[dict[str, Any]]]


def recognise(columns: Iterable[str], known: bool = True) -> ColumnLayout | None:
    """The layout with these columns; None if a required column is missing. `known`: also one of another project."""
    present = set(columns)
    for layout in LAYOUTS:
        if known and layout.columns <= present:
            return layout
    if "video" in present and present & {"caption", "captions", *ANSWER_COLUMNS}:
        return ColumnLayout("own", frozenset({"video"}), lambda cells, root: [cells])
    return None


def _file_of(root: Path, *stems: str) -> str:
    """The first of the stems with a known suffix that exists below the root, else the first name as `.mp4`."""
    for stem in stems:
        if not stem.startswith("/") and ".." not in stem.split(
            "/"
        ):  # a name that leads out of the root is not looked up
            for suffix in _SUFFIXES:
                if os.path.isfile(os.path.join(root, stem + suffix)):
                    return stem + suffix
    return stems[0] + _SUFFIXES[0]


def _without(cells: dict[str, Any], *columns: str) -> dict[str, Any]:
    return {name: value for name, value in cells.items() if name not in columns}


def _webvid(cells: dict[str, Any], root: Path) -> list[dict[str, Any]]:
    name, folder = str(cells["videoid"]), str(cells["page_dir"] or "")
    video = _file_of(root, f"{folder}/{name}", name) if folder else _file_of(root, name)
    return [_without(cells, "videoid", "name") | {"id": name, "video": video, "caption": cells["name"]}]


def _internvid(cells: dict[str, Any], root: Path) -> list[dict[str, Any]]:
    times = {"start": cells["Start_timestamp"], "end": cells["End_timestamp"]}
    rest = _without(cells, "YoutubeID", "Start_timestamp", "End_timestamp", "Caption")
    return [rest | times | {"video": _file_of(root, str(cells["YoutubeID"])), "caption": cells["Caption"]}]


def _panda(cells: dict[str, Any], root: Path) -> list[dict[str, Any]]:
    times, captions = _list(cells["timestamp"], "timestamp"), _list(cells["caption"], "caption")
    if len(times) != len(captions):
        raise RowFault(f"{len(times)} timestamps but {len(captions)} captions")
    name = str(cells["videoID"])
    video = _file_of(root, name)
    if len(times) > _MAX_CLIPS:
        raise RowFault(f"{len(times):,} clips in one row, more than {_MAX_CLIPS:,}")
    rest = _without(cells, "videoID", "timestamp", "caption")
    columns = {key: _entries(value, len(times)) for key, value in rest.items()}
    rows = []
    for index, (pair, caption) in enumerate(zip(times, captions, strict=True)):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RowFault("a timestamp is not a pair of start and end")
        own = {"id": f"{name}.{index}", "video": video, "caption": caption, "start": pair[0], "end": pair[1]}
        rows.append({key: values[index] for key, values in columns.items()} | own)
    return rows


def _list(value: Any, column: str) -> list[Any]:
    if isinstance(value, str) and len(value) <= _MAX_LITERAL:
        try:
            value = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # TypeError: {{}}
            value = None
    if not isinstance(value, list | tuple):
        raise RowFault(f"column {column} is not a list")
    return list(value)


def _entries(value: Any, count: int) -> list[Any]:
    """A column's value for each clip: one of its list if it has one per clip (as matching_score), else the same.

    Raises:
      RowFault: a value that is the same for all is too large to be repeated.
    """
    if isinstance(value, str) and value.startswith("["):
        with contextlib.suppress(RowFault):
            value = _list(value, "")
    if isinstance(value, list) and len(value) == count:
        return value
    if len(str(value)) > MAX_EXTRA:
        raise RowFault(f"a column holds more than {MAX_EXTRA:,} characters")
    return [value] * count


LAYOUTS = (
    ColumnLayout("WebVid", frozenset({"videoid", "page_dir", "name"}), _webvid),
    ColumnLayout("InternVid", frozenset({"YoutubeID", "Start_timestamp", "End_timestamp", "Caption"}), _internvid),
    ColumnLayout("Panda-70M", frozenset({"videoID", "timestamp", "caption"}), _panda),
)
