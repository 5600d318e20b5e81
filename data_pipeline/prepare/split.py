"""From rows to a finished split: plan it, write the shards that are missing, publish it.

All work happens in `OUT/.SPLIT.writing`. A run that was stopped in any way continues there when it is started again.
"""

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from data_pipeline.manifest.rows import ClipRow, Reject, check_split
from data_pipeline.prepare import ledger, plan, publish, spool, write
from data_pipeline.prepare.earlier import earlier_split
from data_pipeline.prepare.options import Options
from data_pipeline.prepare.split_progress import SplitProgress
from data_pipeline.shards.rejects import write_rejects
from data_pipeline.shards.shard_format import split_lengths
from harvest_jax.errors import DataError, HarvestError
from harvest_jax.files import ASIDE, locked
from harvest_jax.terminal import Progress

Engine = Callable[[Path, Sequence[int], SplitProgress], None]  # writes these shards of a work folder, and counts them
ShowProgress = Callable[[str, str], contextlib.AbstractContextManager[Progress]]  # as harvest_jax.terminal.progress
_NEW = "plan.new"  # below a work folder: rows that are still being read


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """The result for one split.

    Attributes:
      n_written: records.
      rejects: rows that could not be used.
      seconds: this run took.
      bytes: of all records.
      shards: files.
      before: clips that an earlier run had done.
      damaged_clips, damaged_frames: written clips with frames that the decoder has marked as damaged, and how many.
      taken_over: clips of the split that was replaced, not decoded again.
    """

    n_written: int
    rejects: tuple[Reject, ...]
    seconds: float
    bytes: int
    shards: int
    before: int = 0
    damaged_clips: int = 0
    damaged_frames: int = 0
    taken_over: int = 0


@contextlib.contextmanager
def silent(name: str, unit: str) -> Iterator[Progress]:
    """A `ShowProgress` that shows nothing."""
    yield lambda done, total, note: None


@dataclasses.dataclass(frozen=True)
class Execution:
    """How splits are written. It has no influence on their bytes.

    Attributes:
      engine: writes shards.
      workers: processes that decode the sample from which the number of shards follows.
      overwrite: replace splits that exist.
      restart: discard what an earlier run has begun.
      max_rejects: share of rows that may fail; None: all.
      show: shows the progress of each stage.
    """

    engine: Engine
    workers: int = 1
    overwrite: bool = False
    restart: bool = False
    max_rejects: float | None = None
    show: ShowProgress = silent


def local_engine(workers: int) -> Engine:
    """An engine of decoder processes on this machine, without Beam."""

    def engine(job: Path, indices: Sequence[int], count: SplitProgress) -> None:
        write.write_shards(job, indices, workers, count.add_clip)

    return engine


def write_split(
    entries: Sequence[ClipRow | Reject],
    root: str | Path,
    out: str | Path,
    split: str,
    options: Options | None = None,
    execution: Execution | None = None,
) -> ShardReport:
    """Decode clips and make them one split of the shard folder `out`.

    `out/rejects-SPLIT.tsv` lists the rows that failed, with the reasons.

    Args:
      entries: the clips, whose own `split` is not used, and rows that were rejected before, to be listed too.
      root: folder that the videos' names are relative to.
      out: the shard folder; other splits in it stay as they are.
      split: name of the split.
      options: what to write; None: Options().
      execution: how to write it; None: one process on this machine.

    Raises:
      DataError: there are no rows, the split exists, two rows share an id, not one clip could be used.
      ConfigError: more shards than clips.
      OSError: the disk is full, or similar. The shard folder is unchanged then; called again it continues.
    """
    if not entries:
        raise DataError(f"no rows to make the split {split!r} of")
    given = ((split, entry) for entry in entries)
    ((_, report),) = prepare(given, root, Path(out), options or Options(), execution or Execution(local_engine(1)))
    return report


def prepare(
    entries: Iterable[tuple[str, ClipRow | Reject]], root: str | Path, out: Path, options: Options, execution: Execution
) -> Iterator[tuple[str, ShardReport]]:
    """Write every split that has rows; yield the report of each when it is published.

    Args:
      entries: a split's name and a row of it, in the manifest's order.
      root: folder that the videos' names are relative to.
      out: the shard folder; other splits in it stay as they are.
      options: what to write.
      execution: how to write it.

    Raises:
      DataError: a split exists, another run is writing it, two rows share an id, not one clip could be used, too many
        failed; an earlier run with other options was not finished.
      ConfigError: more shards than clips.
      OSError: the disk is full, or similar. The shard folder is unchanged then; finished shards are kept.
    """
    with contextlib.ExitStack() as open_folders:
        jobs: dict[str, Path] = {}
        spools: dict[str, spool.Spool] = {}
        with execution.show("reading the manifest", "rows") as progress:
            for number, (split, entry) in enumerate(entries, start=1):
                if split not in spools:
                    check_split(split)
                    jobs[split] = open_folders.enter_context(_work_folder(out, split))
                    spools[split] = open_folders.enter_context(spool.Spool(jobs[split] / _NEW))
                spools[split].add(entry)
                if number % 1000 == 0:
                    progress(number, 0, "")
        for split in sorted(spools):
            yield split, _prepare_split(out, jobs[split], split, spools[split], root, options, execution)


