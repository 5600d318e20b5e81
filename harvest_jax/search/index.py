"""The index file of `harvest search`: the embedding of each video of a folder, and the state of the file it is of.

One safetensors file, so that reading it runs no code: the tensor `embeddings` float32 [N, D], the tensor `files` (UTF-8
JSON, one entry a video) and, in the header, the version that wrote it and a SHA-256 over both.
"""

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from harvest_jax.errors import ConfigError
from harvest_jax.files import write_atomically
from harvest_jax.version import __version__

# The number is raised when frames are chosen, prepared or embedded in another way. 2: Pillow resizes whole pictures.
KIND, NUMBER = "harvest_jax search index", 2
FORMAT = f"{KIND} {NUMBER}"


class DamagedIndexError(Exception):
    """The file is not an index, or damaged; the message is the reason."""


class OutdatedIndexError(Exception):
    """The embeddings in the index were made in another way than this version makes them."""


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
    except OutdatedIndexError:
        return new, f"the index {path} is of another version, which prepared frames differently: it is built again"
    except DamagedIndexError as error:
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
      DamagedIndexError: cut, altered, or another kind of file.
      OutdatedIndexError: written by a version that prepared or embedded frames differently.
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
                raise DamagedIndexError(f"it is not a {FORMAT!r}")
            embeddings, files = file.get_tensor("embeddings"), file.get_tensor("files").tobytes()
        if header["sha256"] != _digest(header["model"], embeddings, files):
            raise DamagedIndexError("its content was altered")
        entries = _entries(json.loads(files), embeddings)
        if header["version"] != __version__:  # this version may read videos that the other could not
            entries = {name: entry for name, entry in entries.items() if entry.embedding is not None}
        return SearchIndex(header["model"], entries)
    except (SafetensorError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DamagedIndexError(f"{type(error).__name__}: {error}") from error


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
    # Python holds names that are not UTF-8 with lone surrogates, which JSON can hold only in escaped form.
    text = json.dumps(files, ensure_ascii=True).encode()
    embeddings = np.stack(rows) if rows else np.zeros((0, 0), np.float32)
    digest = _digest(index.model, embeddings, text)
    header = {"format": FORMAT, "version": __version__, "model": index.model, "sha256": digest}
    content = save({"embeddings": embeddings, "files": np.frombuffer(text, np.uint8)}, header)
    write_atomically(path, content)


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
