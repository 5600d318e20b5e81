"""The videos of a folder, and an index brought up to date with them."""

import collections
import dataclasses
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from data_pipeline.decode.pool import VideoDecoder
from data_pipeline.media_paths import MOVING_SUFFIXES, VideoRejected
from data_pipeline.sources.skipped_files import SkippedFiles
from harvest_jax.errors import DataError
from harvest_jax.pixels.square import prepare_clip
from harvest_jax.search.index import Entry, SearchIndex
from harvest_jax.terminal import Progress

BATCH = 16  # clips embedded at a time
SAVE_EVERY = 60.0  # seconds between two savings of the index: a killed search loses at most this much work
# Reasons that do not lie in the file's content. Such a file is tried again in each search.
_TRANSIENT = ("not found", "cannot be opened", "timeout", "crash", "too much memory")


@runtime_checkable
class VideoModel(Protocol):
    """What the index needs of a model; `harvest_jax.load` returns one."""

    config: Any

    @property
    def num_frames(self) -> int:
        """Frames taken of a clip."""

    def encode_clips(self, clips: UInt8[np.ndarray, "b t s s 3"]) -> Float[np.ndarray, "b d"]:
        """Embeddings, L2-normalised."""


@dataclasses.dataclass(frozen=True)
class FolderVideos:
    """The videos of a folder.

    Attributes:
      root: the folder's real path.
      videos: status of each video by its path below the folder, sorted.
      links: links that were not followed.
      closed: "path: reason" of folders that cannot be listed.
      skipped: files whose names do not end like a video's.
    """

    root: str
    videos: dict[str, os.stat_result]
    links: list[str]
    closed: list[str]
    skipped: SkippedFiles = dataclasses.field(default_factory=SkippedFiles)


@dataclasses.dataclass
class UpdateCounts:
    """What an update did: numbers of videos; `unreadable` are (path, reason) of those tried in this update."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    kept: int = 0
    unreadable: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def find_videos(folder: Path) -> FolderVideos:
    """Every file below the folder whose name ends like a video's; hidden files and folders (`.name`) are skipped.

    Links to files are followed if they stay in the folder. Links to folders are not followed: they could lead out of
    the folder or in a circle.

    Raises:
      DataError: no such folder, or it cannot be listed.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give the one that holds the videos with --videos")
    root = os.path.realpath(folder)
    try:
        os.listdir(root)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}") from error
    videos: dict[str, os.stat_result] = {}
    links: list[str] = []
    closed: list[str] = []
    skipped = SkippedFiles()

    def note(error: OSError) -> None:
        closed.append(f"{os.path.relpath(error.filename or root, root)}: {error.strerror}")

    for parent, folders, names in os.walk(root, onerror=note):
        for name in folders:
            if not name.startswith(".") and os.path.islink(os.path.join(parent, name)):
                links.append(os.path.relpath(os.path.join(parent, name), root))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, root)
            if os.path.splitext(name)[1].lower() not in MOVING_SUFFIXES:
                skipped.add(relative)
                continue
            if os.path.islink(path) and os.path.commonpath((root, os.path.realpath(path))) != root:
                links.append(relative)
                continue
            try:
                status = os.stat(path)
            except OSError:  # removed since it was listed, or a broken link
                continue
            if stat.S_ISREG(status.st_mode):
                videos[relative] = status
    return FolderVideos(root, dict(sorted(videos.items())), sorted(links), sorted(closed), skipped)


def update(
    index: SearchIndex,
    found: FolderVideos,
    model: VideoModel,
    workers: int,
    save: Callable[[SearchIndex], None],
    report: Progress,
) -> UpdateCounts:
    """Bring the index's entries up to date, in place.

    Args:
      index: of the same model.
      found: the folder's videos now.
      model: embeds them.
      workers: processes that decode.
      save: called with the index after changes: once a minute, at the end, and when the update is interrupted.
      report: called with the number of videos decoded, the number to be decoded, and no note.
    """
    counts = UpdateCounts()
    for name in [name for name in index.entries if name not in found.videos]:
        del index.entries[name]
        counts.removed += 1
    todo = []
    for name, status in found.videos.items():
        entry = index.entries.get(name)
        if entry is not None and entry.is_of(status) and not entry.reason.startswith(_TRANSIENT):
            counts.kept += 1
        else:
            counts.added += entry is None
            counts.changed += entry is not None
            todo.append(name)
    saved, dirty = time.monotonic(), counts.removed > 0
    try:
        for entries in _embed(todo, found, model, workers, report):
            index.entries.update(entries)
            dirty = True
            counts.unreadable += [(name, entry.reason) for name, entry in entries.items() if entry.embedding is None]
            if time.monotonic() - saved > SAVE_EVERY:
                save(index)
                saved, dirty = time.monotonic(), False
    finally:  # an interrupted search keeps its work
        if dirty:
            save(index)
    return counts


def _embed(
    names: list[str], found: FolderVideos, model: VideoModel, workers: int, report: Progress
) -> Iterator[dict[str, Entry]]:
    """The new entries, a batch at a time. Their status was read before the file, so a later change is noticed."""
    if not names:
        return
    waiting: dict[str, np.ndarray] = {}
    rejected: dict[str, Entry] = {}
    due = collections.deque(names)
    spans = ((os.path.join(found.root, name), None, None) for name in names)
    size, resize = model.config.video.image_size, model.config.preprocessing.resize
    with VideoDecoder(model.num_frames, size, min(workers, len(names)), fit=resize) as decoder:
        for done, frames in enumerate(decoder.decode_all(spans), start=1):
            name = due.popleft()
            if isinstance(frames, VideoRejected):
                status = found.videos[name]
                rejected[name] = Entry(status.st_size, status.st_mtime_ns, None, frames.reason)
            else:
                waiting[name] = prepare_clip(frames, model.num_frames, size, resize)
            report(done, len(names), "")
            if len(waiting) == BATCH:
                yield rejected | _entries(waiting, found, model)
                waiting, rejected = {}, {}
    yield rejected | _entries(waiting, found, model)


def _entries(clips: dict[str, np.ndarray], found: FolderVideos, model: VideoModel) -> dict[str, Entry]:
    if not clips:
        return {}
    rows = np.asarray(model.encode_clips(np.stack(list(clips.values()))), np.float32)
    statuses = [found.videos[name] for name in clips]
    return {
        name: Entry(status.st_size, status.st_mtime_ns, row)
        for name, status, row in zip(clips, statuses, rows, strict=True)
    }
