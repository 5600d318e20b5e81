"""The videos of a folder, and an index brought up to date with them: new and changed ones embedded, others let go."""

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
from data_pipeline.media_paths import VideoRejected
from harvest_jax.errors import DataError
from harvest_jax.pixels.square import prepare_clip
from harvest_jax.search.index import Changes, Entry, SearchIndex

# The second kind no decoder of ours opens, but who searches a folder of them should learn why nothing is found.
_READ = (".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".gif", ".3gp", ".3g2", ".mj2")
_NOT_READ = (".mpg", ".mpeg", ".m2ts", ".mts", ".ogv", ".wmv", ".flv")
SUFFIXES = frozenset((*_READ, *_NOT_READ))
BATCH = 16  # clips embedded at a time
SAVE_EVERY = 60.0  # seconds: what a killed search loses at most
# Reasons that lie not in the file's content but in how it was found: such a file is tried again each time.
_PASSING = ("not found", "cannot be opened")


@runtime_checkable
class VideoModel(Protocol):
    """What is asked of a model; `harvest_jax.load` gives one."""

    config: Any

    @property
    def num_frames(self) -> int:
        """Frames the model looks at."""

    def encode_clips(self, clips: UInt8[np.ndarray, "b t s s 3"]) -> Float[np.ndarray, "b d"]:
        """Embeddings, L2-normalised."""


@dataclasses.dataclass(frozen=True)
class Found:
    """The videos of a folder: status by path below it, sorted, and what was passed by.

    `links`: those not followed. `closed`: folders that could not be listed, with the reason.
    """

    root: str
    videos: dict[str, os.stat_result]
    links: list[str]
    closed: list[str]


def find_videos(folder: Path) -> Found:
    """Every file below the folder whose name ends like a video's; hidden ones (`.name`) and their folders are left out.

    Links to files are followed if they stay in the folder, links to folders never (they could lead out, or round).

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

    def note(error: OSError) -> None:
        closed.append(f"{os.path.relpath(error.filename or root, root)}: {error.strerror}")

    for parent, folders, names in os.walk(root, onerror=note):
        for name in folders:
            if not name.startswith(".") and os.path.islink(os.path.join(parent, name)):
                links.append(os.path.relpath(os.path.join(parent, name), root))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in SUFFIXES:
                continue
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, root)
            if os.path.islink(path) and os.path.commonpath((root, os.path.realpath(path))) != root:
                links.append(relative)
                continue
            try:
                status = os.stat(path)
            except OSError:  # gone since it was listed, or a link to nothing
                continue
            if stat.S_ISREG(status.st_mode):
                videos[relative] = status
    return Found(root, dict(sorted(videos.items())), sorted(links), sorted(closed))


def update(
    index: SearchIndex,
    found: Found,
    model: VideoModel,
    workers: int,
    save: Callable[[SearchIndex], None],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Changes:
    """Bring the index's entries up to date, in place.

    Args:
      index: of the same model.
      found: the folder's videos now.
      model: embeds them.
      workers: processes that decode.
      save: called with the index after changes: once a minute, at the end, and when it ends early.
      report: called with the numbers of videos decoded and to be decoded.
    """
    changes = Changes()
    for name in [name for name in index.entries if name not in found.videos]:
        del index.entries[name]
        changes.removed += 1
    todo = []
    for name, status in found.videos.items():
        entry = index.entries.get(name)
        if entry is not None and entry.is_of(status) and not entry.reason.startswith(_PASSING):
            changes.kept += 1
        else:
            changes.added += entry is None
            changes.changed += entry is not None
            todo.append(name)
    saved, dirty = time.monotonic(), changes.removed > 0
    try:
        for entries in _embed(todo, found, model, workers, report):
            index.entries.update(entries)
            dirty = True
            changes.unreadable += [(name, entry.reason) for name, entry in entries.items() if entry.embedding is None]
            if time.monotonic() - saved > SAVE_EVERY:
                save(index)
                saved, dirty = time.monotonic(), False
    finally:  # an interrupted search keeps what it has
        if dirty:
            save(index)
    return changes


def _embed(
    names: list[str], found: Found, model: VideoModel, workers: int, report: Callable[[int, int], None]
) -> Iterator[dict[str, Entry]]:
    """The new entries, some at a time. A file's status is from before it was read: a later change is seen next time."""
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
            report(done, len(names))
            if len(waiting) == BATCH:
                yield rejected | _entries(waiting, found, model)
                waiting, rejected = {}, {}
    yield rejected | _entries(waiting, found, model)


def _entries(clips: dict[str, np.ndarray], found: Found, model: VideoModel) -> dict[str, Entry]:
    if not clips:
        return {}
    rows = np.asarray(model.encode_clips(np.stack(list(clips.values()))), np.float32)
    statuses = [found.videos[name] for name in clips]
    return {
        name: Entry(status.st_size, status.st_mtime_ns, row)
        for name, status, row in zip(clips, statuses, rows, strict=True)
    }
