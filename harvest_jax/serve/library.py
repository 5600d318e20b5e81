"""All that the server knows of search: a folder of videos with its index, brought up to date in a thread of its own.

This is the one module between the server and `harvest_jax.search`.
"""

import dataclasses
import hashlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from data_pipeline.media_paths import STILL_SUFFIXES
from harvest_jax.errors import HarvestError
from harvest_jax.search import index as index_file
from harvest_jax.search.update import find_videos, update
from harvest_jax.terminal import printable

NEWS_EVERY = 2.0  # seconds: how often what was embedded in the meantime becomes findable
CLOSE = 5.0  # seconds that an update gets to save its work when the server ends


@dataclasses.dataclass(frozen=True)
class Moment:
    """A span of a file that was found.

    Attributes:
      file: the name by which requests ask for the file: no path, so that no request can name another one.
      path: below the folder, with the system's own bytes in it (`os.fsdecode`).
      start: seconds in the file.
      end: seconds; None: its end.
      score: cosine of the query and the moment.
    """

    file: str
    path: str
    start: float
    end: float | None
    score: float

    @property
    def id(self) -> str:
        """The name by which requests ask for more like it."""
        return f"{self.file}@{self.start:g}"

    @property
    def is_picture(self) -> bool:
        """Whether the file is a picture, which has no duration."""
        return self.path.lower().endswith(STILL_SUFFIXES)


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far the update of the index is.

    Attributes:
      state: "indexing", "ready", or "failed" (`problem` says why; what was found before can be searched).
      done, total: videos to embed in this update.
      videos: those that can be searched.
      unreadable: those that cannot be read.
      problem: one line, empty if there is none.
    """

    state: str
    done: int = 0
    total: int = 0
    videos: int = 0
    unreadable: int = 0
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class _Searchable:
    """What can be found at a time: never changed, but replaced as a whole."""

    paths: list[str]
    files: dict[str, str]  # path by file id
    rows: dict[str, int]  # row of the matrix by file id
    matrix: Float32[np.ndarray, "n d"]


class Library:
    """A folder of videos and its index.

    Args:
      model: embeds the videos; belongs to the index.
      folder: with all folders below it.
      index: the index file; None: that of `harvest search`.
      workers: processes that decode.

    Raises:
      DataError: no such folder, or it cannot be listed.
    """

    def __init__(self, model: Any, folder: Path, index: Path | None, workers: int) -> None:
        find_videos(folder)
        self.root = os.path.realpath(folder)
        self.progress = Progress("indexing")
        self._model, self._folder, self._workers = model, folder, workers
        self._path = index or index_file.default_path(folder)
        self._now = _searchable(index_file.SearchIndex(model.digest, {}))
        self._again = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._keep_current, name="index", daemon=True)

    def start(self) -> None:
        """Begin to bring the index up to date; what it has already can be found at once."""
        self._again.set()
        self._thread.start()

    def refresh(self) -> None:
        """Look for new, changed and removed files again, after the update in progress."""
        self._again.set()

    def close(self) -> None:
        """End an update; what it has embedded is saved."""
        self._closing = True
        self._again.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE)

    def find(
        self, query: Float32[np.ndarray, " d"], top: int, min_score: float = -1.0, folder: str = ""
    ) -> list[Moment]:
        """The moments with the highest cosine.

        Args:
          query: float32 [D], L2-normalised.
          top: how many at most.
          min_score: none below it.
          folder: only files in this folder below the library's, or in a folder below that one; empty: all.
        """
        now = self._now
        if not now.paths:
            return []
        scores = now.matrix @ query
        within = f"{folder.strip('/')}/" if folder.strip("/") else ""
        if within:
            scores = np.where([path.startswith(within) for path in now.paths], scores, -np.inf)
        best = np.argsort(-scores, kind="stable")[:top]
        return [
            Moment(file_id(now.paths[i]), now.paths[i], 0.0, None, float(scores[i]))
            for i in best
            if np.isfinite(scores[i]) and scores[i] >= min_score
        ]

    def vector(self, moment: str) -> Float32[np.ndarray, " d"] | None:
        """The embedding of a moment (`Moment.id`); None: it is not there (any more)."""
        now = self._now
        row = now.rows.get(moment.partition("@")[0])
        return None if row is None else now.matrix[row]

    def path(self, file: str) -> str | None:
        """The path below the folder of a file (`Moment.file`); None: it is not there (any more)."""
        return self._now.files.get(file)

    def folders(self, most: int = 200) -> list[str]:
        """Folders below the library's that hold files, for a list to choose from."""
        found = {os.path.dirname(path) for path in self._now.paths}
        return sorted(found - {""})[:most]

    def _keep_current(self) -> None:
        while not self._closing:
            self._again.wait()
            self._again.clear()
            if self._closing:
                return
            try:
                self._update()
            except _Closing:
                return
            except (HarvestError, OSError) as error:
                problem = printable(" ".join(str(error).split()))
                self.progress = dataclasses.replace(self.progress, state="failed", problem=problem)
                _say(problem)

    def _update(self) -> None:
        self.progress = dataclasses.replace(self.progress, state="indexing", done=0, total=0, problem="")
        found = find_videos(self._folder)
        index, problem = index_file.open_or_new(self._path, self._model.digest)
        if problem:
            _say(problem)
        self._show(index)
        shown = time.monotonic()

        def save(index: index_file.SearchIndex) -> None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                index_file.write(self._path, index)
            except OSError as error:
                _say(f"warning: the index cannot be saved, so these videos are embedded again: {error}")

        def report(done: int, total: int, note: str = "") -> None:
            nonlocal shown
            if self._closing:
                raise _Closing
            if time.monotonic() - shown > NEWS_EVERY:
                self._show(index)
                shown = time.monotonic()
            self.progress = dataclasses.replace(self.progress, done=done, total=total)

        counts = update(index, found, self._model, self._workers, save, report)
        for name, reason in counts.unreadable:
            _say(f"cannot be read: {printable(name)}: {reason}")
        self._show(index)
        self.progress = dataclasses.replace(self.progress, state="ready")

    def _show(self, index: index_file.SearchIndex) -> None:
        self._now = _searchable(index)
        unreadable = len(index.entries) - len(self._now.paths)
        self.progress = dataclasses.replace(self.progress, videos=len(self._now.paths), unreadable=unreadable)


def file_id(path: str) -> str:
    """The name of a file in requests: a digest of its path below the folder, the same after every start."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:20]


class _Closing(Exception):
    """The server ends: an update stops after the video in work."""


def _searchable(index: index_file.SearchIndex) -> _Searchable:
    rows = [(path, entry.embedding) for path, entry in sorted(index.entries.items()) if entry.embedding is not None]
    ids = [file_id(path) for path, _ in rows]
    matrix = np.stack([row for _, row in rows]) if rows else np.zeros((0, 0), np.float32)
    paths = [path for path, _ in rows]
    return _Searchable(paths, dict(zip(ids, paths, strict=True)), {one: row for row, one in enumerate(ids)}, matrix)


def _say(line: str) -> None:
    print(f"harvest serve: {line}", file=sys.stderr, flush=True)
