"""Files in a folder of videos that are none by their names: counted, and a few of them listed."""

import collections
import dataclasses
import os

from harvest_jax.terminal import printable

_LISTED = 5  # names


@dataclasses.dataclass
class SkippedFiles:
    """What was passed by in folders.

    Attributes:
      kinds: number of files by the ending of their names, in lower case; "" without one.
      first: the names of the first few, below their folder.
      links: number of links to folders, which are not followed.
    """

    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    first: list[str] = dataclasses.field(default_factory=list)
    links: int = 0

    def add(self, name: str) -> None:
        """Count a file."""
        self.kinds[os.path.splitext(name)[1].lower()] += 1
        if len(self.first) < _LISTED:
            self.first.append(name)

    def clear(self) -> None:
        """Begin to count anew."""
        self.kinds.clear()
        self.first.clear()
        self.links = 0

    def in_words(self) -> list[str]:
        """As "3 files that are no videos by their names (2 x .rm, 1 x .doc): a.rm, b.rm, c.doc"; [] for none."""
        lines = []
        if total := self.kinds.total():
            shown = [f"{count} x {printable(kind, 20) or 'no ending'}" for kind, count in self.kinds.most_common(10)]
            kinds = ", ".join(shown) + (", ..." if len(self.kinds) > 10 else "")
            names = ", ".join(printable(name, 100) for name in self.first) + (
                ", ..." if total > len(self.first) else ""
            )
            what = "file that is no video by its name" if total == 1 else "files that are no videos by their names"
            lines.append(f"{total} {what} ({kinds}): {names}")
        if self.links:
            lines.append(f"{self.links} link{'s' * (self.links > 1)} to folders, which are not followed")
        return lines
