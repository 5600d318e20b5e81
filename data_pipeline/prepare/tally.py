"""Counting while a split is written: how far it has come, and whether too much of it fails to go on."""

import collections
import math
import time
from collections.abc import Callable, Iterable, Mapping

from data_pipeline.prepare import ledger
from harvest_jax.errors import DataError

MIN_CLIPS = 200  # before so many are done a share says little


class TooManyRejects(DataError):
    """More of the rows failed than may; `kinds` counts the reasons, those in the manifest included."""

    def __init__(self, message: str, kinds: dict[str, int]):
        super().__init__(message)
        self.kinds = kinds


class Tally:
    """Counts clips as they are done.

    Attributes:
      total: clips of the split.
      before: those that an earlier run finished.
      done, rejected, bytes: of all runs; bytes are those of the records.
      began: when this run did, by the monotonic clock.
    """

    def __init__(
        self,
        split: str,
        total: int,
        early: Mapping[str, int],
        earlier: Iterable[ledger.Shard],
        max_rejects: float | None = None,
        progress: Callable[["Tally"], None] | None = None,
    ):
        self.split, self.total = split, total
        self.done = self.rejected = self.bytes = 0
        self.began = time.monotonic()
        self._kinds = collections.Counter(early)
        self._early, self._max_rejects, self._progress = sum(early.values()), max_rejects, progress
        for shard in earlier:
            self.add_shard(shard)
        self.before = self.done

    @property
    def rate(self) -> float:
        """Clips a second, of this run alone."""
        return (self.done - self.before) / max(1e-9, time.monotonic() - self.began)

    def add_clip(self, reason: str | None, size: int) -> None:
        """Count a clip.

        Raises:
          TooManyRejects: and it was one too many.
        """
        self.done += 1
        self.bytes += size
        if reason is not None:
            self.rejected += 1
            self._kinds[ledger.kind_of(reason)] += 1
        self.show()
        self.check()

    def add_shard(self, shard: ledger.Shard) -> None:
        """Count the clips of a finished shard."""
        self.done += shard.rows
        self.bytes += shard.record_bytes
        self.rejected += shard.rows - shard.records
        self._kinds.update(shard.kinds)

    def show(self) -> None:
        """Tell the one who watches."""
        if self._progress is not None:
            self._progress(self)

    def check(self) -> None:
        """See whether what has failed so far allows to go on.

        Raises:
          TooManyRejects: more rows failed than may of all, those of the manifest counted first; or so many of the
            clips done that by three standard deviations more will than may.
        """
        if self._max_rejects is None or self.done < MIN_CLIPS:
            return
        may = self._max_rejects * (self.total + self._early) - self._early
        share = min(1.0, max(0.0, may / self.total))
        likely = share * self.done + 3 * math.sqrt(share * (1 - share) * self.done)
        if self.rejected > min(likely, may):
            raise TooManyRejects(
                f"{self.rejected} of the first {self.done} clips of {self.split} failed"
                f"{f' and {self._early} rows of the manifest before' if self._early else ''}, which is more than "
                f"--max_rejects {self._max_rejects:g} allows; finished shards are kept: the same command with a larger "
                "share goes on, and where the fault was elsewhere --restart tries all again",
                ledger.most_frequent(self._kinds),
            )
