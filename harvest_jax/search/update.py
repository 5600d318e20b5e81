"""An index brought up to date with a folder: windows of several files at once are embedded in full batches."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipeline.decode.spec import TIME_LIMIT
from data_pipeline.decode.window import Window
from data_pipeline.decode.window_pool import WindowDecoder
from data_pipeline.decode.window_rule import WindowRule
from harvest_jax.search.folder import FolderMedia
from harvest_jax.search.index import File, content_of
from harvest_jax.search.model import SearchModel
from harvest_jax.search.writer import IndexWriter
from harvest_jax.terminal import Progress

BATCH = 16  # windows embedded at a time
# Reasons that do not lie in the file's content. Such a file is tried again in each search.
_TRANSIENT = ("not found", "cannot be opened", "timeout", "crash", "too much memory")


@dataclasses.dataclass
class UpdateCounts:
    """What an update did: numbers of files.

    Attributes:
      added, changed: that were new, or had another content.
      moved: those of them whose content the index had: moved files and copies.
      removed, kept: that are gone, that are as they were.
      unreadable: (path, reason) of those tried in this update that cannot be read, or not to their end.
      seconds: of video that was embedded.
    """

    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    kept: int = 0
    unreadable: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


def made_by(model: SearchModel, rule: WindowRule) -> dict[str, Any]:
    """All that decides about the rows of an index, as a JSON object."""
    preprocessing = {
        "frames": model.num_frames,
        "image_size": model.config.video.image_size,
        "resize": model.config.preprocessing.resize,
    }
    return {"model": model.digest, "windows": dataclasses.asdict(rule), "preprocessing": preprocessing}


def update(
    writer: IndexWriter,
    found: FolderMedia,
    model: SearchModel,
    rule: WindowRule,
    workers: int,
    report: Progress,
    time_limit: float = TIME_LIMIT,
) -> UpdateCounts:
    """Bring an index up to date. What is embedded is kept clip by clip, also when it is interrupted.

    Args:
      writer: of an index made by this model and rule.
      found: the folder's files now.
      model: embeds them.
      rule: the windows.
      workers: processes that decode.
      report: called with the number of files read, the number to be read, and the seconds of video so far.
      time_limit: seconds of processor time to decode one window.
    """
    counts = UpdateCounts()
    todo = _sorted_out(writer, found, counts)
    writer.commit()
    try:
        if todo:
            with WindowDecoder(
                model.num_frames,
                model.config.video.image_size,
                model.config.preprocessing.resize,
                rule,
                min(workers, len(todo)),
                time_limit,
            ) as decoder:
                _Embedding(writer, found, model, counts, todo, report).run(decoder)
        gone = [path for path in writer.files if path not in found.files]
        counts.removed = len(gone)
        writer.forget(gone)
        writer.tidy()
    finally:
        writer.commit()
    return counts


def _sorted_out(writer: IndexWriter, found: FolderMedia, counts: UpdateCounts) -> list[str]:
    """The files that may have to be embedded."""
    todo = []
    for path, status in found.files.items():
        file = writer.files.get(path)
        if (
            file is not None
            and file.is_of(status)
            and (file.untouched(status) or _has(found, path, writer.clips[file.clip].content))
        ):
            counts.kept += 1
            if not file.untouched(status):
                writer.name(path, _file(status, file.clip))
        else:
            counts.added += file is None
            counts.changed += file is not None
            todo.append(path)
    writer.forget([path for path in todo if path in writer.files])
    return todo


def _has(found: FolderMedia, path: str, content: str) -> bool:
    try:
        return content_of(os.path.join(found.root, path)) == content
    except OSError:
        return False


def _file(status: os.stat_result, clip: int) -> File:
    return File(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, clip)


@dataclasses.dataclass
class _Work:
    """A file that is being embedded.

    Attributes:
      path, status, content: of it; the status was read first, so that a later change is noticed.
      spans, rows: of the windows embedded so far, in order.
      decoded: number of windows decoded so far.
      reason: at its end: why nothing more of it can be used; None before its end.
    """

    path: str
    status: os.stat_result
    content: str
    spans: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    rows: list[np.ndarray] = dataclasses.field(default_factory=list)
    decoded: int = 0
    reason: str | None = None


class _Embedding:
    """The embedding of files; arguments as of `update`."""

    def __init__(
        self,
        writer: IndexWriter,
        found: FolderMedia,
        model: SearchModel,
        counts: UpdateCounts,
        todo: list[str],
        report: Progress,
    ) -> None:
        self._writer, self._found, self._model, self._counts = writer, found, model, counts
        self._todo, self._report = todo, report
        self._works: list[_Work | None] = []  # by the decoder's number
        self._contents: set[str] = set()  # in work
        self._twins: list[_Work] = []  # files with the content of one in work
        self._pending: list[tuple[_Work, Window]] = []
        self._done = 0

    def run(self, decoder: WindowDecoder) -> None:
        """Embed all files, and name those whose content is known."""
        for number, window, reason in decoder.decode_all(self._paths()):
            work = self._works[number]
            assert work is not None
            if window is not None:
                work.decoded += 1
                self._pending.append((work, window))
                if len(self._pending) == BATCH:
                    self._embed()
            else:
                work.reason = reason
                self._works[number] = None
                if work.decoded == len(work.rows):
                    self._finish(work)
        self._embed()
        for work in self._twins:
            clip = self._writer.number_of(work.content)
            if clip is not None:
                self._name(work, clip)
        self._writer.commit()

    def _paths(self) -> Iterator[str]:
        """The files to decode, as workers become free."""
        for path in self._todo:
            status, full = self._found.files[path], os.path.join(self._found.root, path)
            try:
                content = content_of(full)
            except OSError as error:  # removed or closed since it was listed
                self._counts.unreadable.append((path, f"cannot be opened: {error.strerror}"))
                self._say(1)
                continue
            work = _Work(path, status, content)
            clip = self._writer.number_of(content)
            if clip is not None:
                self._counts.moved += 1
                self._name(work, clip)
                self._say(1)
            elif content in self._contents:
                self._twins.append(work)
                self._say(1)
            else:
                self._contents.add(content)
                self._works.append(work)
                yield full

    def _embed(self) -> None:
        if not self._pending:
            return
        batch, self._pending = self._pending, []
        rows = self._model.encode_clips(np.stack([window.frames for _, window in batch]))
        for (work, window), row in zip(batch, np.asarray(rows, np.float32), strict=True):
            work.rows.append(row)
            before = work.spans[-1][1] if work.spans else 0.0
            self._counts.seconds += max(0.0, window.end - before)
            work.spans.append((window.start, window.end))
        for work in {id(work): work for work, _ in batch}.values():
            if work.reason is not None and work.decoded == len(work.rows):
                self._finish(work)
        self._say(0)

    def _finish(self, work: _Work) -> None:
        """Store a file whose windows are all embedded, unless it was changed meanwhile."""
        reason = work.reason or ""
        if reason:
            self._counts.unreadable.append((work.path, reason))
        if not (reason.startswith(_TRANSIENT) and not work.rows):
            spans = np.array(work.spans, np.float64).reshape(-1, 2)
            rows = np.stack(work.rows) if work.rows else np.zeros((0, 0), np.float32)
            if self._as_it_was(work):
                self._name(work, self._writer.add(work.content, spans, rows, reason))
                self._writer.commit()
            else:
                self._counts.unreadable.append((work.path, "changed while it was read: the next search reads it"))
        self._say(1)

    def _as_it_was(self, work: _Work) -> bool:
        try:
            return _file(os.stat(os.path.join(self._found.root, work.path)), 0) == _file(work.status, 0)
        except OSError:
            return False

    def _name(self, work: _Work, clip: int) -> None:
        self._writer.name(work.path, _file(work.status, clip))

    def _say(self, done: int) -> None:
        self._done += done
        self._report(self._done, len(self._todo), f"{self._counts.seconds:.0f} s of video")
