"""Bring an index up to date: one process at a time adds clips, names files and compacts; a kill leaves it right."""

import contextlib
import dataclasses
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from harvest_jax.embeddings_file import METHOD
from harvest_jax.errors import HarvestError
from harvest_jax.files import locked
from harvest_jax.search.index import (
    FORMAT,
    TABLES,
    Clip,
    File,
    SearchIndex,
    connected,
    folder_of,
    loaded,
    way_name,
)
from harvest_jax.search.rows import RowFiles, Rows, blocks, coded, joined
from harvest_jax.version import __version__

DEAD = 0.25  # compaction when so many of the rows belong to no file any more; our choice


class BusyError(HarvestError):
    """Another process writes the index."""


@contextlib.contextmanager
def open_writer(path: Path, made_by: Mapping[str, Any]) -> Iterator["IndexWriter"]:
    """The index in a folder, for this process alone to write.

    Args:
      path: the folder, which is made; an index of an earlier version may be a file of this name, or of this name with
        ".safetensors".
      made_by: JSON object of all that decides about the rows, "model" (its digest) among it.

    Raises:
      BusyError: another process writes it.
    """
    file_before = path.is_file()
    folder = path.with_name(f"{path.name}.new") if file_before else path
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(locked(folder / "lock", wait=False))
        except OSError:  # the index cannot be written; the writer will say so
            lock = True
        if not lock:
            raise BusyError(
                f"the index {path} is being brought up to date by another process: wait for it, or search what is in "
                "it now with --no_update"
            )
        writer = IndexWriter(folder, made_by)
        writer.replaces += [path] if file_before else []
        writer.replaces += [old for old in [path.with_name(f"{path.name}.safetensors")] if old.is_file()]
        if writer.replaces and not writer.files:
            writer.notes.append(
                f"the index {writer.replaces[0]} is of an earlier version: it is built again, and the old one is kept "
                "until the new one is whole"
            )
        try:
            yield writer
        finally:
            writer.close()
        if file_before and not path.exists():
            folder.rename(path)


