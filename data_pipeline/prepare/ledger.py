"""Ledgers: the result for each clip, in a Parquet file for each finished shard, and in one for the whole split.

A shard's ledger is written after its file, so a ledger means that the shard is finished. Its metadata have the shard's
size and sha256, and the digest of its plan. Columns: `id`, `video`, `state` (written, rejected), `reason`, `attempts`
(how often it was decoded), `shard`, `bytes` (of the record), `row` (in the manifest's order, from 0), `damaged` (how
many of its frames the decoder has marked as damaged; ledgers of earlier versions have no such column).
"""

import collections
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.manifest.rows import Reject
from harvest_jax.files import atomic_file

WRITTEN, REJECTED = "written", "rejected"
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("video", pa.string()),
        ("state", pa.string()),
        ("reason", pa.string()),
        ("attempts", pa.int32()),
        ("shard", pa.int32()),
        ("bytes", pa.int64()),
        ("row", pa.int64()),
        ("damaged", pa.int32()),
    ]
)


@dataclasses.dataclass(frozen=True)
class LedgerRow:
    """One clip; `reason` is None if it was written, `row` is None if the manifest's reader rejected it.

    `damaged`: frames of a written clip that the decoder has marked as damaged.
    """

    id: str
    video: str
    reason: str | None
    attempts: int
    bytes: int
    row: int | None
    damaged: int = 0


@dataclasses.dataclass(frozen=True)
class FinishedShard:
    """A finished shard. The attributes are the keys in the metadata of its ledger.

    Attributes:
      index: its number.
      plan: digest of the plan.
      rows: clips.
      records: clips that were written.
      record_bytes: of all records.
      file_bytes, sha256: of the file.
      kinds: number of rejects by kind.
      damaged_clips, damaged_frames: of written clips, those that the decoder has marked as damaged.
    """

    index: int
    plan: str
    rows: int
    records: int
    record_bytes: int
    file_bytes: int
    sha256: str
    kinds: dict[str, int]
    damaged_clips: int = 0
    damaged_frames: int = 0


def path_of(job: Path, index: int) -> Path:
    """The ledger of a shard in a work folder."""
    return job / f"{index:05d}.ledger"


def kind_of(reason: str) -> str:
    """The kind of a reject: the part of the reason before the colon."""
    return re.split(":", reason, maxsplit=1)[0]


def count_kinds(reasons: Iterable[str]) -> dict[str, int]:
    """The number of each kind, the most frequent first."""
    return most_frequent(collections.Counter(map(kind_of, reasons)))


def most_frequent(kinds: Mapping[str, int]) -> dict[str, int]:
    """Sorted by number, then by name."""
    return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def kinds_in_words(kinds: Mapping[str, int]) -> str:
    """As "2 x not found; 1 x damaged"."""
    return "; ".join(f"{count} x {kind}" for kind, count in kinds.items())


def write(job: Path, shard: FinishedShard, clips: Sequence[LedgerRow]) -> None:
    """Write a shard's ledger, which makes the shard finished.

    Raises:
      OSError: the disk is full, or similar.
    """
    facts = {b"shard": json.dumps(dataclasses.asdict(shard)).encode()}
    with atomic_file(path_of(job, shard.index)) as aside:
        pq.write_table(_table(clips, shard.index).replace_schema_metadata(facts), aside)


def read(job: Path, index: int) -> FinishedShard | None:
    """The finished shard of a ledger; None if there is no ledger or it cannot be read."""
    try:
        return FinishedShard(**json.loads(pq.read_schema(path_of(job, index)).metadata[b"shard"]))
    except (OSError, ValueError, TypeError, KeyError):  # include pyarrow's errors
        return None


def rejects_of(job: Path, shards: Iterable[FinishedShard], split: str) -> list[Reject]:
    """The rejected clips of these shards, in the manifest's order."""
    found: list[tuple[int, Reject]] = []
    for shard in shards:
        if shard.records == shard.rows:
            continue
        for line in _read_table(job, shard.index).to_pylist():
            if line["state"] == REJECTED:
                found.append((line["row"], Reject(line["id"], line["video"], line["reason"], split)))
    return [reject for _, reject in sorted(found, key=lambda entry: entry[0])]


def merge_ledgers(
    job: Path,
    shards: Iterable[FinishedShard],
    numbers: Mapping[int, int],
    early: Iterable[Reject],
    facts: Any,
    path: Path,
) -> None:
    """Write one ledger of all shards, in their order, followed by the rejects of the manifest's reader.

    Args:
      job: the work folder.
      shards: the shards to read.
      numbers: the number of each published shard; a shard without records has none.
      early: rejects of the manifest's reader.
      facts: stored as JSON in the file's metadata, under `plan`.
      path: the file.

    Raises:
      OSError: the disk is full, or similar.
    """
    schema = _SCHEMA.with_metadata({b"plan": json.dumps(facts).encode()})
    with pq.ParquetWriter(path, schema) as writer:
        for shard in shards:
            table = _read_table(job, shard.index)
            column = pa.array([numbers.get(shard.index)] * table.num_rows, pa.int32())
            table = table.set_column(table.schema.get_field_index("shard"), "shard", column)
            writer.write_table(table.replace_schema_metadata(schema.metadata))
        clips = [LedgerRow(reject.id, reject.video, reject.reason, 0, 0, None) for reject in early]
        if clips:
            writer.write_table(_table(clips, None).replace_schema_metadata(schema.metadata))


def read_plan(path: Path) -> Any:
    """The `facts` of `merge_ledgers`; None if there is no such file or it is not a ledger."""
    try:
        return json.loads(pq.read_schema(path).metadata[b"plan"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


@dataclasses.dataclass(frozen=True)
class LedgerSummary:
    """Totals of a split's ledger.

    Attributes:
      written: clips.
      bytes: of their records.
      in_shards: clips that were decoded, rejected ones included.
      rejected: rows of the ledger.
    """

    written: int
    bytes: int
    in_shards: int
    rejected: list[dict[str, Any]]


def summarise(path: Path) -> LedgerSummary:
    """Read a ledger of `merge_ledgers`; rejects are in the manifest's order, those of its reader first."""
    table = pq.read_table(path, columns=["bytes", "row"])
    rejected = pq.read_table(path, filters=[("state", "==", REJECTED)]).to_pylist()
    rejected.sort(key=lambda line: -1 if line["row"] is None else line["row"])
    return LedgerSummary(
        written=table.num_rows - len(rejected),
        bytes=pc.sum(table["bytes"]).as_py() or 0,
        in_shards=table.num_rows - table["row"].null_count,
        rejected=rejected,
    )


def _read_table(job: Path, index: int) -> pa.Table:
    with path_of(job, index).open("rb") as file:
        table = pq.ParquetFile(file).read()
    for field in _SCHEMA:
        if field.name not in table.column_names:  # begun by an earlier version
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(_SCHEMA.names)


def _table(clips: Sequence[LedgerRow], shard: int | None) -> pa.Table:
    return pa.table(
        {
            "id": [clip.id for clip in clips],
            "video": [clip.video for clip in clips],
            "state": [WRITTEN if clip.reason is None else REJECTED for clip in clips],
            "reason": [clip.reason for clip in clips],
            "attempts": [clip.attempts for clip in clips],
            "shard": [shard] * len(clips),
            "bytes": [clip.bytes for clip in clips],
            "row": [clip.row for clip in clips],
            "damaged": [clip.damaged if clip.reason is None else None for clip in clips],
        },
        schema=_SCHEMA,
    )
