"""From the name in a manifest to an open file, without leaving the media folder.

Manifests are untrusted: a cell such as `http://...`, `concat:...`, `../../etc/passwd` or a link that leads out of the
folder must not make the decoder read it. Names are resolved and files are opened here, by Python; the decoder gets only
the open file.
"""

import contextlib
import dataclasses
import functools
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from io import SEEK_CUR, SEEK_END, BufferedIOBase, BufferedReader, RawIOBase
from pathlib import Path
from typing import Any

from harvest_jax.errors import DataError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")  # http:, file:, concat:, subfile,,: and C: alike
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_WRONG_BYTE = re.compile("[\udc80-\udcff]")  # what Python makes of a byte that is no UTF-8
_MAX_NAME = 4096  # PATH_MAX on Linux
STILL_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif")
# suffixes that clips are found by in a folder or a tar; the format is detected from the content
MOVING_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".gif", ".3gp", ".3g2", ".mpg", ".mpeg", ".vob"),
    *(".mts", ".m2ts", ".ts", ".wmv", ".asf", ".flv", ".ogv"),
)
MEDIA_SUFFIXES = (*MOVING_SUFFIXES, *STILL_SUFFIXES)


@dataclasses.dataclass(frozen=True)
class FilePart:
    """Which part of a file is the clip: all of it, or one entry of a file that packs many.

    Attributes:
      offset, size: bytes of a tar's member or of a TFRecord's record.
      record: number of an ArrayRecord's record, or of a clip of a generated world.
      field: the bytes are a `tf.train.Example` and this field of it holds the clip; "": the bytes are the clip. Of a
        generated world the split.
    """

    offset: int | None = None
    size: int | None = None
    record: int | None = None
    field: str = ""


WHOLE_FILE = FilePart()


class VideoRejected(DataError):
    """One video cannot be used; `reason` has the form "kind: detail" and does not name the video."""

    def __init__(self, reason: str, video: str | Path | None = None):
        super().__init__(reason if video is None else f"{video}: {reason}")
        self.reason = reason


def is_one_line(name: str) -> bool:
    """Whether a name has no control characters, line ends or lone surrogates; unusual spaces are allowed."""
    # str.isprintable alone would refuse the spaces that macOS and Japanese keyboards put into file names
    return name.isprintable() or not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)


