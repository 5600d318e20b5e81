"""All that the server knows of search: a folder and its index, kept up to date in a thread of its own.

This is the one module between the server and `harvest_jax.search`.
"""

import contextlib
import dataclasses
import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from data_pipeline.decode.window_rule import WindowRule
from data_pipeline.media_paths import STILL_SUFFIXES
from harvest_jax.errors import ConfigError, DataError, HarvestError
from harvest_jax.search import index as index_folder
from harvest_jax.search import query, update, watch
from harvest_jax.search.find import NEUTRAL, Filters, Searcher
from harvest_jax.search.folder import find_media
from harvest_jax.search.writer import open_writer
from harvest_jax.terminal import one_line, printable

NEWS_EVERY = 2.0  # seconds: how often what was embedded in the meantime becomes findable
NEWS_SHARE = 0.05  # of the update's time that this may take
CLOSE = 5.0  # seconds that an update gets to end when the server does


@dataclasses.dataclass(frozen=True)
class Moment:
    """A moment that was found.

    Attributes:
      file: the name by which requests ask for the file: no path, so that no request can name another one.
      path: below the folder, with the system's own bytes in it (`os.fsdecode`).
      start, end: seconds in the file; both 0 of a picture.
      score: cosine of the query and the best window.
      z: how many standard deviations that is above the folder's usual scores.
      copies: paths of other files with the same content.
    """

    file: str
    path: str
    start: float
    end: float
    score: float
    z: float
    copies: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The name by which requests ask for more like it."""
        return f"{self.file}@{self.start:.3f},{self.end:.3f}"

    @property
    def is_picture(self) -> bool:
        """Whether the file is a picture, which has no duration."""
        return self.path.lower().endswith(STILL_SUFFIXES)


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far the update of the index is.

    Attributes:
      state: "indexing", "ready", or "failed" (`problem` says why; what was found before can be searched).
      done, total: files to embed in this update.
      files: those that can be searched.
      unreadable: those that cannot be read.
      problem: one line, empty if there is none.
      note: more about this update, such as the seconds of video so far; may be empty.
    """

    state: str
    done: int = 0
    total: int = 0
    files: int = 0
    unreadable: int = 0
    problem: str = ""
    note: str = ""


