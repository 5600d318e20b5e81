"""From rows to a finished split: plan, write what is not written yet, publish.

All of it happens in `OUT/.SPLIT.writing`, where a run that was stopped, however, is gone on with.
"""

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from data_pipeline.manifest.read import Reject, Row, check_split
from data_pipeline.prepare import ledger, plan, publish, spool, write
from data_pipeline.prepare.tally import Tally
from data_pipeline.shards.shard_format import split_lengths
from harvest_jax.errors import DataError, HarvestError
from harvest_jax.files import ASIDE, locked

Engine = Callable[[Path, Sequence[int], Tally], None]  # writes these shards of a work folder, and counts them
Watch = Callable[[str], contextlib.AbstractContextManager[Callable[[Tally], None] | None]]  # shows a split's progress
_NEW = "plan.new"  # below a work folder: rows that are still arriving


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """What became of a split: records written, rows that were not, seconds it took, bytes and files of its shards.

    `before` are the clips that an earlier run had done.
    """

    n_written: int
    rejects: tuple[Reject, ...]
    seconds: float
    bytes: int
    shards: int
    before: int = 0

    @property
    def rejected_share(self) -> float:
        """Rejected rows over all rows."""
        return len(self.rejects) / max(1, self.n_written + len(self.rejects))


@dataclasses.dataclass(frozen=True)
class Way:
    """How splits are written, which decides nothing about their bytes.

    `engine` writes shards, `workers` decode the sample that sizes them, `overwrite` replaces splits that are there,
    `restart` begins anew what an earlier run began, `max_rejects` is the share of rows that may fail.
    """

    engine: Engine
    workers: int = 1
    overwrite: bool = False
    restart: bool = False
    max_rejects: float | None = None
    watch: Watch = lambda split: contextlib.nullcontext()


def here(workers: int) -> Engine:
    """Decoder processes of this machine, without Beam."""

    def engine(job: Path, indices: Sequence[int], count: Tally) -> None:
        write.write_shards(job, indices, workers, count.add_clip)

    return engine


def prepare(
    entries: Iterable[tuple[str, Row | Reject]], root: str | Path, out: Path, options: plan.Options, way: Way
) -> Iterator[tuple[str, ShardReport]]:
    """Write every split that has rows; the report of each when it is published.

    Args:
      entries: a split's name and a row of it, in the manifest's order.
      root: folder below which the videos lie.
      out: the dataset; other splits in it stay as they are.
      options: what to write.
      way: how.

    Raises:
      DataError: a split is there, another run is writing it, two rows share an id, not one clip could be used, too
        many failed; a run with other options was begun there.
      ConfigError: more shards than clips.
      OSError: the disk is full, and the like. Nothing of the dataset has changed then, finished shards are kept.
    """
    with contextlib.ExitStack() as open_folders:
        jobs: dict[str, Path] = {}
        spools: dict[str, spool.Spool] = {}
        for split, entry in entries:
            if split not in spools:
                check_split(split)
                jobs[split] = open_folders.enter_context(_work_folder(out, split))
                spools[split] = open_folders.enter_context(spool.Spool(jobs[split] / _NEW))
            spools[split].add(entry)
        for split in sorted(spools):
            yield split, _prepare_split(out, jobs[split], split, spools[split], root, options, way)


