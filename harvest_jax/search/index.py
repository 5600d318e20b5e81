"""The index of `harvest search`: the embeddings of the windows of a folder's videos and pictures.

    INDEX/MODEL-WAY-METHOD/index.sqlite     which files there are, and which rows are whose
    INDEX/MODEL-WAY-METHOD/rows-N.*         the rows (`rows.py`)

MODEL, WAY and METHOD say how the rows were made: digests of the model, and of the windows and frames; the version of
this program's method. Each has an index of its own.

A clip is known by its content, and a file is a name that has this content now: a file that was moved or copied is not
embedded again. Rows are written before the database says that they are there, so that a kill at any time leaves an
index that is right, without the clips in work. One process writes (a lock); any number read.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from harvest_jax.embeddings_file import METHOD
from harvest_jax.errors import ConfigError
from harvest_jax.search.rows import RowFiles, Rows

FORMAT = 3  # of the database
_BLOCK = 4096  # bytes
_BLOCKS = 16  # of a file that are read to know it
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE clip (id INTEGER PRIMARY KEY, content TEXT UNIQUE NOT NULL, first INTEGER NOT NULL, spans BLOB NOT NULL,
  crc INTEGER NOT NULL, reason TEXT NOT NULL, version TEXT NOT NULL);
CREATE TABLE file (path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
  inode INTEGER NOT NULL, clip INTEGER NOT NULL REFERENCES clip (id)) WITHOUT ROWID;
"""


@dataclasses.dataclass(frozen=True)
class Clip:
    """The content of one file or of several equal ones.

    Attributes:
      content: of `content_of`.
      first: its first row.
      spans: start and end of each window in seconds, one for each row, ascending.
      reason: why it, or the rest of it, cannot be used; empty if all of it can.
      crc: of its rows.
    """

    content: str
    first: int
    spans: Float64[np.ndarray, "n 2"]
    reason: str = ""
    crc: int = 0


