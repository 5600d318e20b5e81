"""The store of `harvest eval --store`: embeddings of clips and texts, so that several evaluations read each video once.

    DIR/file_digests.json                          digests of video files, by path, size and time
    DIR/MODEL/WAY-HASH/made_by.json                all that decides about the embeddings of this folder, to read
    DIR/MODEL/WAY-HASH/NAME.safetensors            a segment: some embeddings (`harvest_jax.embeddings_file`)

MODEL and HASH are the beginnings of digests: of the model, and of `made_by.json`. Several processes may use the store
at once, without locks. A segment has a name of its own, appears as a whole, and is never changed. It is removed only by
a process that has read it and has written all that it holds to another segment, so each embedding is in a file at every
moment; one that is in two is the same.
"""

import contextlib
import dataclasses
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from harvest_jax import embeddings_file
from harvest_jax.embeddings_file import DamagedFileError, EmbeddingsFile, OutdatedFileError
from harvest_jax.errors import ConfigError
from harvest_jax.evaluate.clips.file_digests import FileDigests
from harvest_jax.evaluate.result.protocol import digest
from harvest_jax.files import ASIDE, write_atomically
from harvest_jax.terminal import printable

KIND = "harvest_jax stored embeddings"
SEGMENT_SECONDS = 0.5  # between two writings: a killed evaluation loses this much work, and the batch in work
DIGEST_SECONDS = 20.0  # between two writings of the digests of files, which cost no embedding
LOOK_SECONDS = 5.0  # after which an embedding that is missing is looked for in segments of other processes
SMALL_SEGMENTS = 64  # so many segments are joined to one: of this process, or of a folder when it is opened
ASIDE_SECONDS = 3600.0  # after which a file that is still being written belongs to a process that was killed
SUFFIX = ".safetensors"
Say = Callable[[str], None]
Key = str | tuple[Any, ...]  # of JSON values: a text; or of a clip


@dataclasses.dataclass(frozen=True)
class Stored:
    """One embedding.

    Attributes:
      embedding: as the model gave it.
      note: JSON value stored with it.
      by: device and version of JAX that computed it.
    """

    embedding: Float32[np.ndarray, " width"]
    note: Any
    by: str


