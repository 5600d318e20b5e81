"""Clips that an evaluation need not read: what they are known by, and what is known of them."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable


@dataclasses.dataclass(frozen=True)
class KnownClip:
    """In place of `ClipFrames`: the frames are not needed, and are not read. The attributes are as there."""

    distinct: int
    converted: bool = False


@dataclasses.dataclass(frozen=True)
class ClipContent:
    """What a clip is made of, whatever its file is called.

    Attributes:
      sha256: hex, of the video file's bytes, or of a record's stored frames and their times.
      start, end: seconds in the file; None: from its beginning, to its end.
      path: of the file; "" for a record.
    """

    sha256: str
    start: float | None = None
    end: float | None = None
    path: str = ""


@runtime_checkable
class KnownClips(Protocol):
    """Clips that need not be read."""

    def file_digests(self, paths: Iterable[str]) -> Iterator[str | None]:
        """The SHA-256 (hex) of each file in order, None for one that cannot be read; may take paths ahead."""

    def look_up(self, number: int, content: ClipContent) -> KnownClip | None:
        """The clip `number` if it is known; None if it must be read."""