@dataclasses.dataclass(frozen=True)
class File:
    """A name in the folder, as it was when its content was read: `clip` is the key of `SearchIndex.clips`."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    clip: int

    def is_of(self, status: os.stat_result) -> bool:
        """Whether the size and the modification time are the same."""
        return (self.size, self.mtime_ns) == (status.st_size, status.st_mtime_ns)

    def untouched(self, status: os.stat_result) -> bool:
        """Whether it is the same file, and the system has noticed no change of it."""
        return self.is_of(status) and (self.ctime_ns, self.inode) == (status.st_ctime_ns, status.st_ino)


@dataclasses.dataclass(frozen=True)
class SearchIndex:
    """What an index held when it was opened; `find` searches it.

    Attributes:
      made_by: JSON object of all that decides about the rows.
      rows: of all clips; some may belong to none.
      clips: by number.
      files: by path below the folder.
    """

    made_by: dict[str, Any]
    rows: Rows
    clips: dict[int, Clip]
    files: dict[str, File]

    def owners(self) -> Int[np.ndarray, " n"]:
        """Of each row the number of its clip; -1 if it belongs to none."""
        owners = np.full(len(self.rows), -1, np.int64)
        for number, clip in self.clips.items():
            owners[clip.first : clip.first + len(clip.spans)] = number
        return owners

    def unreadable(self) -> list[tuple[str, str]]:
        """(path, reason) of files without any row, sorted."""
        clips = ((path, self.clips[file.clip]) for path, file in sorted(self.files.items()))
        return [(path, clip.reason) for path, clip in clips if not len(clip.spans)]


def default_path(folder: Path) -> Path:
    """The index of a folder if --index names none: in the user's cache, by the folder's real path.

    Raises:
      ConfigError: the user has no home folder.
    """
    real = os.path.realpath(folder)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(real))[:40] or "root"
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise ConfigError("there is no home folder to keep the index in: name one with --index") from None
    return cache / "harvest_jax" / "search" / f"{name}-{hashlib.sha256(os.fsencode(real)).hexdigest()[:16]}"


def content_of(path: str) -> str:
    """What a file holds: SHA-256 (hex) of its size and of 16 blocks of 4 kB, the first and the last among them.

    All of a small file, and little of a large one, so that knowing it costs far less than embedding it. A change within
    a large file that touches none of these blocks and neither size nor times is not noticed.

    Raises:
      OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        digest = hashlib.sha256(str(size).encode())
        steps = min(_BLOCKS, -(-size // _BLOCK))
        for step in range(steps):
            at = step * _BLOCK if size <= _BLOCKS * _BLOCK else step * (size - _BLOCK) // (steps - 1)
            digest.update(os.pread(descriptor, _BLOCK, at))
        return digest.hexdigest()
    finally:
        os.close(descriptor)


def way_name(made_by: Mapping[str, Any]) -> str:
    """The beginning of the name of the folder for rows that were made so; the number of the method follows."""
    way = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:8]
    return f"{str(made_by['model'])[:16]}-{way}"


def folder_of(path: Path, made_by: Mapping[str, Any]) -> Path:
    """The folder in an index for rows that were made so."""
    return path / f"{way_name(made_by)}-{METHOD}"


def open_index(path: Path, made_by: Mapping[str, Any]) -> SearchIndex:
    """The index as it is now, for searching alone; without a lock.

    Raises:
      ConfigError: there is none that was made so, or it cannot be read.
    """
    folder = folder_of(path, made_by)
    for _ in range(3):  # compaction replaces the rows' files
        try:
            with contextlib.closing(connected(folder, write=False)) as base:
                return loaded(base, folder)
        except FileNotFoundError:
            if not (folder / "index.sqlite").exists():
                break
        except (OSError, ValueError, sqlite3.Error) as error:
            raise ConfigError(f"the index {path} cannot be read ({error})") from error
    raise ConfigError(f"there is no index of this model and these windows in {path}: search without --no_update first")


def connected(folder: Path, write: bool) -> sqlite3.Connection:
    """The database of a folder; `write`: it is made if it is missing.

    Raises:
      FileNotFoundError: there is none.
      sqlite3.Error: it cannot be opened.
    """
    path = folder / "index.sqlite"
    if not write and not path.exists():
        raise FileNotFoundError(path)
    # For reading, too, it is opened for writing where that is allowed: what a killed writer left is taken back first.
    mode = "rwc" if write else "rw" if os.access(folder, os.W_OK) and os.access(path, os.W_OK) else "ro"
    base = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", timeout=30.0, uri=True)
    base.execute("PRAGMA synchronous = NORMAL")
    return base


def loaded(base: sqlite3.Connection, folder: Path) -> SearchIndex:
    """What an index holds; the rows are mapped and not read.

    Raises:
      sqlite3.Error, ValueError, KeyError: the database is damaged, or not one of this kind.
      FileNotFoundError: a file of rows is missing.
    """
    with base:  # all of it as at one moment
        base.execute("BEGIN")
        meta = dict(base.execute("SELECT key, value FROM meta"))
        clips = {
            number: Clip(content, first, np.frombuffer(spans, np.float64).reshape(-1, 2), reason, crc)
            for number, content, first, spans, reason, crc in base.execute(
                "SELECT id, content, first, spans, reason, crc FROM clip"
            )
        }
        files = {
            os.fsdecode(path): File(*state)
            for path, *state in base.execute("SELECT path, size, mtime_ns, ctime_ns, inode, clip FROM file")
        }
    if int(meta["format"]) != FORMAT:
        raise ValueError(f"its format is {meta['format']}, not {FORMAT}")
    if any(file.clip not in clips for file in files.values()):
        raise ValueError("it names clips that are not in it")
    count = max((clip.first + len(clip.spans) for clip in clips.values()), default=0)
    rows = RowFiles(folder, int(meta["generation"]), int(meta["width"])).mapped(count)
    return SearchIndex(json.loads(meta["made_by"]), rows, clips, files)
