"""Which rows of the global batches each process reads.

The global order is one for any number of processes; only who reads what of a batch depends on their number. Sets are
mixed in a fixed pattern: with the weights 3 and 1 every fourth clip is of the second set. So a process takes a block of
consecutive rows, which has each set's share to within one clip, instead of every n-th row, which may all be of one set.
Where a block is shorter than the pattern, the blocks differ as well: so of n batches in a row a process of n takes each
block once, in an order drawn anew for the next n. With any fixed order some pattern would keep step with it.
"""

import functools
import hashlib
from typing import Any, SupportsIndex

BLOCKS = "blocks"  # the rule's name in the position of a run; runs begun before it have none and take every n-th row


class Blocks:
    """The elements of one process: a block of each batch, in order. A source for Grain."""

    def __init__(self, elements: Any, process_index: int, process_count: int, rows: int) -> None:
        """Divide `elements`, a dataset in the global order, into batches of `process_count` blocks of `rows`."""
        self._elements, self._rows = elements, rows
        self._index, self._count = process_index, process_count

    def __len__(self) -> int:
        return len(self._elements) // (self._count * self._rows) * self._rows

    def __getitem__(self, number: SupportsIndex) -> Any:
        batch, row = divmod(number.__index__(), self._rows)
        block = (self._index + first_block(batch, self._count)) % self._count
        return self._elements[(batch * self._count + block) * self._rows + row]

    def __repr__(self) -> str:
        return f"Blocks({self._elements}, {self._index} of {self._count})"


def first_block(batch: int, count: int) -> int:
    """The block that process 0 takes of a batch; the others take the next ones, and after the last the first."""
    return _order(batch // count, count)[batch % count]


@functools.lru_cache(maxsize=16)
def _order(group: int, count: int) -> list[int]:
    """The numbers below `count` in an order that depends on both arguments alone, in any version of any library."""
    return sorted(range(count), key=lambda block: hashlib.sha256(f"{group} {block}".encode()).digest())
