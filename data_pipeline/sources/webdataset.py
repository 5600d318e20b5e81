"""A source: tars as video2dataset and img2dataset write them (WebDataset). Nothing is extracted.

`00000.tar` has the files of each key: `000000012.mp4` (or another video or picture), `000000012.txt` with its caption,
`000000012.json` with its other columns. The clip is a part of the tar file. The columns of the .json, except `caption`
and `captions`, are kept as they are. Files beside the tars (`00000_stats.json`) are not read.

The headers are read once. A key whose files lie together is done when the next one begins. From the first key on of
which that is not so, keys wait for the end of the tar, in a table of limited size.
"""

import dataclasses
import itertools
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.media_paths import (
    MEDIA_SUFFIXES,
    MOVING_SUFFIXES,
    STILL_SUFFIXES,
    FilePart,
    VideoRejected,
    is_one_line,
    open_regular,
    wrong_byte,
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
_MAX_HELD = 32 << 20  # bytes of memory, about, of the files that wait
_MAX_DONE = 200_000  # keys of a tar of which is remembered that they are done
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip"}


class _File(NamedTuple):
    """A member that may be used."""

    name: str
    offset: int
    size: int


@dataclasses.dataclass
class _Key:
    """The files of one key; with the names as in WebDataset, the key ends at the first dot of the file's name.

    Attributes:
      name: the key, with its folder.
      found: by ending, `mp4`.
      dotted: of names with more dots, by what is before the last one, and by ending.
      again: names that came a second time.
      late: other files of the key were done before.
      apart: the files do not lie together.
      cost: of memory, about, in bytes.
    """

    name: str
    late: bool
    found: dict[str, _File] = dataclasses.field(default_factory=dict)
    dotted: dict[str, dict[str, _File]] = dataclasses.field(default_factory=dict)
    again: list[str] = dataclasses.field(default_factory=list)
    apart: bool = False
    cost: int = 0

    def add(self, member: tarfile.TarInfo, stem: str, kind: str) -> None:
        """Add a file; `stem` and `kind` are what is before and after the last dot of its name."""
        files = self.found if stem == self.name else self.dotted.setdefault(stem, {})
        if kind in files:
            self.again.append(member.name)
        else:
            files[kind] = _File(member.name, member.offset_data, member.size)
        self.cost += 450 + 2 * len(member.name)

    @property
    def is_whole(self) -> bool:
        """Whether it has a clip and a text."""
        kinds = {kind for files in (self.found, *self.dotted.values()) for kind in files}
        return bool(kinds & set(_TEXTS)) and bool(kinds - set(_TEXTS))


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
        begin = os.pread(file.fileno(), 6, 0)
        if kind := next((kind for magic, kind in _COMPRESSIONS.items() if begin.startswith(magic)), ""):
            reason = f"compressed: it is a {kind} file, and clips are read from inside a tar: decompress it first"
            yield RawRow(1, {"id": video, "video": video}, reason)
            return
        for one in _keys(_until_fault(file, faults)):
            if isinstance(one, _Key):
                yield from _lines_of(one, file, video, numbers)
            else:
                reason = f"bad member: {_unsafe(one)}"
                yield RawRow(next(numbers), {"video": video}, reason, clip=f"{video}/{one.name}")
    for fault in faults:
        yield RawRow(next(numbers), {"id": video, "video": video}, f"{fault} (all clips before that are used)")


def _until_fault(file: BufferedIOBase, faults: list[TarFault]) -> Iterator[tarfile.TarInfo]:
    """The members up to the first fault, which is put into `faults`: the key before it is processed first."""
    try:
        # macOS puts files such as ._a.mp4 between the members of a key; they are not clips
        yield from (one for one in members(file) if not posixpath.basename(one.name).startswith("._") or _unsafe(one))
    except TarFault as fault:
        faults.append(fault)


def _keys(found: Iterator[tarfile.TarInfo]) -> Iterator[_Key | tarfile.TarInfo]:
    """The keys in the order of their first files, and members that are not safe."""
    held: dict[str, _Key] = {}
    done: set[int] = set()
    cost = 0

    def release(now: str, room: int) -> Iterator[_Key]:
        """Those that come next and are complete, the key `now` not; more, if they take more than `room` bytes."""
        nonlocal cost
        while held:
            key = next(iter(held.values()))
            if cost <= room and (key.name == now or key.apart or not key.is_whole):
                return
            cost -= key.cost
            del held[key.name]
            if len(done) < _MAX_DONE:
                done.add(hash(key.name))
            yield key

    last = ""
    for member in found:
        name = _NAME.fullmatch(member.name)
        key = name[1] if name else ""
        if key != last:
            yield from release(key, _MAX_HELD)
            if key in held:
                held[key].apart = True
            last = key
        if _unsafe(member):
            yield member
            continue
        stem, _, kind = member.name.rpartition(".")
        kind = kind.lower()
        if not key or not member.isreg() or kind not in _KINDS:
            continue
        before = held.setdefault(key, _Key(key, hash(key) in done))
        cost -= before.cost
        before.add(member, stem, kind)
        cost += before.cost
        yield from release(key, _MAX_HELD)
    yield from release("", -1)


def _lines_of(key: _Key, file: BufferedIOBase, video: str, numbers: Iterator[int]) -> Iterator[RawRow]:
    """The raw rows of one key: its clip, or several where names have more dots, and a row for each file left over."""

    def reject(name: str, reason: str) -> RawRow:
        return RawRow(next(numbers), {"video": video}, reason, clip=f"{video}/{name}")

    media = _media_of(key.found)
    clips = {stem: ending for stem, files in key.dotted.items() if (ending := _media_of(files))}
    texts = {kind: key.found[kind] for kind in _TEXTS if kind in key.found}
    if media:
        yield _clip_row(file, video, key.name, media, key.found, next(numbers))
        for kind, other in key.found.items():
            if f".{kind}" in MOVING_SUFFIXES and kind not in (media[1:], "gif"):  # pictures and GIFs are thumbnails
                yield reject(other.name, f"bad member: the clip of this name is {posixpath.basename(key.name)}{media}")
    for stem, ending in clips.items():
        files = key.dotted[stem]
        if media and not set(files) & set(_TEXTS):
            continue  # thumbnails and masks of the key's own clip
        if not media and ending in STILL_SUFFIXES and not set(files) & set(_TEXTS):
            why = "bad member: its name has more than one dot, and the key ends at the first one: rename it"
            yield reject(files[ending[1:]].name, why)
            continue
        if not media and len(clips) == 1:
            files = texts | files
        yield _clip_row(file, video, stem, ending, files, next(numbers))
    for name in key.again:
        yield reject(name, f"bad member: a second {posixpath.basename(name)}; the first one is used")
    if media or clips or not texts:
        return
    if key.late:
        (first, *_) = texts.values()
        why = "bad member: its clip comes long before it: pack the files of a key together (tar --sort=name)"
        yield reject(first.name, why)
    else:
        name = posixpath.basename(key.name)[:100]
        yield reject(f"{key.name}", f"not found: the tar has no video or picture named {name}")


def _media_of(files: dict[str, _File]) -> str:
    """The ending of the video or picture among the files, ".mp4"; "" if there is none."""
    return next((ending for ending in MEDIA_SUFFIXES if ending[1:] in files), "")


def _clip_row(file: BufferedIOBase, video: str, stem: str, ending: str, files: dict[str, _File], number: int) -> RawRow:
    clip = f"{video}/{stem}{ending}"
    try:
        texts, columns = _texts(file, files)
    except RowFault as fault:
        return RawRow(number, {"video": video}, str(fault), clip=clip)
    member = files[ending[1:]]
    cells = {"video": video, "caption": take_captions(columns, texts)}
    return RawRow(number, cells, part=FilePart(offset=member.offset, size=member.size), extra=columns, clip=clip)


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
    if byte := wrong_byte(member.name):
        return f"its name is not UTF-8 (byte {byte})"
    if len(member.name) > 4096 or not is_one_line(member.name):
        return "its name is longer than 4,096 characters or holds control characters"
    return ""


def _texts(file: BufferedIOBase, found: dict[str, _File]) -> tuple[list[str], dict[str, Any]]:
    """The caption of the .txt and the columns of the .json."""
    raw = {}
    for kind in _TEXTS:
        if (member := found.get(kind)) is not None:
            if member.size > MAX_TEXT:
                raise RowFault(f"too much text: its .{kind} has {member.size:,} bytes, more than {MAX_TEXT:,}")
            raw[kind] = os.pread(file.fileno(), member.size, member.offset)
    text = read_text(raw["txt"], ".txt").strip() if "txt" in raw else ""
    return [text] if text else [], read_object(raw["json"], ".json") if "json" in raw else {}
