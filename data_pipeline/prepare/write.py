"""Write shards. Every engine calls the same function, so all engines write the same bytes.

A shard is written under a temporary name, synced and renamed; then its ledger is, in the same way. So at any time, a
shard with a readable ledger and a file of the size in the ledger is finished; every other shard is written again.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from array_record.python import array_record_module

from data_pipeline.decode.pool import DecodeResult, DecoderPool
from data_pipeline.prepare import ledger, plan, spool
from data_pipeline.prepare.earlier import earlier_split
from data_pipeline.shards.shard_format import WRITER_OPTIONS, shard_path
from harvest_jax.files import atomic_file, sha256_of

STOP = "stop"  # if a file of this name is in the work folder, no further shard is begun
ANEW = "anew"  # if a file of this name is in the work folder, no clip is taken over from the split that is replaced
OnClip = Callable[[str | None, int], None]  # called after each clip: reason of the reject or None, bytes of the record


def write_shards(job: str | Path, indices: Iterable[int], workers: int = 1, on_clip: OnClip | None = None) -> None:
    """Decode the rows of these shards and write their files and ledgers; existing shards are written again.

    Args:
      job: the work folder of a split, with its plan; the same path on all machines.
      indices: numbers of shards.
      workers: decoder processes; they end with this call.
      on_clip: called after each clip, in the order of the rows; an exception in it stops the writing.

    Raises:
      DataError: the plan cannot be read on this machine, or other versions are installed than where it was made.
      OSError: the disk is full, or similar. Finished shards are kept.
    """
    job = Path(job)
    todo = plan.plan_for_worker(job)
    rows = plan.folder_of(job)
    chosen = [index for index in indices if not (job / STOP).exists()]
    begun = (_count_attempt(job, index) for index in chosen)
    earlier = None
    if not (job / ANEW).exists():
        earlier = earlier_split(job.parent, todo.split, todo.spec, todo.time_limit, todo.versions)
    tasks = (task for index in chosen for task in plan.tasks(rows, todo, *todo.span(index), earlier))
    with DecoderPool(workers, todo.time_limit, modules=plan.MODULES) as pool:
        results = pool.map(tasks)
        for index, attempt in zip(chosen, begun, strict=True):
            begin, end = todo.span(index)
            mine = itertools.islice(results, end - begin)
            write_shard(job, todo, index, list(spool.read_rows(rows, begin, end)), mine, attempt, on_clip)


def write_shard(
    job: Path,
    todo: plan.SplitPlan,
    index: int,
    rows: Sequence[spool.SpooledRow],
    results: Iterator[DecodeResult],
    attempt: int,
    on_clip: OnClip | None = None,
) -> ledger.FinishedShard:
    """Write one shard, and then its ledger; the records are in the order of the rows.

    Args:
      job: the work folder.
      todo: the plan of the split.
      index: its number.
      rows: its rows.
      results: of the decoder, one for each row.
      attempt: how often it was begun, including now.
      on_clip: called after each clip.

    Raises:
      OSError: the disk is full, or similar.
    """
    path = path_of(job, index)
    clips, taken_over = [], 0
    with atomic_file(path) as aside:
        with _array_record(aside) as write:
            for row, result in zip(rows, results, strict=True):
                reason = result.header.get("rejected")
                if reason is None:
                    write(result.payload)
                header, tries, size = result.header, attempt - 1 + result.tries, len(result.payload)
                known = {"damaged": header.get("damaged", 0), "reads": header.get("reads")}
                known["content"] = header.get("content")
                clips.append(ledger.LedgerRow(row.id, row.video, reason, tries, size, row.number, **known))
                taken_over += "taken_over" in header
                if on_clip is not None:
                    on_clip(reason, len(result.payload))
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
        damaged_clips=sum(clip.damaged > 0 for clip in clips),
        damaged_frames=sum(clip.damaged for clip in clips),
        taken_over=taken_over,
    )
    ledger.write(job, shard, clips)
    return shard


@contextlib.contextmanager
def _array_record(path: Path) -> Iterator[Callable[[bytes], None]]:
    """A function that appends a record to a file; the file is closed at the end.

    Raises:
      OSError: the disk is full, or similar.
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
    """How often this shard has been begun, including now: the size of a file that gets a byte each time."""
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


def finished(job: Path, todo: plan.SplitPlan, moved_to: Path | None) -> list[ledger.FinishedShard]:
    """The finished shards, in order: the ledger can be read, and the file has the size in the ledger.

    Args:
      job: the work folder.
      todo: the plan; shards of another plan do not count.
      moved_to: the dataset, to which a run that was killed while publishing has moved some shards; they are recognised
        by their sha256. None if the dataset has the split: then its files are from a run that was completed.
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
        return shard.records == 0  # it has no published file
    return moved.is_file() and moved.stat().st_size == shard.file_bytes and sha256_of(moved) == shard.sha256


def published_paths(out: Path, split: str, shards: Sequence[ledger.FinishedShard]) -> dict[int, Path]:
    """The final path of each shard of a split; a shard whose clips were all rejected has none."""
    filled = [shard.index for shard in shards if shard.records]
    return {index: shard_path(out, split, number, len(filled)) for number, index in enumerate(filled)}