@contextlib.contextmanager
def _work_folder(out: Path, split: str) -> Iterator[Path]:
    """The folder in which a split is written, locked for this process; removed if it has no finished shard."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is not a folder")
    out.mkdir(parents=True, exist_ok=True)
    job = Path(os.path.realpath(out)) / f".{split}.writing"
    with locked(job.with_suffix(".lock"), wait=False) as mine:
        if not mine:
            raise DataError(f"another run is writing the split {split!r} of {out}")
        if job.is_symlink():
            raise DataError(f"{job} is a link, which could lead to other data: remove the link")
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
    """The report of a split that existed before: this run did nothing."""
    found = ledger.summarise(ledger.ledger_path(out, split))
    rejects = tuple(Reject(line["id"], line["video"], line["reason"], split) for line in found.rejected)
    return ShardReport(found.written, rejects, 0.0, found.bytes, len(split_lengths(out)[split]), found.in_shards)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _discard(job: Path) -> None:
    """Remove a work folder, its ledgers first: without its ledger no shard counts as finished.

    Workers of an engine may still write there: each is a duplicate of one that was faster. That is not an error.
    """
    for path in job.glob("*.ledger"):
        path.unlink(missing_ok=True)
    shutil.rmtree(job, ignore_errors=True)


def _prepare_split(
    out: Path, job: Path, split: str, rows: spool.Spool, root: str | Path, options: Options, execution: Execution
) -> ShardReport:
    began = time.monotonic()
    exists = (out / "dataset_info.json").exists() and split in split_lengths(out)
    published = plan.parse_plan(ledger.read_plan(ledger.ledger_path(out, split))) if exists else None
    begun = None if execution.restart else plan.load_plan(job)
    replaced = None
    if published is not None and execution.overwrite and not execution.restart:
        replaced = earlier_split(
            out, split, dataclasses.asdict(options.spec), options.time_limit, plan.record_versions()
        )
    with execution.show(f"{split}: sample for the size of shards", "clips") as progress:
        todo = plan.make_plan(rows, split, root, options, execution.workers, begun or published, progress, replaced)
    if exists and not execution.overwrite:
        if todo != published:
            raise DataError(
                f"{out} has the split {split!r} already: --overwrite replaces it, and decodes only what has changed"
            )
        unmoved = begun not in (None, todo) or any(shard.records for shard in write.finished(job, todo, None))
        if execution.restart or not unmoved:  # left by a run that was killed at its very end, not by one to overwrite
            _discard(job)
        return _report_of(out, split)
    if execution.restart:
        for path in set(job.iterdir()) - {rows.folder}:
            _remove(path)
        (job / write.ANEW).touch()
    if begun not in (None, todo) and any(job.glob("*.ledger")):
        raise DataError(
            f"{job} holds an unfinished run with other options ({'; '.join(begun.differences(todo))}): give the same "
            "options to continue it, or --restart to discard it"
        )
    plan.save(job, rows.folder, todo)  # also where there is one: its rows may be damaged, these are complete
    early = list(spool.read_early(plan.folder_of(job), split))
    moved_to = None if exists else out
    earlier = write.finished(job, todo, moved_to)
    shards = _write(job, todo, execution, earlier, early, moved_to)
    rejects = (*early, *ledger.rejects_of(job, shards, split))
    write_rejects(out, split, ((reject.id, reject.video, reject.reason) for reject in rejects))
    if not any(shard.records for shard in shards):
        _discard(job)
        reasons = ledger.kinds_in_words(ledger.count_kinds(reject.reason for reject in rejects))
        raise DataError(
            f"not one clip of {split} could be used ({reasons or 'no rows'}): see {out}/rejects-{split}.tsv"
        )
    publish.publish(out, job, todo, shards, early)
    _discard(job)
    return ShardReport(
        n_written=sum(shard.records for shard in shards),
        rejects=rejects,
        seconds=time.monotonic() - began,
        bytes=sum(shard.record_bytes for shard in shards),
        shards=sum(shard.records > 0 for shard in shards),
        before=sum(shard.rows for shard in earlier),
        damaged_clips=sum(shard.damaged_clips for shard in shards),
        damaged_frames=sum(shard.damaged_frames for shard in shards),
        taken_over=sum(shard.taken_over for shard in shards),
    )


def _write(
    job: Path,
    todo: plan.SplitPlan,
    execution: Execution,
    earlier: Sequence[ledger.FinishedShard],
    early: Sequence[Reject],
    moved_to: Path | None,
) -> list[ledger.FinishedShard]:
    """Write the shards that are missing; return all of them."""
    done = {shard.index for shard in earlier}
    missing = [index for index in range(todo.num_shards) if index not in done]
    if not missing:
        return list(earlier)
    with execution.show(todo.split, "clips") as progress:
        kinds = ledger.count_kinds(reject.reason for reject in early)
        count = SplitProgress(todo.split, todo.rows, kinds, earlier, execution.max_rejects, progress)
        count.check()
        count.show()
        for index in missing:  # what such a ledger says is not true any more
            ledger.path_of(job, index).unlink(missing_ok=True)
        execution.engine(job, missing, count)
    shards = write.finished(job, todo, moved_to)
    if len(shards) < todo.num_shards:
        raise HarvestError(
            f"{todo.num_shards - len(shards)} of {todo.num_shards} shards of {todo.split} were not written: give the "
            "same command again to write them"
        )
    return shards