class IndexWriter:
    """An index that is being brought up to date; made by `open_writer`.

    What cannot be written (a full disk, a read-only folder) is kept in memory, so that the search is answered.

    Attributes:
      made_by: as given, with the method's number.
      clips, files: of what it holds now, as in `SearchIndex`.
      problem: why nothing can be written any more; empty if all was.
      notes: lines for the user.
      replaces: earlier indexes, which `replace` removes.
    """

    def __init__(self, path: Path, made_by: Mapping[str, Any]) -> None:
        self.made_by = {**made_by, "method": METHOD}
        self.clips: dict[int, Clip] = {}
        self.files: dict[str, File] = {}
        self.problem = ""
        self.notes: list[str] = []
        self._folder = folder_of(path, made_by)
        self.replaces = sorted(old for old in path.glob(f"{way_name(made_by)}-*") if _is_another(old, self._folder))
        self._base: sqlite3.Connection | None = None
        self._disk: RowFiles | None = None  # None: no row yet, or nothing can be written
        self._generation = 0
        self._written = 0  # rows on the disk
        self._kept: list[Rows] = []  # those that could not be written
        try:
            self._open()
        except (OSError, sqlite3.Error) as error:
            self._fail(error)
        self._numbers = {clip.content: number for number, clip in self.clips.items()}

    def close(self) -> None:
        """Wait until the index is on the disk, and close it."""
        with contextlib.suppress(OSError):
            if self._disk is not None:
                self._disk.sync()
        if self._base is not None:
            self._base.close()

    def number_of(self, content: str) -> int | None:
        """The number of the clip with this content, None if there is none."""
        return self._numbers.get(content)

    def add(
        self, content: str, spans: Float64[np.ndarray, "n 2"], embeddings: Float32[np.ndarray, "n d"], reason: str
    ) -> int:
        """Add a clip and give its number.

        Args:
          content: of `content_of`.
          spans: start and end of its windows, ascending; none if it cannot be read.
          embeddings: of the windows, unit length.
          reason: as in `Clip`.
        """
        rows = coded(embeddings)
        clip = Clip(content, self._written + sum(map(len, self._kept)), spans, reason, rows.crc(0, len(rows)))
        number = 1 + max(self.clips, default=0)
        self._append(rows)
        self._execute(
            "INSERT INTO clip VALUES (?, ?, ?, ?, ?, ?, ?)",
            (number, content, clip.first, spans.tobytes(), clip.crc, reason, __version__),
        )
        self.clips[number] = clip
        self._numbers[content] = number
        return number

    def name(self, path: str, file: File) -> None:
        """Say that a file holds a clip."""
        self.files[path] = file
        self._execute("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?)", (os.fsencode(path), *_state(file)))

    def forget(self, paths: Iterable[str]) -> None:
        """Remove files. Their clips stay until `tidy`, for they may come back under another name."""
        for path in paths:
            self.files.pop(path, None)
            self._execute("DELETE FROM file WHERE path = ?", (os.fsencode(path),))

    def commit(self) -> None:
        """What was done up to here outlives a kill."""
        if self._base is not None:
            try:
                self._base.commit()
            except sqlite3.Error as error:
                self._fail(error)

    def tidy(self) -> None:
        """Remove clips that no file holds; compact the rows if many belong to none."""
        used = {file.clip for file in self.files.values()}
        for number in [number for number in self.clips if number not in used]:
            del self._numbers[self.clips.pop(number).content]
            self._execute("DELETE FROM clip WHERE id = ?", (number,))
        self.commit()
        alive = sum(len(clip.spans) for clip in self.clips.values())
        if self._disk is not None and self._written - alive > DEAD * self._written:
            try:
                self._compact(self._disk)
            except (OSError, sqlite3.Error) as error:
                self._fail(error)

    def replace(self) -> None:
        """Remove the indexes that this one replaces: it is whole now."""
        for path in self.replaces if not self.problem else []:
            with contextlib.suppress(OSError):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def index(self) -> SearchIndex:
        """What it holds now."""
        parts = [] if self._disk is None or not self._written else [self._disk.mapped(self._written)]
        rows = joined([*parts, *self._kept] or [coded(np.zeros((0, 1), np.float32))])
        return SearchIndex(self.made_by, rows, dict(self.clips), dict(self.files))

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            index = self._read()
        except sqlite3.OperationalError:  # locked, full, not to be written
            raise
        except (sqlite3.Error, ValueError, TypeError, KeyError, FileNotFoundError) as error:
            self._set_aside(error)
            index = self._read()
        self.clips, self.files = index.clips, index.files
        self._written = len(index.rows)
        self._numbers = {clip.content: number for number, clip in self.clips.items()}
        altered = {number for number, clip in self.clips.items() if clip.crc != index.rows.crc(*_range(clip))}
        if altered:
            self.notes.append(
                f"warning: {len(altered)} clips in the index {self._folder} were altered: they are embedded again"
            )
        old = {
            number
            for (number,) in self._execute("SELECT id FROM clip WHERE spans = x'' AND version != ?", (__version__,))
        }
        self.forget([path for path, file in self.files.items() if file.clip in altered | old])
        self.tidy()

    def _read(self) -> SearchIndex:
        self._base = connected(self._folder, write=True)
        if self._base.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
            self._base.executescript(TABLES)
            values = {"format": FORMAT, "made_by": json.dumps(self.made_by), "generation": 0, "width": 0}
            self._base.executemany("INSERT INTO meta VALUES (?, ?)", list(values.items()))
            self._base.commit()
        index = loaded(self._base, self._folder)
        meta = dict(self._base.execute("SELECT key, value FROM meta WHERE key IN ('generation', 'width')"))
        self._generation = int(meta["generation"])
        if meta["width"]:
            self._disk = RowFiles(self._folder, self._generation, int(meta["width"]))
        return index

    def _set_aside(self, error: Exception) -> None:
        if self._base is not None:
            self._base.close()
        self._disk = None
        aside = self._folder.with_name(f"{self._folder.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        self._folder.rename(aside)
        self._folder.mkdir()
        self.notes.append(
            f"warning: the index {self._folder} cannot be used ({type(error).__name__}: {error}) and is built again; "
            f"the old one is now {aside}"
        )

    def _append(self, rows: Rows) -> None:
        if not len(rows):
            return
        try:
            if self._disk is None and self._base is not None:
                self._disk = RowFiles(self._folder, self._generation, rows.exact.shape[1])
                self._execute("UPDATE meta SET value = ? WHERE key = 'width'", (rows.exact.shape[1],))
            if self._disk is not None and not self.problem:
                self._disk.write(self._written, rows)
                self._written += len(rows)
                return
        except OSError as error:
            self._fail(error)
        self._kept.append(rows)

    def _compact(self, disk: RowFiles) -> None:
        """Write the rows that are in use as a new generation, and only then say so."""
        rows = disk.mapped(self._written)
        new = RowFiles(self._folder, self._generation + 1, disk.width)
        clips: dict[int, Clip] = {}
        numbers = [np.zeros(0, np.int64)]
        count = 0
        for number, clip in sorted(self.clips.items(), key=lambda item: item[1].first):
            numbers.append(np.arange(clip.first, clip.first + len(clip.spans)))
            clips[number] = dataclasses.replace(clip, first=count)
            count += len(clip.spans)
        order = np.concatenate(numbers)
        new.write(0, rows.taken(order[:0]))
        for part in blocks(count):
            new.write(part.start, rows.taken(order[part]))
        new.sync()
        for number, clip in clips.items():
            self._execute("UPDATE clip SET first = ? WHERE id = ?", (clip.first, number))
        self._execute("UPDATE meta SET value = ? WHERE key = 'generation'", (self._generation + 1,))
        self.commit()
        if self.problem:
            new.remove()
            return
        self._generation += 1
        self._disk, self._written, self.clips = new, count, clips
        disk.remove()

    def _execute(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        if self._base is None:
            return []
        try:
            return self._base.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:
            self._fail(error)
            return []

    def _fail(self, error: Exception) -> None:
        """From here on nothing is written; what is on the disk stays as it was at the last commit."""
        if not self.problem:
            self.problem = getattr(error, "strerror", None) or str(error)
        if self._base is not None:
            with contextlib.suppress(sqlite3.Error):
                self._base.rollback()
            self._base.close()
            self._base = None


def _range(clip: Clip) -> tuple[int, int]:
    return clip.first, len(clip.spans)


def _state(file: File) -> tuple[int, ...]:
    return file.size, file.mtime_ns, file.ctime_ns, file.inode, file.clip


def _is_another(folder: Path, own: Path) -> bool:
    """Whether it is the index of another method."""
    return folder.name != own.name and folder.is_dir() and folder.name.rpartition("-")[2].isdecimal()
