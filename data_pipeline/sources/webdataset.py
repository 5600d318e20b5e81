"""A source: tars as video2dataset and img2dataset write them (WebDataset). Nothing is extracted.

`00000.tar` has the files of each key in a row: `000000012.mp4` (or another video or picture), `000000012.txt` with its
caption, `000000012.json` with its other columns. The clip is a part of the tar file. The columns of the .json, except
`caption` and `captions`, are kept as they are. Files beside the tars (`00000_stats.json`) are not read.
"""

import itertools
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from data_pipeline.media_paths import (
    MEDIA_SUFFIXES,
    MOVING_SUFFIXES,
    FilePart,
    VideoRejected,
    is_one_line,
    open_regular,
)
from data_pipeline.sources import media_folder
from data_pipeline.sources.captions import MAX_TEXT, read_object, read_text, take_captions
from data_pipeline.sources.raw_row import RawRow, RowFault
from data_pipeline.sources.tar_members import TarFault, members
from harvest_jax.errors import DataError

_NAME = re.compile(
    r"((?:.*/)?[^./]+)\.([^/]+)"
)  # WebDataset: the key is everything before the first dot of the file name
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_TEXTS = ("txt", "json")
_KINDS = {*_TEXTS, *(suffix[1:] for suffix in MEDIA_SUFFIXES)}
_MAX_DOTTED = 10_000  # names of one key that are kept, to be rejected


def is_tar(path: Path) -> bool:
    """Whether a file is a tar, judged by its name.

    Raises:
      DataError: it is compressed.
    """
    if path.name.lower().endswith(_COMPRESSED):
        raise DataError(
            f"{path} is compressed, and clips are read from inside the tar: decompress it to a .tar first (gunzip)"
        )
    return path.name.lower().endswith(".tar")


def tars_of(folder: Path) -> list[Path]:
    """The tars in a folder, sorted by name; none if it is a folder of videos.

    Raises:
      DataError: there are compressed tars and no videos, or tars and videos; or the folder cannot be listed.
    """
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir())
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}") from error
    compressed = [path for path in files if path.name.lower().endswith(_COMPRESSED)]
    tars = [path for path in files if path.name.lower().endswith(".tar")]
    if compressed and (tars or not media_folder.holds_media(folder)):
        is_tar(compressed[0])
    videos = [path.name for path in files if path.suffix.lower() in MOVING_SUFFIXES]
    if tars and videos:
        raise DataError(
            f"{folder} has tars and videos ({videos[0]!r}): name the files that are meant, for example {folder}/*.tar"
        )
    return tars


def read_rows(path: Path, video: str) -> Iterator[RawRow]:
    """The clips of a tar.

    Args:
      path: the tar.
      video: its name below the root.

    Raises:
      DataError: there is no such file.
    """
    try:
        file = open_regular(path, max_bytes=1 << 62)
    except VideoRejected as error:
        if error.reason.startswith("empty file"):  # in a set of thousands of tars one may be empty
            yield RawRow(1, {"id": video, "video": video}, error.reason)
            return
        raise DataError(f"{path}: {error.reason}") from error
    numbers = itertools.count(1)
    faults: list[TarFault] = []
    with file:
        for key, group in itertools.groupby(_until_fault(file, faults), _key):
            yield from _lines_of(key, group, file, video, numbers)
    for fault in faults:
        yield RawRow(next(numbers), {"id": video, "video": video}, f"{fault} (all clips before that are used)")


def _until_fault(file: BufferedIOBase, faults: list[TarFault]) -> Iterator[tarfile.TarInfo]:
    """The members up to the first fault, which is put into `faults`: the key before it is processed first."""
    try:
        # macOS puts files such as ._a.mp4 between the members of a key; they are not clips
        yield from (one for one in members(file) if not posixpath.basename(one.name).startswith("._") or _unsafe(one))
    except TarFault as fault:
        faults.append(fault)


def _key(member: tarfile.TarInfo) -> str:
    name = _NAME.fullmatch(member.name)
    return name[1] if name else ""


def _lines_of(
    key: str, group: Iterator[tarfile.TarInfo], file: BufferedIOBase, video: str, numbers: Iterator[int]
) -> Iterator[RawRow]:
    """The raw rows of one key: one clip, and a row with a fault for each member that is not safe."""
    found: dict[str, tarfile.TarInfo] = {}
    dotted: list[str] = []
    for member in group:
        kind = member.name[len(key) + 1 :].lower()
        if fault := _unsafe(member):
            yield RawRow(next(numbers), {"video": video}, f"bad member: {fault}", clip=f"{video}/{member.name}")
        elif key and member.isreg() and kind in _KINDS:
            found.setdefault(kind, member)
        elif key and member.isreg() and kind.endswith(MEDIA_SUFFIXES) and len(dotted) < _MAX_DOTTED:
            dotted.append(member.name)
    media = next((kind for kind in MEDIA_SUFFIXES if kind[1:] in found), "")
    if not media and dotted:  # if the key has a clip, they are its thumbnails or masks
        reason = "bad member: its name has more than one dot, and the key ends at the first one: rename it"
        for name in dotted:
            yield RawRow(next(numbers), {"video": video}, reason, clip=f"{video}/{name}")
        return
    if not media and not any(kind in found for kind in _TEXTS):
        return  # a folder, sound, an index: not a clip
    clip = f"{video}/{key}{media}"
    if not media:
        reason = f"not found: the tar has no video or picture named {key[:100]}"
        yield RawRow(next(numbers), {"video": video}, reason, clip=clip)
        return
    try:
        texts, columns = _texts(file, found)
    except RowFault as fault:
        yield RawRow(next(numbers), {"video": video}, str(fault), clip=clip)
        return
    member = found[media[1:]]
    cells = {"video": video, "caption": take_captions(columns, texts)}
    part = FilePart(offset=member.offset_data, size=member.size)
    yield RawRow(next(numbers), cells, part=part, extra=columns, clip=clip)


def _unsafe(member: tarfile.TarInfo) -> str:
    """Why a member is not safe to read; "" if it is. Programs that write datasets write no such members."""
    if member.isdir():
        return ""
    if member.issym() or member.islnk():
        return "a link; only plain files are read"
    if member.issparse():
        return "a sparse file; only plain files are read"
    if not member.isreg():
        return "a device, a pipe or something unknown; only plain files are read"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "its name leads out of the tar"
    if len(member.name) > 4096 or not is_one_line(member.name):
        return "its name is longer than 4,096 characters or holds control characters"
    return ""


def _texts(file: BufferedIOBase, found: dict[str, tarfile.TarInfo]) -> tuple[list[str], dict[str, Any]]:
    """The caption of the .txt and the columns of the .json."""
    raw = {}
    for kind in _TEXTS:
        if (member := found.get(kind)) is not None:
            if member.size > MAX_TEXT:
                raise RowFault(f"too much text: its .{kind} has {member.size:,} bytes, more than {MAX_TEXT:,}")
            raw[kind] = os.pread(file.fileno(), member.size, member.offset_data)
    text = read_text(raw["txt"], ".txt").strip() if "txt" in raw else ""
    return [text] if text else [], read_object(raw["json"], ".json") if "json" in raw else {}
