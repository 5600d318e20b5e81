"""The clips of an evaluation set that an embedding store knows, in every way in which the evaluation looks at them."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from harvest_jax.evaluate.clips.embedding_store import EmbeddingStore, Key
from harvest_jax.evaluate.clips.known_clips import ClipContent, KnownClip


class StoredClips:
    """Embeddings that the store has are taken from it; see `known_clips.KnownClips`.

    Args:
      store: of the model.
      ways: names of the ways to look at a clip.
      made_by: see `EmbeddingStore.folder`.

    Attributes:
      rows: for each way the embeddings from the store, by clip number.
    """

    def __init__(self, store: EmbeddingStore, ways: Iterable[str], made_by: Mapping[str, Any]) -> None:
        self._store = store
        self._folders = {way: store.folder(way, made_by) for way in ways}
        self._contents: dict[int, ClipContent] = {}  # of clips that must be read
        self.rows: dict[str, dict[int, Float[np.ndarray, " width"]]] = {way: {} for way in self._folders}

    def file_digests(self, paths: Iterable[str]) -> Iterator[str | None]:
        """See `KnownClips`."""
        return self._store.file_digests.of(paths)

    def look_up(self, number: int, content: ClipContent) -> KnownClip | None:
        """See `KnownClips`. If only some ways are stored, the clip must be read, and `rows` has those."""
        found = {way: folder.find(_key(content)) for way, folder in self._folders.items()}
        for way, stored in found.items():
            if stored is not None:
                self.rows[way][number] = stored.embedding
        notes = [stored.note for stored in found.values() if stored is not None]
        if len(notes) == len(found):
            return KnownClip(*notes[0])
        self._contents[number] = content
        return None

    def add(
        self, way: str, numbers: Sequence[int], embeddings: Float32[np.ndarray, "b d"], facts: Sequence[KnownClip]
    ) -> None:
        """Store embeddings of clips that were read. A clip whose file was changed since it was hashed is left out."""
        kept = [i for i, number in enumerate(numbers) if self._is_as_it_was(number)]
        keys = [_key(self._contents[numbers[i]]) for i in kept]
        self._folders[way].add(keys, embeddings[kept], [dataclasses.astuple(facts[i]) for i in kept])

    def write_if_due(self) -> None:
        """See `EmbeddingStore.write_if_due`."""
        self._store.write_if_due()

    def _is_as_it_was(self, number: int) -> bool:
        content = self._contents.get(number)
        if content is None:  # its file could not be hashed
            return False
        return not content.path or self._store.file_digests.is_current(content.path)


def _key(content: ClipContent) -> Key:
    return content.sha256, content.start, content.end
