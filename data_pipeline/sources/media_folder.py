"""A source: a folder of videos and pictures with the captions of each beside it, in `NAME.txt` or `NAME.json`.

Every line of the .txt that is not empty is a caption; the .json is an object with the columns of a manifest's row
(`caption` or `captions`, `id`, `split`, `start`, `end`, any other). Subfolders are searched, too. A picture with the
same name as a video is a thumbnail of that video, not a clip.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.media_paths import (
    MEDIA_SUFFIXES,
    STILL_SUFFIXES,
    VideoRejected,
    local_name,
    open_regular,
    resolve_below,
)
from data_pipeline.sources.captions import MAX_TEXT, read_object, read_text, take_captions
from data_pipeline.sources.raw_row import OWN_COLUMNS, RawRow, RowFault
from data_pipeline.sources.skipped_files import SkippedFiles
from harvest_jax.errors import DataError


def read_rows(folder: Path, name: str, root: str, skipped: SkippedFiles) -> Iterator[RawRow]:
    """The clips of a folder and its subfolders, sorted by name; hidden files and linked folders are skipped.

    Args:
      folder: the folder.
      name: its name below the root.
      root: the root's real path.
      skipped: counts the files that are neither a video or picture nor of one, and the linked folders.

    Raises:
      DataError: a folder cannot be listed.
    """
    numbers = itertools.count(1)
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(below for below in folders if not below.startswith("."))
        skipped.links += sum(os.path.islink(os.path.join(parent, below)) for below in folders)
        files = [(*os.path.splitext(file), file) for file in sorted(names) if not file.startswith(".")]
        media = [(stem, kind.lower(), file) for stem, kind, file in files if kind.lower() in MEDIA_SUFFIXES]
        stems = {stem for stem, _, _ in media}
        moving = {stem for stem, kind, _ in media if kind not in STILL_SUFFIXES}
        present = set(names)
        below = os.path.normpath(os.path.join(name, os.path.relpath(parent, folder)))
        where = "" if below == "." else f"{below}/"
        for stem, kind, file in files:
            if kind.lower() not in MEDIA_SUFFIXES and not (kind in (".txt", ".json") and stem in stems):
                skipped.add(where + file)
        for stem, kind, file in media:
            if kind in STILL_SUFFIXES and stem in moving:
                continue
            beside = {f"{stem}.txt", f"{stem}.json"} & present
            yield _line(next(numbers), local_name(where + file), root, beside)


def holds_media(folder: Path) -> bool:
    """Whether a folder or a subfolder has a video or picture, judged by the names."""
    found = (file for _, _, names in os.walk(folder) for file in names)
    return any(file.lower().endswith(MEDIA_SUFFIXES) for file in found)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from error


def _line(number: int, video: str, root: str, beside: set[str]) -> RawRow:
    """The clip of a file; `beside` has the names of those of its two text files that exist."""
    cells: dict[str, Any] = {"video": video}
    where = os.path.dirname(video)
    columns: dict[str, Any] = {}
    captions: list[str] = []
    try:
        for name in sorted(beside):
            raw = _read(root, local_name(os.path.join(where, name)))
            if name.endswith(".json"):
                columns = read_object(raw, name)
            else:
                captions = [line.strip() for line in read_text(raw, name).splitlines() if line.strip()]
    except RowFault as fault:
        return RawRow(
            number, cells | {"split": None}, str(fault)
        )  # its split, if any, is in the text that cannot be read
    except VideoRejected as error:
        return RawRow(number, cells | {"split": None}, error.reason)
    if not beside:
        stem = os.path.splitext(os.path.basename(video))[0]
        return RawRow(number, cells, f"empty caption: there is no {stem}.txt or {stem}.json beside it")
    cells |= {"caption": take_captions(columns, captions)}
    extra = {name: value for name, value in columns.items() if name not in OWN_COLUMNS}
    return RawRow(number, columns | cells, extra=extra)


def _read(root: str, name: str) -> bytes:
    """A text beside a video.

    Raises:
      VideoRejected: a link leads out of the root, it is not a file, it is too large.
    """
    try:
        with open_regular(resolve_below(root, name), MAX_TEXT) as file:
            return file.read(MAX_TEXT)
    except VideoRejected as error:
        if error.reason.startswith("empty file"):
            return b""
        kind, _, detail = error.reason.partition(": ")
        raise VideoRejected(f"{kind}: {os.path.basename(name)}: {detail}") from error
