"""The file or folder that a command writes: nothing is overwritten, and it appears whole or not at all."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from harvest_jax.errors import DataError, HarvestError
from harvest_jax.files import atomic_folder, scratch_folder, sync

# Versions up to 0.1.0 wrote into folders of this name, in the output folder or beside it, and held no lock on them.
LEFTOVER = ".writing-*"
LEFTOVER_SECONDS = 600.0  # seconds without a change after which a leftover is removed


def check_free(out: Path) -> None:
    """Check that nothing is in the way of a new file or folder; what killed commands left there is removed.

    Raises:
      DataError: `out` is a file, a folder that is not empty, or a mount point.
    """
    remove_leftovers(out)
    if out.is_dir() and os.path.ismount(os.path.realpath(out)):
        raise DataError(f"{out} is a mount point, which cannot be replaced: give a new folder inside it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists already: remove it, or give another path")


def remove_leftovers(out: Path) -> None:
    """Remove what killed commands of earlier versions left in the folder `out` and beside it."""
    now = time.time()
    target = Path(os.path.realpath(out))
    beside = [path for path in target.parent.glob(LEFTOVER) if now - _last_change(path) > LEFTOVER_SECONDS]
    for path in (*target.glob(LEFTOVER), *beside):
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """An empty folder to fill; at the end it becomes `out`. See `files.atomic_folder`.

    Raises:
      DataError: `out` is in use (`check_free`).
      HarvestError: it cannot be written.
    """
    check_free(out)
    with described_errors(out), atomic_folder(out) as aside:
        yield aside


@contextlib.contextmanager
def new_file(out: Path) -> Iterator[Path]:
    """A name to write a file to; at the end the file becomes `out`.

    Raises:
      DataError: `out` is in use (`check_free`) or an empty folder.
      HarvestError: it cannot be written.
    """
    check_free(out)
    if out.is_dir():
        raise DataError(f"{out} is a folder, and one file is written here: give another path")
    target = Path(os.path.realpath(out))
    with described_errors(out), scratch_folder(target) as scratch:
        yield scratch / target.name
        sync(scratch / target.name)
        (scratch / target.name).replace(target)
        sync(target.parent)


@contextlib.contextmanager
def described_errors(out: Path) -> Iterator[None]:
    """The system's errors, such as a full disk or no permission, as one HarvestError that names `out`."""
    try:
        yield
    except OSError as error:
        raise HarvestError(f"{out} could not be written: {error.strerror or error}") from error


def _last_change(folder: Path) -> float:
    """Seconds since 1970; of the folder or of what is in it."""
    changes = [0.0]
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(OSError):
            changes.append(path.lstat().st_mtime)
    return max(changes)
