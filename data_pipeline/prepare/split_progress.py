"""Counts of a split while it is written: how far it has come, and whether too many clips fail to go on."""

import collections
import math
import time
from collections.abc import Iterable, Mapping

from data_pipeline.prepare import ledger
from harvest_jax.errors import DataError
from harvest_jax.terminal import Progress

MIN_CLIPS = 200  # with fewer clips done, the share of rejects says little


class TooManyRejects(DataError):
    """More rows failed than `max_rejects` allows; `kinds` counts the reasons, those of the manifest included."""

    def __init__(self, message: str, kinds: dict[str, int]):
        super().__init__(message)
        self.kinds = kinds


class SplitProgress:
    """Counts clips as they are done.

    Attributes:
      split: its name.
      total: clips of the split.
      done, rejected, bytes: clips done, clips rejected, and bytes of the records, of this run and of earlier ones.
    """

    def __init__(
        self,
        split: str,
        total: int,
        early: Mapping[str, int],
        earlier: Iterable[ledger.FinishedShard],
        max_rejects: float | None = None,
        progress: Progress | None = None,
    ):
        """Begin to count.

        Args:
          split: its name.
          total: clips of the split.
          early: rows that the manifest's reader rejected, by kind.
          earlier: shards that an earlier run finished.
          max_rejects: share of all rows that may fail; None: all.
          progress: called with the counts as they change.
        """
        self.split, self.total = split, total
        self.done = self.rejected = self.bytes = 0
        self._kinds = collections.Counter(early)
        self._early, self._max_rejects, self._progress = sum(early.values()), max_rejects, progress
        for shard in earlier:
            self.add_shard(shard)
        self._began, self._done_before = time.monotonic(), self.done

    def add_clip(self, reason: str | None, size: int) -> None:
        """Count a clip.

        Args:
          reason: why it was rejected; None if it was written.
          size: bytes of its record.

        Raises:
          TooManyRejects: see `check`.
        """
        self.done += 1
        self.bytes += size
        if reason is not None:
            self.rejected += 1
            self._kinds[ledger.kind_of(reason)] += 1
        self.show()
        self.check()

    def add_shard(self, shard: ledger.FinishedShard) -> None:
        """Count the clips of a finished shard."""
        self.done += shard.rows
        self.bytes += shard.record_bytes
        self.rejected += shard.rows - shard.records
        self._kinds.update(shard.kinds)

    def show(self) -> None:
        """Report the counts to `progress`."""
        if self._progress is not None:
            rate = (self.done - self._done_before) / max(1e-9, time.monotonic() - self._began)
            note = f"{self.rejected} rejected, {self.bytes / 1e6:.1f} MB, {rate:.1f} clips/s"
            self._progress(self.done, self.total, note)

    def check(self) -> None:
        """Stop the run when too many rows have failed.

        Raises:
          TooManyRejects: more rows failed than `max_rejects` allows of all rows, those of the manifest counted first;
            or so many of the clips done that the share of the whole will exceed it, by three standard deviations.
        """
        if self._max_rejects is None or self.done < MIN_CLIPS:
            return
        allowed = self._max_rejects * (self.total + self._early) - self._early
        share = min(1.0, max(0.0, allowed / self.total))
        likely = share * self.done + 3 * math.sqrt(share * (1 - share) * self.done)
        if self.rejected > min(likely, allowed):
            raise TooManyRejects(
                f"{self.rejected} of the first {self.done} clips of {self.split} failed"
                f"{f' and {self._early} rows of the manifest before' if self._early else ''}, which is more than "
                f"--max_rejects {self._max_rejects:g} allows; finished shards are kept: the same command with a larger "
                "--max_rejects continues; --restart decodes all clips again",
                ledger.most_frequent(self._kinds),
            )
