"""The videos and pictures of a folder."""

import dataclasses
import os
import stat
from pathlib import Path

from data_pipeline.media_paths import MEDIA_SUFFIXES
from harvest_jax.errors import DataError


@dataclasses.dataclass(frozen=True)
class FolderMedia:
    """The videos and pictures of a folder.

    Attributes:
      root: the folder's real path.
      files: status of each file by its path below the folder, sorted.
      links: links that were not followed.
      closed: "path: reason" of folders that cannot be listed.
    """

    root: str
    files: dict[str, os.stat_result]
    links: list[str]
    closed: list[str]


def find_media(folder: Path) -> FolderMedia:
    """Every file below the folder whose name ends like a video's or a picture's; hidden ones (`.name`) are skipped.

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
    files: dict[str, os.stat_result] = {}
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
            if not is_media(name):
                continue
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, root)
            if os.path.islink(path) and os.path.commonpath((root, os.path.realpath(path))) != root:
                links.append(relative)
                continue
            try:
                status = os.stat(path)
            except OSError:  # removed since it was listed, or a broken link
                continue
            if stat.S_ISREG(status.st_mode):
                files[relative] = status
    return FolderMedia(root, dict(sorted(files.items())), sorted(links), sorted(closed))


def is_media(name: str) -> bool:
    """Whether a file's name is that of a video or picture, and not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in MEDIA_SUFFIXES
