"""Files that are there whole or not at all, and files that only one process holds."""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

ASIDE = ".tmp"  # how the name of a file ends that is being written


@contextlib.contextmanager
def in_place(path: Path) -> Iterator[Path]:
    """A name to write to; what lies there at the end is synced to the disk and moved to `path`.

    The name is nobody else's: two processes that make the same file, each believing the other dead, do no harm.

    Raises:
      OSError: the disk is full, or the like; `path` is as it was.
    """
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{ASIDE}")
    try:
        yield aside
        sync(aside)
        aside.replace(path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file is on the disk, or the names in a folder, where its file system can do that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a file for this process alone, and remove it at the end; False if it should not wait and another holds it.

    The lock ends with the process, the file may stay. It is one of its own and open for writing: a folder's lock would
    hold on one machine only where the folder lies on NFS. True as well where the file system knows no locks.

    Raises:
      OSError: it cannot be written.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            mine = _lock(descriptor, wait)
            if mine and not _is_at(descriptor, path):
                continue  # the one who held it until now has removed it, and a third may hold a new one
            try:
                yield mine
            finally:
                if mine:
                    path.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