@contextlib.contextmanager
def _work_folder(out: Path, split: str) -> Iterator[Path]:
    """The folder in which a split is written, for this process alone; it goes if nothing in it is worth keeping."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is not a folder")
    out.mkdir(parents=True, exist_ok=True)
    job = Path(os.path.realpath(out)) / f".{split}.writing"
    with locked(job.with_suffix(".lock"), wait=False) as mine:
        if not mine:
            raise DataError(f"another run is writing the split {split!r} of {out}")
        if job.is_symlink():
            raise DataError(f"{job} is a link, and what it leads to may be somebody's: remove the link")
        job.mkdir(exist_ok=True)
        for leftover in job.iterdir():
            if leftover.name in (_NEW, write.STOP) or leftover.name.endswith(ASIDE):
                _remove(leftover)
        try:
            yield job
        finally:
            if not any(job.glob("*.ledger")):
                shutil.rmtree(job, ignore_errors=True)


def _report_of(out: Path, split: str) -> ShardReport:
    """Of a split that is there already: this run did nothing."""
    found = ledger.summarise(publish.ledger_path(out, split))
    rejects = tuple(Reject(line["id"], line["video"], line["reason"], split) for line in found.rejected)
    return ShardReport(found.written, rejects, 0.0, found.bytes, len(split_lengths(out)[split]), found.in_shards)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _discard(job: Path) -> None:
    """Remove a work folder, its ledgers first: without one no shard is taken for finished.

    Workers of an engine may still write there, each the twin of one that was faster; that is no fault of the split.
    """
    for path in job.glob("*.ledger"):
        path.unlink(missing_ok=True)
    shutil.rmtree(job, ignore_errors=True)


def _prepare_split(
    out: Path, job: Path, split: str, rows: spool.Spool, root: str | Path, options: plan.Options, way: Way
) -> ShardReport:
    began = time.monotonic()
    is_there = (out / "dataset_info.json").exists() and split in split_lengths(out)
    there = plan.parse(ledger.read_plan(publish.ledger_path(out, split))) if is_there else None
    begun = None if way.restart else plan.load(job)
    todo = plan.settle(rows, split, root, options, way.workers, begun or there)
    if is_there and not way.overwrite:
        if todo != there:
            raise DataError(f"{out} has the split {split!r} already: --overwrite replaces it")
        unmoved = begun not in (None, todo) or any(shard.records for shard in write.finished(job, todo, None))
        if way.restart or not unmoved:  # of a run that was killed at its very end, not of one with --overwrite
            _discard(job)
        return _report_of(out, split)
    if way.restart:
        for path in set(job.iterdir()) - {rows.folder}:
            _remove(path)
    if begun not in (None, todo) and any(job.glob("*.ledger")):
        raise DataError(
            f"{job} holds a run that was begun with other options ({'; '.join(begun.differences(todo))}): give the "
            "same again to go on, or --restart to begin anew"
        )
    plan.save(job, rows.folder, todo)  # also where there is one: whatever became of its rows, these are whole
    early = list(spool.read_early(plan.folder_of(job), split))
    moved_to = None if is_there else out
    earlier = write.finished(job, todo, moved_to)
    shards = _write(job, todo, way, earlier, early, moved_to)
    before = sum(shard.rows for shard in earlier)
    rejects = (*early, *ledger.rejects_of(job, shards, split))
    publish.write_rejects(out, split, rejects)
    if not any(shard.records for shard in shards):
        _discard(job)
        reasons = "; ".join(
            f"{count} x {kind}" for kind, count in ledger.count_kinds(reject.reason for reject in rejects).items()
        )
        raise DataError(
            f"not one clip of {split} could be used ({reasons or 'none given'}): see {out}/rejects-{split}.tsv"
        )
    publish.publish(out, job, todo, shards, early)
    _discard(job)
    return ShardReport(
        n_written=sum(shard.records for shard in shards),
        rejects=rejects,
        seconds=time.monotonic() - began,
        bytes=sum(shard.record_bytes for shard in shards),
        shards=sum(shard.records > 0 for shard in shards),
        before=before,
    )


def _write(
    job: Path,
    todo: plan.Plan,
    way: Way,
    earlier: Sequence[ledger.Shard],
    early: Sequence[Reject],
    moved_to: Path | None,
) -> list[ledger.Shard]:
    """Have the shards written that are not; all of them."""
    done = {shard.index for shard in earlier}
    missing = [index for index in range(todo.num_shards) if index not in done]
    if not missing:
        return list(earlier)
    with way.watch(todo.split) as progress:
        kinds = ledger.count_kinds(reject.reason for reject in early)
        tally = Tally(todo.split, todo.rows, kinds, earlier, way.max_rejects, progress)
        tally.check()
        for index in missing:  # what it says is not true any more
            ledger.path_of(job, index).unlink(missing_ok=True)
        way.engine(job, missing, tally)
    shards = write.finished(job, todo, moved_to)
    if len(shards) < todo.num_shards:
        raise HarvestError(
            f"{todo.num_shards - len(shards)} of {todo.num_shards} shards of {todo.split} were not written: the same "
            "command goes on with them"
        )
    return shards
