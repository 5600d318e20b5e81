"""What a preparation will take, from a few clips of it decoded here: `harvest shards --dry_run`."""

import collections
import dataclasses
import hashlib
import heapq
import math
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from data_pipeline.decode.pool import DecoderPool
from data_pipeline.manifest.read import Reject, Row
from data_pipeline.prepare import ledger, plan, spool

_SAMPLE = 64  # clips of each split that are decoded, after one whose time is not counted


@dataclasses.dataclass(frozen=True)
class Cost:
    """An estimate for one split.

    `rows` and `early` (rejects of the manifest) are exact; `rejects`, `bytes` of the records and `core_seconds` are
    those of the `sampled` clips, scaled up. `kinds` counts the reasons in the manifest and in the sample.
    """

    rows: int
    early: int
    sampled: int
    rejects: float
    bytes: float
    core_seconds: float
    shards: int
    kinds: dict[str, int]


class _Sample:
    """Counts a split's rows and keeps the first few in the order of the hash of their ids."""

    def __init__(self) -> None:
        self.rows = self.early = 0
        self.kinds: collections.Counter[str] = collections.Counter()
        self._heap: list[tuple[int, int, Row]] = []  # the largest hash first, so negated; the row's number breaks ties

    def add(self, entry: Row | Reject) -> None:
        if isinstance(entry, Reject):
            self.early += 1
            self.kinds[ledger.kind_of(entry.reason)] += 1
            return
        key = -int.from_bytes(hashlib.sha256(entry.id.encode()).digest())
        push = heapq.heappush if len(self._heap) <= _SAMPLE else heapq.heappushpop
        push(self._heap, (key, self.rows, entry))
        self.rows += 1

    def chosen(self) -> list[Row]:
        return [row for _, _, row in self._heap]


def estimate(entries: Iterable[tuple[str, Row | Reject]], root: str | Path, options: plan.Options) -> dict[str, Cost]:
    """Read all rows, decode a few of each split in one process, and scale up.

    Args:
      entries: as for `split.prepare`.
      root: folder below which the videos lie.
      options: what would be written.
    """
    samples: dict[str, _Sample] = {}
    for split, entry in entries:
        samples.setdefault(split, _Sample()).add(entry)
    return {split: _estimate(samples[split], split, root, options) for split in sorted(samples)}


def _estimate(sample: _Sample, split: str, root: str | Path, options: plan.Options) -> Cost:
    with tempfile.TemporaryDirectory() as folder, spool.Spool(Path(folder)) as rows:
        for row in sample.chosen():
            rows.add(row)
        whole = dataclasses.replace(options, shards=1)  # no second sample for their number
        chosen = plan.settle(rows, split, root, whole, 1, None)
        times, sizes = [time.monotonic()], []
        with DecoderPool(1, options.time_limit, modules=plan.MODULES) as pool:
            for answer in pool.map(plan.tasks(Path(folder), chosen, 0, chosen.rows)):
                times.append(time.monotonic())
                sizes.append(len(answer.payload))
                if "rejected" in answer.header:
                    sample.kinds[ledger.kind_of(answer.header["rejected"])] += 1
    counted = max(1, len(sizes) - 1)
    seconds = (times[-1] - times[min(1, len(times) - 2)]) / counted if sizes else 0.0
    scale = sample.rows / max(1, len(sizes))
    shards = options.shards or max(1, math.ceil(sum(sizes) * scale / (options.shard_mb * 1e6)))
    return Cost(
        rows=sample.rows,
        early=sample.early,
        sampled=len(sizes),
        rejects=sizes.count(0) * scale,
        bytes=sum(sizes) * scale,
        core_seconds=seconds * sample.rows,
        shards=shards,
        kinds=ledger.most_frequent(sample.kinds),
    )
