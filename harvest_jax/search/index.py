"""The index file of `harvest search`: what a model made of each video of a folder, and what was seen of the file.

One safetensors file, so that reading it runs nothing: the tensor `embeddings` float32 [N, D], the tensor `files` (UTF-8
JSON, one entry a video) and, in the header, what wrote it and a SHA-256 over both.
"""

import dataclasses
import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from harvest_jax.version import __version__

# Another number where frames are chosen, prepared or embedded in another way. 2: Pillow resizes the whole pictures.
KIND, NUMBER = "harvest_jax search index", 2
FORMAT = f"{KIND} {NUMBER}"


class DamagedIndexError(Exception):
    """A file that is no whole index; the message is the reason."""


class OutdatedIndexError(Exception):
    """An index whose embeddings were made in another way than today's."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One video: `size` and `mtime_ns` of the file when it was read, and its embedding or why there is none."""

    size: int
    mtime_ns: int
    embedding: Float32[np.ndarray, " width"] | None
    reason: str = ""

    def is_of(self, status: os.stat_result) -> bool:
        """Whether the file is still the one that was read, as far as size and time tell."""
        return (self.size, self.mtime_ns) == (status.st_size, status.st_mtime_ns)


@dataclasses.dataclass(frozen=True)
class SearchIndex:
    """Entries by path below the folder, and the digest of the model that they are of."""

    model: str
    entries: dict[str, Entry]


@dataclasses.dataclass
class Changes:
    """What an update did: numbers of videos; `unreadable` are (path, reason) of those found out now."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    kept: int = 0
    unreadable: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def read(path: Path) -> SearchIndex | None:
    """The index in a file, None if there is no file.

    Raises:
      DamagedIndexError: cut, altered, or another kind of file.
      OutdatedIndexError: made by a version that prepared or embedded frames differently.
      OSError: it cannot be read.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT and header.get("format", "").startswith(f"{KIND} "):
                raise OutdatedIndexError(header["format"])
            if header.get("format") != FORMAT:
                raise DamagedIndexError(f"it is no file of the kind {FORMAT!r}")
            embeddings, files = file.get_tensor("embeddings"), file.get_tensor("files").tobytes()
        if header["sha256"] != _digest(header["model"], embeddings, files):
            raise DamagedIndexError("its content was altered")
        entries = _entries(json.loads(files), embeddings)
        if header["version"] != __version__:  # another decoder may read what this one could not
            entries = {name: entry for name, entry in entries.items() if entry.embedding is not None}
        return SearchIndex(header["model"], entries)
    except (SafetensorError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DamagedIndexError(f"{type(error).__name__}: {error}") from error


def write(path: Path, index: SearchIndex) -> None:
    """Write the file; a reader finds the old one or the whole new one.

    Raises:
      OSError: it cannot be written; the old one is still there.
    """
    rows: list[np.ndarray] = []
    files: list[list[Any]] = []
    for name, entry in sorted(index.entries.items()):
        row = None if entry.embedding is None else len(rows)
        if entry.embedding is not None:
            rows.append(entry.embedding)
        files.append([name, entry.size, entry.mtime_ns, row, entry.reason])
    # Names that are not UTF-8 reach Python as lone surrogates, which only escaped JSON can carry.
    text = json.dumps(files, ensure_ascii=True).encode()
    embeddings = np.stack(rows) if rows else np.zeros((0, 0), np.float32)
    digest = _digest(index.model, embeddings, text)
    header = {"format": FORMAT, "version": __version__, "model": index.model, "sha256": digest}
    content = save({"embeddings": embeddings, "files": np.frombuffer(text, np.uint8)}, header)
    # A name of its own for each writer: two searches at a time must not write into one scratch file. (tempfile would
    # hide the index of a shared folder from everyone else.)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        with open(scratch, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _digest(model: str, embeddings: np.ndarray, files: bytes) -> str:
    digest = hashlib.sha256(json.dumps([model, str(embeddings.dtype), list(embeddings.shape)]).encode())
    digest.update(np.ascontiguousarray(embeddings).tobytes())
    digest.update(files)
    return digest.hexdigest()


def _entries(files: list[list[Any]], embeddings: np.ndarray) -> dict[str, Entry]:
    return {
        name: Entry(size, mtime_ns, None if row is None else embeddings[row], reason)
        for name, size, mtime_ns, row, reason in files
    }
