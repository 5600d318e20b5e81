"""The long videos below a root, and the subtitles of each."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipeline.clips import subtitles
from data_pipeline.media_paths import MOVING_SUFFIXES, local_name
from harvest_jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class LongVideo:
    """A video; `name` and `subtitles` are relative to the root, the latter None if there are none."""

    name: str
    subtitles: str | None


def root_of(sources: Sequence[Path]) -> Path:
    """The real path of the deepest folder that holds all sources.

    Raises:
      DataError: a source does not exist.
    """
    for source in sources:
        if not source.exists():
            raise DataError(f"no video or folder {source}")
    return Path(os.path.commonpath([os.path.realpath(path if path.is_dir() else path.parent) for path in sources]))


def find_videos(sources: Sequence[Path], root: Path) -> list[LongVideo]:
    """The videos among files and in folders with their subfolders, sorted; hidden ones and linked folders are skipped.

    Raises:
      DataError: a folder cannot be listed.
    """
    found = {video.name: video for source in sources for video in _videos_of(source, root)}
    return [found[name] for name in sorted(found)]


def _videos_of(source: Path, root: Path) -> Iterator[LongVideo]:
    if not source.is_dir():
        folder = os.path.realpath(source.parent)
        yield _video(folder, source.name, os.listdir(folder), root)
        return
    for folder, below, names in os.walk(os.path.realpath(source), onerror=_refuse):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in names:
            if name.lower().endswith(MOVING_SUFFIXES) and not name.startswith("."):
                yield _video(folder, name, names, root)


def _video(folder: str, name: str, beside: Sequence[str], root: Path) -> LongVideo:
    where = os.path.relpath(folder, root)
    prefix = "" if where == "." else f"{where}/"
    text = subtitles.beside(os.path.splitext(name)[0], beside)
    return LongVideo(local_name(prefix + name), None if text is None else prefix + text)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from error
