"""`harvest shards --dry_run`: what preparing the shards will take, estimated from a few clips decoded here."""

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
from data_pipeline.manifest.rows import ClipRow, Reject
from data_pipeline.prepare import ledger, plan, spool
from data_pipeline.prepare.options import Options
from data_pipeline.prepare.split import ShowProgress, silent

_SAMPLE = 64  # clips of each split that are decoded, after one whose time is not counted


@dataclasses.dataclass(frozen=True)
class SplitEstimate:
    """An estimate for one split.

    Attributes:
      rows: clips of the manifest; exact.
      early: rows of the manifest that cannot be used; exact.
      sampled: clips that were decoded.
      rejects: clips that will be rejected, scaled up from the sample.
      bytes: of all records, scaled up.
      core_seconds: of decoding, scaled up.
      shards: number of files.
      kinds: reasons for rejects, in the manifest and in the sample, and their counts.
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
        self._heap: list[tuple[int, int, ClipRow]] = []  # negated hash, so that the largest comes first; row number

    def add(self, entry: ClipRow | Reject) -> None:
        if isinstance(entry, Reject):
            self.early += 1
            self.kinds[ledger.kind_of(entry.reason)] += 1
            return
        key = -int.from_bytes(hashlib.sha256(entry.id.encode()).digest())
        push = heapq.heappush if len(self._heap) <= _SAMPLE else heapq.heappushpop
        push(self._heap, (key, self.rows, entry))
        self.rows += 1

    def chosen(self) -> list[ClipRow]:
        return [row for _, _, row in self._heap]


def estimate_splits(
    entries: Iterable[tuple[str, ClipRow | Reject]], root: str | Path, options: Options, show: ShowProgress = silent
) -> dict[str, SplitEstimate]:
    """Read all rows, decode a few clips of each split in one process, and scale up.

    Args:
      entries: as for `split.prepare`.
      root: folder that the videos' names are relative to.
      options: what would be written.
      show: shows the progress of each stage.
    """
    samples: dict[str, _Sample] = {}
    with show("reading the manifest", "rows") as progress:
        for number, (split, entry) in enumerate(entries, start=1):
            samples.setdefault(split, _Sample()).add(entry)
            if number % 1000 == 0:
                progress(number, 0, "")
    return {split: _estimate(samples[split], split, root, options, show) for split in sorted(samples)}


def _estimate(sample: _Sample, split: str, root: str | Path, options: Options, show: ShowProgress) -> SplitEstimate:
    with tempfile.TemporaryDirectory() as folder, spool.Spool(Path(folder)) as rows:
        for row in sample.chosen():
            rows.add(row)
        one_shard = dataclasses.replace(options, shards=1)  # the number of shards needs no sample of its own
        chosen = plan.make_plan(rows, split, root, one_shard, 1, None)
        times, sizes = [time.monotonic()], []
        with (
            DecoderPool(1, options.time_limit, modules=plan.MODULES) as pool,
            show(f"{split}: sample", "clips") as tell,
        ):
            for answer in pool.map(plan.tasks(Path(folder), chosen, 0, chosen.rows)):
                times.append(time.monotonic())
                sizes.append(len(answer.payload))
                if "rejected" in answer.header:
                    sample.kinds[ledger.kind_of(answer.header["rejected"])] += 1
                tell(len(sizes), chosen.rows, "")
    counted = max(1, len(sizes) - 1)
    seconds = (times[-1] - times[min(1, len(times) - 2)]) / counted if sizes else 0.0
    scale = sample.rows / max(1, len(sizes))
    shards = options.shards or max(1, math.ceil(sum(sizes) * scale / (options.shard_mb * 1e6)))
    return SplitEstimate(
        rows=sample.rows,
        early=sample.early,
        sampled=len(sizes),
        rejects=sizes.count(0) * scale,
        bytes=sum(sizes) * scale,
        core_seconds=seconds * sample.rows,
        shards=shards,
        kinds=ledger.most_frequent(sample.kinds),
    )
