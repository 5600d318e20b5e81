"""The index file of `harvest search`: the embedding of each video of a folder, and the state of the file it is of.

The format is that of `harvest_jax.embeddings_file`, with one JSON entry a video.
"""

import dataclasses
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from harvest_jax import embeddings_file
from harvest_jax.embeddings_file import DamagedFileError, EmbeddingsFile, OutdatedFileError
from harvest_jax.errors import ConfigError
from harvest_jax.version import __version__

KIND = "harvest_jax search index"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One video.

    Attributes:
      size: bytes of the file when it was read.
      mtime_ns: its modification time then, in nanoseconds since 1970.
      embedding: float32 [D], None if the video cannot be read.
      reason: why it cannot be read.
    """

    size: int
    mtime_ns: int
    embedding: Float32[np.ndarray, " width"] | None
    reason: str = ""

    def is_of(self, status: os.stat_result) -> bool:
        """Whether the file still has the size and modification time that it was read with."""
        return (self.size, self.mtime_ns) == (status.st_size, status.st_mtime_ns)


@dataclasses.dataclass(frozen=True)
class SearchIndex:
    """Entries by path below the folder; `model` is the digest of the model that made them."""

    model: str
    entries: dict[str, Entry]


def default_path(folder: Path) -> Path:
    """The index file of a folder if --index names none: in the user's cache, by the folder's real path.

    Raises:
      ConfigError: the user has no home folder.
    """
    real = os.path.realpath(folder)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(real))[:40] or "root"
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise ConfigError("there is no home folder to keep the index in: name a file with --index") from None
    return cache / "harvest_jax" / "search" / f"{name}-{hashlib.sha256(os.fsencode(real)).hexdigest()[:16]}.safetensors"


def open_or_new(path: Path, model: str) -> tuple[SearchIndex, str]:
    """The index in a file if it can be used with a model, otherwise an empty one.

    A damaged file is renamed to NAME.damaged.

    Args:
      path: the index file; need not exist.
      model: digest of the model.

    Returns:
      the index; and why the file was not used, empty if it was used or did not exist.

    Raises:
      ConfigError: the file cannot be read.
    """
    new = SearchIndex(model, {})
    try:
        index = read(path)
    except OSError as error:
        raise ConfigError(f"the index {path} cannot be read ({error.strerror}): name another with --index") from error
    except OutdatedFileError:
        return new, f"the index {path} is of another version, which prepared frames differently: it is built again"
    except DamagedFileError as error:
        kept = ""
        try:
            aside = path.with_name(path.name + ".damaged")
            os.replace(path, aside)
            kept = f"; the old file is now {aside}"
        except OSError:
            pass
        return new, f"warning: the index {path} cannot be used ({error}) and is built again{kept}"
    if index is None:
        return new, ""
    if index.model != model:
        return new, f"the index {path} is of another model: it is built again"
    return index, ""


def read(path: Path) -> SearchIndex | None:
    """The index in a file, None if there is no file.

    Raises:
      DamagedFileError: cut, altered, or another kind of file.
      OutdatedFileError: written by a version that prepared or embedded frames differently.
      OSError: it cannot be read.
    """
    if not path.exists():
        return None
    content = embeddings_file.read(path, KIND)
    try:
        entries = _entries(content.rows, content.embeddings)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DamagedFileError(f"{type(error).__name__}: {error}") from error
    if content.version != __version__:  # this version may read videos that the other could not
        entries = {name: entry for name, entry in entries.items() if entry.embedding is not None}
    return SearchIndex(content.maker, entries)


def write(path: Path, index: SearchIndex) -> None:
    """Write the file; a reader finds either the old one or the complete new one.

    Raises:
      OSError: it cannot be written; the old file is unchanged.
    """
    rows: list[np.ndarray] = []
    files: list[list[Any]] = []
    for name, entry in sorted(index.entries.items()):
        row = None if entry.embedding is None else len(rows)
        if entry.embedding is not None:
            rows.append(entry.embedding)
        files.append([name, entry.size, entry.mtime_ns, row, entry.reason])
    embeddings = np.stack(rows) if rows else np.zeros((0, 0), np.float32)
    embeddings_file.write(path, KIND, EmbeddingsFile(index.model, embeddings, files, __version__))


def _entries(files: list[list[Any]], embeddings: np.ndarray) -> dict[str, Entry]:
    return {
        name: Entry(size, mtime_ns, None if row is None else embeddings[row], reason)
        for name, size, mtime_ns, row, reason in files
    }
