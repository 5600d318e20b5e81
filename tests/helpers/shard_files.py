"""Shard folders for tests, made of records without any video."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq

from data_pipeline.decode import worker
from data_pipeline.decode.pool import DecodeResult
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.prepare import plan, publish, spool, write
from data_pipeline.shards import shard_format


def write_records(folder: Path, split: str, raws: Sequence[bytes | None], shards: int = 1) -> None:
    """Publish these records, in this order, as a split; None stands for a clip that was rejected."""
    spec = dataclasses.asdict(DecodeSpec())
    todo = plan.SplitPlan(split, "/", len(raws), 0, "", spec, 60.0, shards, 256.0, shards, plan.record_versions())
    job = folder / f".{split}.writing"
    job.mkdir(parents=True)
    written = []
    for index in range(shards):
        numbers = range(*todo.span(index))
        rows = [spool.SpooledRow(number, f"{number}", "", [], None, None, {}, None) for number in numbers]
        answers = [DecodeResult({"rejected": "none: x"}, b"") if raw is None else DecodeResult({}, raw) for raw in raws]
        written.append(write.write_shard(job, todo, index, rows, iter([answers[number] for number in numbers]), 1))
    publish.publish(folder, job, todo, written, [])
    for path in job.iterdir():
        path.unlink()
    job.rmdir()


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a dataset; ledgers without the number of attempts, which is not always the same."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path).drop_columns(["attempts"])
            content = repr((table.schema.metadata, table.to_pylist())).encode()
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


class InThisProcess:
    """Stands in for the pool where no process is needed."""

    asked: ClassVar[list[str]] = []

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def map(self, tasks):
        for task in tasks:
            self.asked.append(task["record"]["id"])
            yield DecodeResult(*worker.run_task(task))


def damage(folder: Path, split: str, number: int) -> None:
    """Flip one bit in the middle of a record's first frame, in its file."""
    shards = shard_format.open_shards(folder, split)
    jpeg = shard_format.parse_record(shards[number]).jpegs[0]
    for path in shards.paths:
        content = bytearray(path.read_bytes())
        place = content.find(jpeg)
        if place >= 0:
            content[place + len(jpeg) // 2] ^= 4
            path.write_bytes(content)
            return
    raise AssertionError("not found")
