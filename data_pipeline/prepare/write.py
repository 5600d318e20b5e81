"""Writing shards: the one function that every engine calls, so that all of them write the same bytes.

A shard is written aside, closed, synced and moved into the work folder, then its ledger is. Whatever is killed and
whenever, a shard with a readable ledger and a file of the size it says is finished, and every other is begun anew.
"""

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from array_record.python import array_record_module

from data_pipeline.decode.pool import DecodeResult, DecoderPool
from data_pipeline.prepare import ledger, plan, spool
from data_pipeline.shards.shard_format import WRITER_OPTIONS, shard_path
from harvest_jax.files import atomic_file

STOP = "stop"  # a file of this name in the work folder: begin no further shard
OnClip = Callable[[str | None, int], None]  # after each clip: why it was rejected, the bytes of its record


def write_shards(job: str | Path, indices: Iterable[int], workers: int = 1, on_clip: OnClip | None = None) -> None:
    """Decode the rows of these shards and write their files and ledgers; one that is there already is written again.

    Args:
      job: the work folder of a split, with its plan; the same path wherever the shards of one split are written.
      indices: numbers of shards.
      workers: decoder processes, which end with this call.
      on_clip: called after each clip, in the order of the rows; what it raises ends the writing.

    Raises:
      DataError: there is no plan to be seen, or the libraries here are others than where it was made.
      OSError: the disk is full, or the like. Finished shards stay.
    """
    job = Path(job)
    todo = plan.need(job)
    rows = plan.folder_of(job)
    chosen = [index for index in indices if not (job / STOP).exists()]
    begun = (_count_attempt(job, index) for index in chosen)
    tasks = (task for index in chosen for task in plan.tasks(rows, todo, *todo.span(index)))
    with DecoderPool(workers, todo.time_limit, modules=plan.MODULES) as pool:
        answers = pool.map(tasks)
        for index, attempt in zip(chosen, begun, strict=True):
            begin, end = todo.span(index)
            mine = itertools.islice(answers, end - begin)
            write_shard(job, todo, index, list(spool.read_rows(rows, begin, end)), mine, attempt, on_clip)


def write_shard(
    job: Path,
    todo: plan.SplitPlan,
    index: int,
    rows: Sequence[spool.SpooledRow],
    answers: Iterator[DecodeResult],
    attempt: int,
    on_clip: OnClip | None = None,
) -> ledger.FinishedShard:
    """Write one shard and then its ledger: the answers that are records, in the order of the rows.

    Args:
      job: the work folder.
      todo: what the shard is a part of.
      index: its number.
      rows: its rows.
      answers: of the decoder, one for each row.
      attempt: how often it was begun, now included.
      on_clip: called after each clip.

    Raises:
      OSError: the disk is full, or the like.
    """
    path = path_of(job, index)
    clips = []
    with atomic_file(path) as aside:
        with _array_record(aside) as write:
            for row, answer in zip(rows, answers, strict=True):
                reason = answer.header.get("rejected")
                if reason is None:
                    write(answer.payload)
                clips.append(
                    ledger.LedgerRow(
                        row.id, row.video, reason, attempt - 1 + answer.tries, len(answer.payload), row.number
                    )
                )
                if on_clip is not None:
                    on_clip(reason, len(answer.payload))
        file_bytes, sha256 = aside.stat().st_size, sha256_of(aside)
    reasons = [clip.reason for clip in clips if clip.reason is not None]
    shard = ledger.FinishedShard(
        index=index,
        plan=todo.digest,
        rows=len(clips),
        records=len(clips) - len(reasons),
        record_bytes=sum(clip.bytes for clip in clips),
        file_bytes=file_bytes,
        sha256=sha256,
        kinds=ledger.count_kinds(reasons),
    )
    ledger.write(job, shard, clips)
    return shard


@contextlib.contextmanager
def _array_record(path: Path) -> Iterator[Callable[[bytes], None]]:
    """A function that appends a record to a file; whatever happens the file is closed.

    Raises:
      OSError: the disk is full, or the like.
    """
    with _os_error(path):
        writer = array_record_module.ArrayRecordWriter(str(path), WRITER_OPTIONS)

    def write(raw: bytes) -> None:
        with _os_error(path):
            writer.write(raw)

    try:
        yield write
    finally:
        with _os_error(path):
            writer.close()


@contextlib.contextmanager
def _os_error(path: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"{path} cannot be written: {str(error).split(';')[0]}") from error


def _count_attempt(job: Path, index: int) -> int:
    """How often this shard has been begun, now included: a byte for each time."""
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(job / f"{index:05d}.attempts", how, 0o666)
    try:
        os.write(descriptor, b".")
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def path_of(job: Path, index: int) -> Path:
    """The file of a shard in a work folder."""
    return job / f"{index:05d}"


def sha256_of(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def finished(job: Path, todo: plan.SplitPlan, moved_to: Path | None) -> list[ledger.FinishedShard]:
    """The shards that need not be written again, in order: the ledger can be read, the file is there and of its size.

    Of a run that was killed while it moved its shards to where they belong, the dataset `moved_to`, some are there
    already; they are recognised by their content. A dataset that has the split is None here: what lies there is of a
    run that came to its end.
    """
    shards = [shard for index in range(todo.num_shards) if (shard := ledger.read(job, index)) is not None]
    shards = [shard for shard in shards if shard.plan == todo.digest]
    moved: dict[int, Path] = {}
    if moved_to is not None and len(shards) == todo.num_shards:
        moved = published_paths(moved_to, todo.split, shards)
    return [shard for shard in shards if _is_there(job, shard, moved.get(shard.index))]


def _is_there(job: Path, shard: ledger.FinishedShard, moved: Path | None) -> bool:
    path = path_of(job, shard.index)
    if path.is_file():
        return path.stat().st_size == shard.file_bytes
    if moved is None:
        return shard.records == 0  # it is not published, but its file should not be missed either
    return moved.is_file() and moved.stat().st_size == shard.file_bytes and sha256_of(moved) == shard.sha256


def published_paths(out: Path, split: str, shards: Sequence[ledger.FinishedShard]) -> dict[int, Path]:
    """Where the file of each shard of a split belongs; shards of which every clip was rejected have none."""
    filled = [shard.index for shard in shards if shard.records]
    return {index: shard_path(out, split, number, len(filled)) for number, index in enumerate(filled)}
