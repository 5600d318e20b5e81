"""Files that are there whole or not at all."""

import contextlib
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
    finally:
        aside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
