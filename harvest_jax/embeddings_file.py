"""A file of embeddings: a segment of the store of `harvest eval`.

One safetensors file, so that reading it runs no code: the tensor `embeddings` float32 [N, D], the tensor `files` (UTF-8
JSON that says what the rows are of; an index of videos was the first such file, hence the name) and, in the header, the
kind of file, the version that wrote it, what made the embeddings (`model`), and a SHA-256 over all three.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from harvest_jax.files import write_atomically
from harvest_jax.version import __version__

# Raised when frames are chosen, prepared or embedded in another way. 2: Pillow resizes whole pictures.
# The index of `harvest search` has it in its name, too.
METHOD = 2


class DamagedFileError(Exception):
    """The file is of another kind, or damaged; the message is the reason."""


class OutdatedFileError(Exception):
    """The embeddings in the file were made in another way than this version makes them."""


@dataclasses.dataclass(frozen=True)
class EmbeddingsFile:
    """What a file holds.

    Attributes:
      maker: what made the embeddings: the digest of a model, or of a model with everything else that decides.
      embeddings: one row for each of what was embedded.
      rows: JSON value that says what the rows are of.
      version: of harvest_jax, that wrote the file.
    """

    maker: str
    embeddings: Float32[np.ndarray, "rows width"]
    rows: Any
    version: str = __version__


def format_of(kind: str) -> str:
    """The header's `format`."""
    return f"{kind} {METHOD}"


def read(path: Path, kind: str) -> EmbeddingsFile:
    """The content of a file.

    Args:
      path: an existing file.
      kind: of file, such as "harvest_jax stored embeddings".

    Raises:
      DamagedFileError: cut, altered, or another kind of file.
      OutdatedFileError: written by a version that prepared or embedded frames differently.
      OSError: it cannot be read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != format_of(kind):
                if header.get("format", "").startswith(f"{kind} "):
                    raise OutdatedFileError(header["format"])
                raise DamagedFileError(f"it is not a {format_of(kind)!r}")
            embeddings, rows = file.get_tensor("embeddings"), file.get_tensor("files").tobytes()
        if header["sha256"] != _digest(header["model"], embeddings, rows):
            raise DamagedFileError("its content was altered")
        return EmbeddingsFile(header["model"], embeddings, json.loads(rows), header["version"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedFileError(f"{type(error).__name__}: {error}") from error


def write(path: Path, kind: str, content: EmbeddingsFile, durable: bool = True) -> None:
    """Write the file; a reader finds either the old one or the complete new one.

    `durable`: as for `files.atomic_file`. `read` knows what a power cut leaves as damaged.

    Raises:
      OSError: it cannot be written; the old file is unchanged.
    """
    # Python holds names that are not UTF-8 with lone surrogates, which JSON can hold only in escaped form.
    rows = json.dumps(content.rows, ensure_ascii=True).encode()
    header = {
        "format": format_of(kind),
        "version": content.version,
        "model": content.maker,
        "sha256": _digest(content.maker, content.embeddings, rows),
    }
    tensors = {"embeddings": np.ascontiguousarray(content.embeddings), "files": np.frombuffer(rows, np.uint8)}
    write_atomically(path, save(tensors, header), durable)


def _digest(maker: str, embeddings: np.ndarray, rows: bytes) -> str:
    digest = hashlib.sha256(json.dumps([maker, str(embeddings.dtype), list(embeddings.shape)]).encode())
    digest.update(np.ascontiguousarray(embeddings).tobytes())
    digest.update(rows)
    return digest.hexdigest()
