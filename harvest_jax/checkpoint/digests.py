"""Digests of files and of arrays: what makes a damaged checkpoint visible.

Orbax restores flipped bits without a word (20 of 20 single-bit flips in trials), so a folder counts only if its own
`MANIFEST.json`, written last and moved into place in one piece, agrees with every file it lists.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from harvest_jax.files import sync, write_atomically

MANIFEST = "MANIFEST.json"
FORMAT = 1
_HASHING_THREADS = 4  # sha256 runs at 0.5 to 2 GB/s a thread, and releases the interpreter lock


class DamagedError(Exception):
    """A folder does not agree with its manifest; the message is the reason, without the folder's name."""


def write_manifest(folder: Path, record: dict[str, Any]) -> None:
    """List every file of `folder` with its size and SHA-256 in `folder/MANIFEST.json`, beside `record`.

    The files are forced to the disk first: once the manifest is there, a power cut cannot take them away.

    Args:
      folder: complete; nobody writes into it any more.
      record: JSON dict kept in the manifest; the keys "format", "files" and "sha256" are taken.

    Raises:
      OSError: the manifest could not be written; then there is none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    names = [path.relative_to(folder).as_posix() for path in paths]
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        entries = list(pool.map(lambda path: _entry(path, to_disk=True), paths))
    manifest = record | {"format": FORMAT, "files": dict(zip(names, entries, strict=True))}
    text = json.dumps(manifest | {"sha256": _canonical_digest(manifest)}, indent=1, sort_keys=True)
    write_atomically(folder / MANIFEST, text.encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, checked against its own digest; the files it lists are not looked at.

    Raises:
      DamagedError: missing, unreadable or altered.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        digest = manifest.pop("sha256")
    except FileNotFoundError:
        raise DamagedError(f"no {MANIFEST} (the save was not finished)") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedError(f"{MANIFEST} cannot be read ({type(error).__name__}: {error})") from error
    if digest != _canonical_digest(manifest):
        raise DamagedError(f"{MANIFEST} was altered")
    if manifest.get("format") != FORMAT:
        raise DamagedError(f"{MANIFEST} has the format {manifest.get('format')}, not {FORMAT}")
    return manifest


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose files all agree with it. Files that it does not list are ignored.

    Raises:
      DamagedError: naming the first file that is missing, cut or altered.
    """
    manifest = read_manifest(folder)

    def fault(item: tuple[str, dict[str, Any]]) -> str | None:
        name, expected = item
        try:
            size = (folder / name).stat().st_size
            if size != expected["size"]:
                return f"{name} has {size} bytes, not {expected['size']}"
            return None if _entry(folder / name) == expected else f"{name} was altered (its SHA-256 differs)"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror or error})"

    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        for reason in pool.map(fault, sorted(manifest["files"].items())):
            if reason:
                raise DamagedError(reason)
    return manifest


def tree_digest(tree: Any) -> str:
    """SHA-256 (hex) over the sorted paths of a tree of arrays, with the dtype, shape and bytes of each.

    Equal for equal values however the arrays lie on devices and processes. A collective if arrays span processes.
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(named_leaves(tree), key=lambda named: named[0]):
        array = _on_host(leaf)
        digest.update(json.dumps([path, str(array.dtype), list(array.shape)]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def named_leaves(tree: Any) -> Iterable[tuple[str, Any]]:
    """("video/proj/kernel", leaf) for each leaf; the order is the tree's own."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def _on_host(leaf: Any) -> np.ndarray:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    if leaf.is_fully_replicated:
        return np.asarray(leaf.addressable_data(0))
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def _entry(path: Path, to_disk: bool = False) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if to_disk:
            sync(path)
        return {"size": os.fstat(file.fileno()).st_size, "sha256": digest}


def _canonical_digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
