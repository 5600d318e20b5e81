"""Files and folders that are there whole or not at all, and files that only one process holds."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

ASIDE = ".tmp"  # how the name of a file or folder ends that is still being written

# Addresses of object stores and servers, at the beginning of a text or within a list. `pathlib` makes gs:/ of gs://.
_ADDRESS = re.compile(
    r"(?:^|(?<=[\s,;='\"\[(]))"
    r"(?:gs|gcs|s3|s3a|s3n|r2|oss|az|adl|abfss?|wasbs?|hdfs|hf|https?|s?ftps?|ssh|file):/+[^\s,;'\"\])]*",
    re.IGNORECASE,
)


def address_fault(text: str) -> str | None:
    """Why a text that names files or folders cannot be used: it names an address. None if it does not.

    A program that takes such a text for a path makes a folder called "gs:" and loses in it what it writes.
    """
    found = _ADDRESS.search(text)
    if found is None:
        return None
    if found[0].lower().startswith("hf:"):
        return (
            f"{found[0]} is an address, and only files and folders of this machine are supported here: "
            f"`harvest weights import {found[0]} --out D` makes a model folder of a model on the hub"
        )
    return (
        f"{found[0]} is an address, and only files and folders of this machine are supported: copy them to or from the "
        "object store or server with its own tools (docs/reliability.md)"
    )


@contextlib.contextmanager
def atomic_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """A name to write a file to; at the end that file is synced to the disk and replaces `path`.

    Without `durable` it is not synced, which takes much less time: a kill of the process still leaves the old file or
    the whole new one, but a power cut may leave a damaged one.

    The name is unique: two processes that write the same file do not disturb each other, the later one wins. A link
    is followed: the file it points to is replaced, the link stays.

    Raises:
      OSError: the disk is full, or similar; `path` is as it was and nothing is left beside it.
    """
    path = Path(os.path.realpath(path))
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{ASIDE}")
    try:
        yield aside
        if durable:
            sync(aside)
        aside.replace(path)
        if durable:
            sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a file so that a reader, or the next start after a power cut, finds the old one or the whole new one.

    `durable`: as for `atomic_file`.

    Raises:
      OSError: as for `atomic_file`.
    """
    with atomic_file(path, durable) as aside:
        aside.write_bytes(content)


def append_line(file: FileIO, line: bytes) -> None:
    """Append to a file that is open for appending without a buffer, whole or not at all.

    Raises:
      OSError: the disk is full, or similar; the file is as it was.
    """
    before = os.fstat(file.fileno()).st_size
    written = 0
    try:
        written = file.write(line) or 0
    finally:
        if written < len(line):  # a full disk may take half a line
            file.truncate(before)
    if written < len(line):
        raise OSError(f"{file.name!s}: only {written} of {len(line)} bytes were written")


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file with one on each line, in order; lines that are none are left out.

    A kill may cut a line short. Without a file there are none.
    """
    found = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
            found += [value] if isinstance(value, dict) else []
    return found


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill; at the end it becomes `path`, which must be missing or an empty folder.

    Parent folders are made; those that were missing are removed again if the block fails. What a killed process left
    of the same folder is removed at the start; the folder of a process that is still writing is left alone.

    Raises:
      OSError: the disk is full, `path` is not empty, or similar; nothing is left behind.
    """
    with scratch_folder(path) as aside:
        yield aside
        sync_tree(aside)
        path = Path(os.path.realpath(path))
        os.replace(aside, path)
        sync(path.parent)


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty hidden folder beside `path`, for files that are to be moved to `path` when they are whole.

    It is removed at the end. Parent folders and what a killed process left: as for `atomic_folder`.

    Raises:
      OSError: the disk is full, or similar; nothing is left behind.
    """
    path = Path(os.path.realpath(path))
    missing = [folder for folder in path.parents if not folder.exists()]  # the innermost first
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{_escaped(path.name)}.*{ASIDE}"):
        remove_unless_held(stale)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{ASIDE}")
    try:
        aside.mkdir()
        with _held(aside):
            yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)  # unless it was moved


def remove_unless_held(folder: Path) -> None:
    """Remove what a killed process left of `scratch_folder`; a folder that a running process holds a lock on stays."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes.

    Raises:
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Raises:
      OSError: the disk is full or fails. (A file system without fsync, as some mounted buckets are, is not an error.)
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` of every file and folder below `folder`, and of itself last."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            sync(path)
    sync(folder)


@contextlib.contextmanager
def locked(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a lock file for this process alone, and remove it at the end.

    The lock ends with the process even if the file stays. It is a file of its own and open for writing: the lock of a
    folder would hold on one machine only where the folder lies on NFS.

    Yields:
      False if another process holds it and `wait` is False; True otherwise, also where the file system knows no locks.

    Raises:
      OSError: the file cannot be written.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            mine = _lock(descriptor, wait)
            if mine and not _is_at(descriptor, path):
                continue  # its holder has removed it since, and a third process may hold a new one
            try:
                yield mine
            finally:
                if mine:
                    path.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems know no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
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


def _escaped(name: str) -> str:
    """The name for `Path.glob`: its special characters stand for themselves."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