def visible(text: str) -> str:
    r"""The text with everything that `is_one_line` does not allow as \n, \x1b or \udce9."""
    if is_one_line(text):
        return text
    return "".join(c if is_one_line(c) else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def wrong_byte(text: str) -> str:
    """The first byte that was no UTF-8 where the text was read with `surrogateescape`, as 0xe9; "" if all were."""
    found = _WRONG_BYTE.search(text)
    return f"0x{ord(found[0]) - 0xDC00:02x}" if found else ""


def local_name(name: str) -> str:
    """The name of a file that was found in a folder, with `./` before it if it looks like an address (`a: b.mp4`)."""
    return f"./{name}" if _is_address(name) or name.startswith("\\") else name


def check_name(name: str) -> None:
    """Refuse everything except relative file names, without looking for the file.

    Args:
      name: relative file name. A name such as `a:b.mp4` looks like an address; write `./a:b.mp4`.

    Raises:
      VideoRejected: an address, an absolute path, `..`, or no file name at all.
    """
    if byte := wrong_byte(name):
        raise VideoRejected(f"bad path: it is not UTF-8 (byte {byte}): rename the file")
    if not name or len(name) > _MAX_NAME or not is_one_line(name):
        raise VideoRejected("bad path: it is empty, longer than 4,096 characters or holds control characters")
    if _DRIVE.match(name):
        raise VideoRejected("bad path: it begins with a drive; give it relative to the root (--root), with / in it")
    if _is_address(name):
        raise VideoRejected(
            "bad path: it looks like an address; only local files are read (a file named a:b.mp4 is ./a:b.mp4)"
        )
    if name.startswith(("/", "\\")):
        raise VideoRejected("bad path: it is absolute; give it relative to the root (--root)")
    if ".." in name.split("/"):
        raise VideoRejected("bad path: it contains '..'; only files below the root are read")
    if name.rpartition("/")[2] in ("", "."):
        raise VideoRejected("bad path: it is the name of a folder")


def _is_address(name: str) -> bool:
    return bool(_ADDRESS.match(name)) or "://" in name or name.startswith("subfile,")


def resolve_below(root: str, name: str) -> str:
    """The real path of `name`, a file below `root`; the file need not exist.

    Args:
      root: a folder, already a real path (`os.path.realpath`).
      name: relative file name, see `check_name`.

    Raises:
      VideoRejected: as `check_name`, or a link that leads out of the root.
    """
    check_name(name)
    folder, _, file = name.rpartition("/")
    path = os.path.join(_real_folder(root, folder), file)
    if os.path.islink(path):
        path = os.path.realpath(path)
    if os.path.commonpath((root, path)) != root:
        raise VideoRejected("bad path: a link leads out of the root; only files below the root are read")
    if "\\" in name and not os.path.lexists(path):
        raise VideoRejected("bad path: no file has this name; write folders with /, not with backslashes")
    return path


@functools.lru_cache(maxsize=65536)
def _real_folder(root: str, folder: str) -> str:
    """Cached: a manifest of millions of rows has few folders."""
    return os.path.realpath(os.path.join(root, folder))


def open_regular(path: str | Path, max_bytes: int, part: tuple[int, int] | None = None) -> BufferedIOBase:
    """Open a regular file of 1 to `max_bytes` bytes for reading.

    It never blocks on a pipe or a device. It follows links: names from manifests must go through `resolve_below` first.

    Args:
      path: the file.
      max_bytes: largest size that is accepted.
      part: offset and size of a part that is read as if it were a file; `max_bytes` then limits the part.

    Raises:
      VideoRejected: it does not exist, cannot be read, is not a regular file, is empty or too large, has no such part.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        kind = "not found" if isinstance(error, FileNotFoundError | NotADirectoryError) else "cannot be opened"
        raise VideoRejected(f"{kind}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise VideoRejected("not a file: a folder, a pipe or a device")
        offset, size = (0, status.st_size) if part is None else part
        if size == 0:
            raise VideoRejected("empty file: 0 bytes")
        if size > max_bytes:
            raise VideoRejected(f"too large: {size:,} bytes, more than the {max_bytes:,} allowed")
        if not 0 <= offset <= offset + size <= status.st_size:
            raise VideoRejected(f"cut off: the clip in it ends at byte {offset + size:,}, the file before that")
        if part is None and not _noting:
            return os.fdopen(descriptor, "rb")
        return BufferedReader(FileRange(descriptor, offset, size, status))
    except BaseException:
        os.close(descriptor)
        raise


_noting: list[list["FileRange"]] = []  # of the blocks of `noting` that are open


@contextlib.contextmanager
def noting(opened: list["FileRange"]) -> Iterator[None]:
    """Add every file that `open_regular` opens in this block to `opened`, for what was read of it."""
    _noting.append(opened)
    try:
        yield
    finally:
        _noting.pop()


class FileRange(RawIOBase):
    """An open file, or a part of it as a file; `close` closes it.

    Attributes:
      status: of the whole file when it was opened.
      reads: in a block of `noting`, offset in the file or its part, and size, of each read so far; those in a row are
        one.
    """

    def __init__(self, descriptor: int, offset: int, size: int, status: os.stat_result):
        super().__init__()
        self._descriptor, self._offset, self._size, self._at = descriptor, offset, size, 0
        self.status = status
        self.reads: list[tuple[int, int]] = []
        self._noted = bool(_noting)
        for opened in _noting:
            opened.append(self)

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See io.RawIOBase."""
        wanted = max(0, min(len(buffer), self._size - self._at))
        data = os.pread(self._descriptor, wanted, self._offset + self._at)
        buffer[: len(data)] = data
        if self._noted:
            begin = self._at
            if self.reads and sum(self.reads[-1]) == begin:
                begin = self.reads.pop()[0]
            self.reads.append((begin, self._at + len(data) - begin))
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """See io.RawIOBase."""
        base = {SEEK_CUR: self._at, SEEK_END: self._size}.get(whence, 0)
        if base + offset < 0:
            raise OSError(22, "negative position")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """See io.RawIOBase."""
        return self._at

    def fileno(self) -> int:
        """The descriptor of a whole file.

        Raises:
          io.UnsupportedOperation: it is a part of a file.
        """
        return self._descriptor if self._size == self.status.st_size else super().fileno()

    def close(self) -> None:
        """Close the file, too."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()
