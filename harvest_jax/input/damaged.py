"""The damaged records that a run has met, and how many of them it tolerates."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from harvest_jax.errors import DataError

log = logging.getLogger(__name__)

RecordKey = tuple[int, int]  # (number of the set of clips, number of the record in it)


class DamagedRecords:
    """Counts each damaged record once: in one run, over all processes, passes and resumed starts.

    A process counts its own at once, and those of all processes after each `share`.
    """

    def __init__(self, folders: Sequence[str], allowed: int, process_index: int, process_count: int) -> None:
        """`folders` are those of the sets of clips; `allowed` is `data.bad_records`."""
        self._folders = folders
        self._allowed = allowed
        self._process_index = process_index
        self._process_count = process_count
        self._known: set[RecordKey] = set()
        self._unshared: set[RecordKey] = set()

    def __len__(self) -> int:
        return len(self._known | self._unshared)

    def found(self, records: Iterable[RecordKey]) -> None:
        """Note records that this process replaced.

        Raises:
          DataError: they are more than allowed.
        """
        for record in records:
            if record in self._known:
                continue
            self._unshared.add(record)
            self._check(record, self._process_index)
        if self._process_count == 1:
            self.share(lambda mine: [mine])

    def share(self, gather: Callable[[Any], list[Any]]) -> None:
        """Tell all processes what each found. A collective; process 0 logs every record once.

        Args:
          gather: a JSON value of this process -> those of all processes, by rank.

        Raises:
          DataError: all processes together found more than allowed.
        """
        of_ranks = gather(sorted(self._unshared))
        self._unshared = set()
        for rank, records in enumerate(of_ranks):
            for record in map(tuple, records):
                if record in self._known:
                    continue
                self._known.add(record)
                self._check(record, rank)
                if self._process_index == 0:
                    log.warning(
                        "rank %d: %s is damaged and was replaced by the next record (%d of %d allowed)",
                        rank,
                        self._name(record),
                        len(self._known),
                        self._allowed,
                    )

    def get_state(self) -> list[list[int]]:
        """As JSON; equal on all processes after `share`."""
        return [list(record) for record in sorted(self._known)]

    def set_state(self, state: Sequence[Sequence[int]]) -> None:
        """Go on from the records of an earlier start."""
        self._known = {(which, number) for which, number in state}
        self._unshared = set()

    def _check(self, record: RecordKey, rank: int) -> None:
        if len(self) > self._allowed:
            raise DataError(
                f"{self._name(record)} (read by rank {rank}) is damaged, one more than data.bad_records="
                f"{self._allowed} allows: write the shards again with `harvest shards`"
            )

    def _name(self, record: RecordKey) -> str:
        which, number = record
        return f"record {number} of {self._folders[which]}"