class Library:
    """A folder of videos and pictures, and its index.

    Args:
      model: as `harvest_jax.load` returns it; it embeds the videos, in the library's own thread.
      folder: with all folders below it.
      index: the index; None: that of `harvest search`.
      rule: how long videos are cut.
      workers: processes that decode.

    Raises:
      DataError: no such folder, or it cannot be listed.
    """

    def __init__(self, model: Any, folder: Path, index: Path | None, rule: WindowRule, workers: int) -> None:
        find_media(folder)
        self.root = os.path.realpath(folder)
        self.progress = Progress("indexing")
        self._model, self._folder, self._rule, self._workers = model, folder, rule, workers
        self._path = index or index_folder.default_path(folder)
        self._made_by = update.made_by(model, rule)
        self._neutral = np.asarray(model.encode_text(list(NEUTRAL)), np.float32)
        self._searcher: Searcher | None = None
        self._ids: dict[str, str] = {}  # by path
        self._paths: dict[str, str] = {}  # by id; of files that are gone, too
        self._again = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._keep_current, name="index", daemon=True)

    def start(self, watched: bool = True) -> None:
        """Begin to bring the index up to date; what it has already can be found at once.

        Args:
          watched: do so again when files come, change or go.
        """
        with contextlib.suppress(ConfigError):  # there is none yet, or the update says what is wrong with it
            self._show(index_folder.open_index(self._path, self._made_by))
        self._again.set()
        self._thread.start()
        if watched:
            threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def refresh(self) -> None:
        """Look for new, changed and removed files again, after the update in progress."""
        self._again.set()

    def close(self) -> None:
        """End an update; the files that it has embedded are kept."""
        self._closing = True
        self._again.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE)

    def find(
        self,
        parts: Sequence[tuple[float, Float32[np.ndarray, " d"]]],
        of_words: bool,
        top: int,
        group: str = "moment",
        min_score: float | None = None,
        filters: Filters | None = None,
    ) -> list[Moment]:
        """The moments that fit best.

        Args:
          parts: weight and embedding of each part of the query, at least one.
          of_words: all parts are words.
          top, group, min_score, filters: as of `search.find.Searcher.find`.

        Raises:
          DataError: the parts cancel each other.
        """
        total = sum(weight * vector for weight, vector in parts)
        length = float(np.linalg.norm(total))
        if length < 1e-3:
            raise DataError("the parts of the query cancel each other")
        searcher = self._searcher
        if searcher is None:
            return []
        asked = query.Query("", np.asarray(total / length, np.float32), of_words)
        return [
            Moment(self._id(one.path), one.path, one.start, one.end, one.score, one.z, one.copies)
            for one in searcher.find(asked, top, group, min_score, filters)
        ]

    def vector(self, moment: str) -> Float32[np.ndarray, " d"] | None:
        """The embedding of a moment (`Moment.id`), mean of its windows; None: it is not there (any more)."""
        file, _, times = moment.partition("@")
        searcher, path = self._searcher, self._paths.get(file)
        if searcher is None or path is None or path not in searcher.index.files:
            return None
        try:
            start, end = (float(time) for time in times.split(","))
        except ValueError:
            return None
        clip = searcher.index.clips[searcher.index.files[path].clip]
        within = (clip.spans[:, 0] >= start - 0.01) & (clip.spans[:, 1] <= end + 0.01)
        rows = searcher.index.rows.exact[clip.first + np.flatnonzero(within)].astype(np.float32)
        mean = rows.sum(axis=0)
        return mean / np.linalg.norm(mean) if len(rows) else None

    def path(self, file: str) -> str | None:
        """The path below the folder of a file (`Moment.file`); None: it is not in the index (any more)."""
        path = self._paths.get(file)
        return path if path is not None and self._searcher and path in self._searcher.index.files else None

    def folders(self, most: int = 200) -> list[str]:
        """Folders below the library's that hold files, for a list to choose from."""
        files = self._searcher.index.files if self._searcher else {}
        return sorted({os.path.dirname(path) for path in files} - {""})[:most]

    def _id(self, path: str) -> str:
        """The same after every start."""
        if path not in self._ids:
            self._ids[path] = hashlib.sha256(os.fsencode(path)).hexdigest()[:20]
            self._paths[self._ids[path]] = path
        return self._ids[path]

    def _keep_current(self) -> None:
        while True:
            self._again.wait()
            self._again.clear()
            if self._closing:
                return
            try:
                self._update()
            except _ClosingError:
                return
            except Exception as error:  # what can be searched already still can
                known = isinstance(error, HarvestError | OSError)
                problem = printable(one_line(error if known else f"{type(error).__name__}: {error}", 500))
                self.progress = dataclasses.replace(self.progress, state="failed", problem=problem)
                _say(problem)

    def _update(self) -> None:
        self.progress = dataclasses.replace(self.progress, state="indexing", done=0, total=0, problem="", note="")
        found = find_media(self._folder)
        with open_writer(self._path, self._made_by) as writer:
            for note in writer.notes:
                _say(note)
            news = _Seldom(lambda: self._show(writer.index()))

            def report(done: int, total: int, note: str = "") -> None:
                if self._closing:
                    raise _ClosingError
                self.progress = dataclasses.replace(self.progress, done=done, total=total, note=note)
                news()

            counts = update.update(writer, found, self._model, self._rule, self._workers, report)
            if writer.problem:
                _say(f"warning: the index cannot be saved, the next start embeds these files again: {writer.problem}")
            else:
                writer.replace()
            self._show(writer.index())
        for name, reason in counts.unreadable:
            _say(f"cannot be read: {printable(name)}: {reason}")
        self.progress = dataclasses.replace(self.progress, state="ready", problem=writer.problem)

    def _show(self, index: index_folder.SearchIndex) -> None:
        for path in index.files:
            self._id(path)
        self._searcher = Searcher(index, self._neutral) if len(index.rows) else None
        unreadable = sum(not len(index.clips[file.clip].spans) for file in index.files.values())
        self.progress = dataclasses.replace(self.progress, files=len(index.files) - unreadable, unreadable=unreadable)

    def _watch(self) -> None:
        try:
            for _ in watch.changes(Path(self.root)):
                self.refresh()
        except Exception as error:  # too many folders for the system's watches, a file system without them
            _say(f"warning: changes in the folder are not noticed, ask for them on the page: {printable(error)}")


class _ClosingError(Exception):
    """The server ends, and with it the update."""


class _Seldom:
    """Calls a function when NEWS_EVERY has passed, more seldom if it takes long."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function, self._due = function, time.monotonic() + NEWS_EVERY

    def __call__(self) -> None:
        began = time.monotonic()
        if began >= self._due:
            self._function()
            took = time.monotonic() - began
            self._due = began + took + max(NEWS_EVERY, took / NEWS_SHARE)


def _say(line: str) -> None:
    print(f"harvest serve: {line}", file=sys.stderr, flush=True)
