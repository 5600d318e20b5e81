"""Where results are written: nothing is overwritten, and what fails leaves nothing behind."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harvest_jax.errors import DataError


def check_free(out: Path) -> None:
    """Raise DataError where something stands that would be overwritten."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there already: remove it, or choose another place")


@contextlib.contextmanager
def parents(out: Path) -> Iterator[None]:
    """The folders around `out`; those that were missing are gone again when something goes wrong."""
    missing = [folder for folder in out.parents if not folder.exists()]  # the innermost first
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def folder_aside(out: Path) -> Iterator[Path]:
    """A folder to fill; it becomes `out` when all went well, and is gone otherwise."""
    aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=".writing-"))
    try:
        yield aside
        aside.chmod(0o777 & ~_umask())  # mkdtemp makes it for its owner only
        os.replace(aside, out)  # onto nothing, or an empty folder
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
