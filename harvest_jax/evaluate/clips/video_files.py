"""Finding the video files that annotations name: "video7010", "clips/a.avi", "12@N03_4." and the like.

Annotations name videos with or without a suffix, with one that the file no longer has because it was converted, or in
folders of their author's disk. The folder of videos is listed once; each name is then a look-up.
"""

import dataclasses
import os
import re
from pathlib import Path

from data_pipeline.media_paths import MEDIA_SUFFIXES, STILL_SUFFIXES, local_name
from harvest_jax.errors import DataError
from harvest_jax.terminal import printable

SUFFIXES = frozenset(MEDIA_SUFFIXES)
_ACTIVITYNET = re.compile(r"v_([A-Za-z0-9_-]{11})")  # "v_" and the id of a YouTube video


def stem(name: str) -> str:
    """A name's last part without the suffix of a video or picture: "clips/a.MP4" -> "a", "a.1.2" -> "a.1.2".

    The bare "." at the end of some names of DiDeMo, whose videos had no suffix, is one too.
    """
    base = name.rpartition("/")[2]
    front, suffix = os.path.splitext(base)
    if suffix.lower() in SUFFIXES or (suffix == "." and front):
        return front
    return base


def stems(name: str) -> list[str]:
    """The stem of a name, and for "v_" and a YouTube id (ActivityNet) also that without the "v_"."""
    short = _ACTIVITYNET.fullmatch(stem(name))
    return [stem(name), *([short[1]] if short else [])]


@dataclasses.dataclass(frozen=True)
class VideoFiles:
    """The files below a folder.

    Attributes:
      root: the folder as it was given.
      by_name: paths relative to the folder, by the file's name; "/" between folders.
      by_stem: the same of videos and pictures, by the name without suffix.
    """

    root: Path
    by_name: dict[str, list[str]]
    by_stem: dict[str, list[str]]

    def find(self, name: str) -> str | None:
        """The file that an annotation means: its path relative to the root, for `media_paths.resolve_below`.

        In this order: a file of this very name; one whose name is this and a suffix; one of the same name with another
        suffix; for "v_" and a YouTube id (ActivityNet) all this without the "v_". Where several files fit, those in the
        folders that the name gives come first, then videos before pictures. Upper and lower case differ (YouTube ids
        do), but not in suffixes.

        Returns:
          None if there is no such file.

        Raises:
          DataError: several files fit equally well.
        """
        base = name.rpartition("/")[2]
        for fitting in (self.by_name.get(base), self.by_stem.get(base), *map(self.by_stem.get, stems(name))):
            if fitting:
                return self._one(name, fitting)
        return None

    def _one(self, name: str, fitting: list[str]) -> str:
        name = name.removeprefix("./")
        folder = name.rpartition("/")[0]
        if name in fitting:
            fitting = [name]
        elif folder:
            in_folder = [path for path in fitting if f"/{path}".rpartition("/")[0].endswith(f"/{folder}")]
            fitting = in_folder or fitting
        moving = [path for path in fitting if not path.lower().endswith(STILL_SUFFIXES)]
        fitting = moving or fitting
        others = [path for path in fitting[1:] if not self._same(fitting[0], path)]
        if others:
            raise DataError(
                f"the video {printable(name, 120)!r} is both {printable(fitting[0])} and {printable(others[0])} in "
                f"{self.root}: keep one of them there, or give the folder that is meant"
            )
        return local_name(fitting[0])

    def _same(self, one: str, other: str) -> bool:
        """Whether two paths are one file, by a link."""
        try:
            return os.path.samefile(self.root / one, self.root / other)
        except OSError:
            return False


def list_videos(folder: Path) -> VideoFiles:
    """The files below a folder, in all subfolders; hidden files and linked folders are left out.

    Raises:
      DataError: there is no such folder, it cannot be listed, or it holds no video or picture.
    """
    if not os.path.isdir(folder):
        raise DataError(f"no folder {folder} of videos")
    root = str(folder)
    by_name: dict[str, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    for parent, folders, names in os.walk(root, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(parent, root)
        prefix = "" if below == "." else f"{below}/"
        for name in sorted(names):
            if not name.startswith("."):
                by_name.setdefault(name, []).append(prefix + name)
                front = stem(name)
                if front != name:
                    by_stem.setdefault(front, []).append(prefix + name)
    if not by_stem:
        linked = next((path for path in sorted(folder.iterdir()) if path.is_symlink() and path.is_dir()), None)
        hint = f"; {linked} is a link to a folder: give the folder that it leads to" if linked else ""
        raise DataError(f"{folder} holds no video, only {len(by_name)} other files{hint}")
    return VideoFiles(folder, by_name, by_stem)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from error
