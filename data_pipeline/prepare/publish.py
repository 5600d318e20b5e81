"""The last step: move finished shards into the dataset, and write its ledger and checksums."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from data_pipeline.manifest.rows import Reject
from data_pipeline.prepare import ledger, plan, write
from data_pipeline.shards import tfds_metadata
from harvest_jax.files import ASIDE, sync


def publish(
    out: Path, job: Path, todo: plan.SplitPlan, shards: Sequence[ledger.FinishedShard], early: Sequence[Reject]
) -> None:
    """Make all shards of a plan a split of the dataset; can be called again after it was interrupted.

    Raises:
      OSError: the disk is full, or similar.
    """
    paths = write.published_paths(out, todo.split, shards)
    numbers = {index: number for number, index in enumerate(paths)}
    merged = job / f"ledger{ASIDE}"
    ledger.merge_ledgers(job, shards, numbers, early, dataclasses.asdict(todo), merged)
    sync(merged)
    filled = [shard for shard in shards if shard.records]
    with tfds_metadata.replaced_split(
        out,
        job,
        todo.split,
        checksums=[(shard.sha256, paths[shard.index]) for shard in filled],
        lengths=[shard.records for shard in filled],
        num_bytes=sum(shard.record_bytes for shard in filled),
    ):
        for index, path in paths.items():
            if write.path_of(job, index).exists():  # otherwise an interrupted run has moved it
                write.path_of(job, index).replace(path)
        merged.replace(ledger.ledger_path(out, todo.split))