class StoreFolder:
    """Embeddings that were made in one way: those of earlier evaluations and other processes, and new ones.

    Args:
      folder: is made with the first segment.
      made_by: JSON object of all that decides about the embeddings.
      say: called with a line for the user.

    Raises:
      ConfigError: a file of the folder cannot be read.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, Any], say: Say) -> None:
        self._folder, self._made_by, self._say = folder, dict(made_by), say
        self._maker = digest(self._made_by)
        self._rows: dict[Key, Stored] = {}  # of earlier evaluations and other processes
        self._fresh: dict[Key, Stored] = {}  # of this evaluation
        self._unwritten: dict[Key, Stored] = {}
        self._small: dict[Path, dict[Key, Stored]] = {}  # segments that this process wrote and has not joined
        self._seen: set[Path] = set()  # segments that were read or written
        self._looked = 0.0
        self._used: set[Key] = set()
        self._broken = ""  # why nothing can be written any more
        self._look()
        if len(self._seen) >= SMALL_SEGMENTS and self._rows:
            with contextlib.suppress(OSError):
                self._join(self._seen, self._rows)
        self._remove_aside()

    def begin(self) -> None:
        """An evaluation begins: it finds what was stored before, and counts anew."""
        self._rows |= self._fresh
        self._fresh = {}
        self._used = set()

    def find(self, key: Key) -> Stored | None:
        """The embedding of an earlier evaluation or of another process, None if there is none.

        What the running evaluation stored is not found: which clips are embedded does not depend on how far the
        decoding processes are.

        Raises:
          ConfigError: a file of the folder cannot be read.
        """
        if key not in self._rows and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._look()
        found = self._rows.get(key)
        if found is not None:
            self._used.add(key)
        return found

    def add(self, keys: Sequence[Key], embeddings: Float32[np.ndarray, "rows width"], notes: Sequence[Any]) -> None:
        """Store embeddings, with a JSON value each. One that is not finite is left out."""
        by = computed_by()
        new = {
            key: Stored(embedding, note, by)
            for key, embedding, note in zip(keys, embeddings, notes, strict=True)
            if np.isfinite(embedding).all()
        }
        self._fresh |= new
        self._unwritten |= new

    def write(self) -> None:
        """Write what is new as a segment. If that fails, the user is told once, and the evaluation goes on."""
        if not self._unwritten or self._broken:
            return
        try:
            if not (self._folder / "made_by.json").exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                text = json.dumps(self._made_by, indent=2, ensure_ascii=True) + "\n"
                write_atomically(self._folder / "made_by.json", text.encode())
            self._small[self._write_segment(self._unwritten, durable=False)] = self._unwritten
            self._unwritten = {}
            if len(self._small) >= SMALL_SEGMENTS:
                self.join()
        except OSError as error:
            self._broken = error.strerror or str(error)
            self._say(f"warning: {self._folder} cannot be written ({self._broken}): the evaluation goes on without")

    def join(self) -> None:
        """Join the segments that this process wrote, and sync the result to the disk.

        Raises:
          OSError: it cannot be written; they are as they were.
        """
        if self._small:
            rows = {key: stored for segment in self._small.values() for key, stored in segment.items()}
            self._join(self._small, rows)
            self._small = {}

    def facts(self) -> dict[str, Any]:
        """Of this evaluation: embeddings that came from the store, on what they were computed; and computed now."""
        by = sorted({self._rows[key].by for key in self._used})
        facts = {"from_store": len(self._used), "computed": len(self._fresh), "store_computed_on": by}
        return facts | ({"not_written": self._broken} if self._broken else {})

    def _write_segment(self, rows: Mapping[Key, Stored], durable: bool) -> Path:
        path = self._folder / f"{uuid.uuid4().hex}{SUFFIX}"
        embeddings = np.stack([row.embedding for row in rows.values()])
        entries = [[key, row.note, row.by] for key, row in rows.items()]
        embeddings_file.write(path, KIND, EmbeddingsFile(self._maker, embeddings, entries), durable)
        self._seen.add(path)
        return path

    def _look(self) -> None:
        """Read the segments that were not read yet."""
        self._looked = time.monotonic()
        for _ in range(SMALL_SEGMENTS):  # each time some were joined by another process meanwhile
            try:
                paths = sorted(set(self._folder.glob(f"*{SUFFIX}")) - self._seen)
            except OSError as error:
                raise ConfigError(f"the store {self._folder} cannot be used: {error.strerror}") from error
            if sum(self._read(path) for path in paths) == len(paths):
                return

    def _read(self, path: Path) -> bool:
        """Read a segment; whether it was there."""
        try:
            rows = self._segment(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ConfigError(f"{path} of the store cannot be read: {error.strerror}") from error
        except (DamagedFileError, OutdatedFileError) as error:
            with contextlib.suppress(OSError):
                path.rename(path.with_name(f"{path.name}.damaged"))
            self._say(
                f"warning: {printable(path)} of the store is damaged ({printable(error, 200)}): "
                "what it held is embedded again"
            )
            return True
        self._seen.add(path)
        self._rows |= {key: stored for key, stored in rows.items() if key not in self._fresh}
        return True

    def _segment(self, path: Path) -> dict[Key, Stored]:
        content = embeddings_file.read(path, KIND)
        if content.maker != self._maker:
            raise DamagedFileError("it belongs to another folder")
        try:
            return {
                key if isinstance(key, str) else tuple(key): Stored(embedding, note, by)
                for (key, note, by), embedding in zip(content.rows, content.embeddings, strict=True)
            }
        except (ValueError, TypeError) as error:
            raise DamagedFileError(f"{type(error).__name__}: {error}") from error

    def _join(self, paths: Collection[Path], rows: Mapping[Key, Stored]) -> None:
        """Write rows as one segment, and then remove those that held them."""
        old = list(paths)
        self._write_segment(rows, durable=True)
        for path in old:
            path.unlink(missing_ok=True)

    def _remove_aside(self) -> None:
        """Remove what killed processes left."""
        with contextlib.suppress(OSError):
            for path in self._folder.glob(f"*{ASIDE}"):
                if time.time() - path.stat().st_mtime > ASIDE_SECONDS:
                    path.unlink(missing_ok=True)


class EmbeddingStore:
    """The folders of one model; made by `open_store`."""

    def __init__(self, root: Path, model: str, say: Say) -> None:
        self._root, self._model, self._say = root, model, say
        self._folders: dict[str, StoreFolder] = {}
        self._written = self._digests_written = time.monotonic()
        self.file_digests = FileDigests(root / "file_digests.json")

    def folder(self, way: str, made_by: Mapping[str, Any]) -> StoreFolder:
        """The embeddings made in one way.

        Args:
          way: a short name: "text", or that of a way to look at a clip.
          made_by: JSON object of all that decides, besides the model, the way and this program's method.

        Raises:
          ConfigError: a file of the folder cannot be read.
        """
        full = {"way": way, "model": self._model, "method": embeddings_file.METHOD, **made_by}
        name = f"{way}-{digest(full)[:12]}"
        if name not in self._folders:
            self._folders[name] = StoreFolder(self._root / self._model[:16] / name, full, self._say)
        return self._folders[name]

    def begin(self) -> None:
        """An evaluation begins; see `StoreFolder.begin`."""
        for folder in self._folders.values():
            folder.begin()

    def write_if_due(self) -> None:
        """Write what is new if the last writing is long enough ago."""
        now = time.monotonic()
        if now - self._written >= SEGMENT_SECONDS:
            for folder in self._folders.values():
                folder.write()
            self._written = time.monotonic()
        if now - self._digests_written >= DIGEST_SECONDS:
            self.file_digests.write()
            self._digests_written = time.monotonic()

    def close(self) -> None:
        """Write what is new, and join the segments that were written."""
        for folder in self._folders.values():
            folder.write()
            with contextlib.suppress(OSError):
                folder.join()
        self.file_digests.write()

    def facts(self) -> dict[str, Any]:
        """`StoreFolder.facts` of each folder that the evaluation used, by name."""
        found = {name: folder.facts() for name, folder in self._folders.items()}
        return {name: facts for name, facts in found.items() if facts["from_store"] or facts["computed"]}


def computed_by() -> str:
    """Device and version of JAX that compute embeddings here."""
    return f"{jax.devices()[0].device_kind}, jax {jax.__version__}"


def check_root(root: Path) -> None:
    """Make the store's folder; faults are found before hours of embedding.

    Raises:
      ConfigError: it is a file, or cannot be written.
    """
    if root.exists() and not root.is_dir():
        raise ConfigError(f"--store {root} is a file: name a folder")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise ConfigError(f"--store {root} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def open_store(root: Path, model: str, say: Say) -> Iterator[EmbeddingStore]:
    """The store of one model; what is new is written at the end, also after an error.

    Args:
      root: of `check_root`.
      model: its digest.
      say: called with a line for the user.
    """
    store = EmbeddingStore(root, model, say)
    try:
        yield store
    finally:
        store.close()


def store_for(root: Path | None, model: str) -> contextlib.AbstractContextManager[EmbeddingStore | None]:
    """The store of a command: `open_store` with warnings on stderr, or none without a folder."""
    return contextlib.nullcontext() if root is None else open_store(root, model, _to_stderr)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
