"""Digests of the files of a folder, by which damage is found.

Orbax restores flipped bits without an error (20 of 20 single-bit flips in trials). A folder is therefore complete only
with its `MANIFEST.json`, which is written last and atomically, and sound only if every file agrees with it.

A file that cannot be read at the moment (EIO, ESTALE, EACCES ...) says nothing about its content. That is no damage but
a CheckpointError, so that nobody discards a folder for it.
"""

import errno
import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harvest_jax.errors import CheckpointError
from harvest_jax.files import sync, write_atomically

MANIFEST = "MANIFEST.json"
FORMAT = 1
_HASHING_THREADS = 4  # sha256 runs at 0.5 to 2 GB/s a thread, and releases the interpreter lock
# No entry of this name, or one of another kind.
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


class DamagedError(Exception):
    """A folder does not agree with its manifest. The message is the reason, without the folder's name."""


class UnfinishedError(DamagedError):
    """A folder has no manifest: its save was not finished, or it is not a checkpoint."""


def write_digests(folder: Path, record: dict[str, Any]) -> None:
    """List every file of `folder` with its size and SHA-256 in `folder/MANIFEST.json`, beside `record`.

    The files are synced to the disk first: once the manifest is there, a power cut cannot lose them.

    Args:
      folder: complete; nothing writes to it any more.
      record: JSON dict that the manifest keeps; the keys "format", "files" and "sha256" are reserved.

    Raises:
      OSError: the manifest could not be written; there is none then.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    names = [path.relative_to(folder).as_posix() for path in paths]
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        entries = list(pool.map(lambda path: _entry(path, to_disk=True), paths))
    manifest = record | {"format": FORMAT, "files": dict(zip(names, entries, strict=True))}
    text = json.dumps(manifest | {"sha256": manifest_digest(manifest)}, indent=1, sort_keys=True)
    write_atomically(folder / MANIFEST, text.encode())


def read_digests(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, checked against its own digest; the files that it lists are not read.

    Raises:
      DamagedError: missing (then UnfinishedError) or altered.
      CheckpointError: it cannot be read at the moment.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        digest = manifest.pop("sha256")
    except FileNotFoundError:
        raise UnfinishedError(f"no {MANIFEST} (the save was not finished)") from None
    except OSError as error:
        raise unreadable(folder / MANIFEST, error) from error
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedError(f"{MANIFEST} cannot be read ({type(error).__name__}: {error})") from error
    if digest != manifest_digest(manifest):
        raise DamagedError(f"{MANIFEST} was altered")
    if manifest.get("format") != FORMAT:
        raise DamagedError(
            f"{MANIFEST} has the format {manifest.get('format')} (expected {FORMAT}): another version wrote it"
        )
    return manifest


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, after every file was checked against it. Files that it does not list are ignored.

    Raises:
      DamagedError: naming the first file that is missing, cut or altered.
      CheckpointError: a file cannot be read at the moment.
    """
    manifest = read_digests(folder)

    def fault(item: tuple[str, dict[str, Any]]) -> str | None:
        name, expected = item
        try:
            size = (folder / name).stat().st_size
            if size != expected["size"]:
                return f"{name} has {size} bytes (expected {expected['size']})"
            return None if _entry(folder / name) == expected else f"{name} was altered (its SHA-256 differs)"
        except OSError as error:
            failure = unreadable(folder / name, error)
            if isinstance(failure, DamagedError):
                return str(failure)
            raise failure from error

    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        for reason in pool.map(fault, sorted(manifest["files"].items())):
            if reason:
                raise DamagedError(reason)
    return manifest


def unreadable(path: Path, error: OSError) -> CheckpointError | DamagedError:
    """What to raise for a file or folder of a checkpoint that could not be read: damage only if it is not there."""
    if error.errno in _NO_FILE:
        return DamagedError(f"{path.name} cannot be read ({error.strerror or error})")
    return CheckpointError(_at_the_moment(path, error))


def _at_the_moment(path: Path, error: OSError) -> str:
    return (
        f"{path} cannot be read ({error.strerror or error}): that is a fault of the disk or the network, or a missing "
        "permission, not damage; nothing was moved or deleted; correct it and run the same command again"
    )


def is_folder(path: Path) -> bool:
    """Whether a folder is there.

    Raises:
      CheckpointError: that cannot be known at the moment. (`Path.is_dir` may answer False.)
    """
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        failure = unreadable(path, error)
        if isinstance(failure, DamagedError):
            return False
        raise failure from error
    except ValueError:  # a text that is no name
        return False


def names_in(folder: Path) -> list[str]:
    """The names in a folder.

    Raises:
      CheckpointError: they cannot be read.
    """
    try:
        return os.listdir(folder)
    except OSError as error:
        raise CheckpointError(_at_the_moment(folder, error)) from error


def manifest_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 (hex) of a manifest: with the digests in it, one for the whole content of a folder."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _entry(path: Path, to_disk: bool = False) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if to_disk:
            sync(path)
        return {"size": os.fstat(file.fileno()).st_size, "sha256": digest}
