"""`harvest shards`: captioned videos in, shards of decoded frames out.

    harvest shards --manifest clips.csv --out shards/clips --workers 16

Manifest -> rows -> clips decoded in worker processes -> JPEG frames -> ArrayRecord files that are a TFDS dataset.
Records lie in the order of a hash of their ids, so neighbours in a shard have nothing in common and the same manifest
gives the same bytes with any number of workers, and on any engine. A run that was stopped, however, goes on.
"""

import argparse
import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from data_pipeline.decode.pool import TIME_LIMIT
from data_pipeline.decode.video_file import DecodeSpec
from data_pipeline.manifest.read import Reject, Row, iter_manifest
from data_pipeline.prepare import plan, tally
from data_pipeline.prepare.ledger import count_kinds
from data_pipeline.prepare.split import ShardReport, Way, here, prepare
from harvest_jax.errors import ConfigError, DataError

RUNNERS = ("direct", "dask", "flink", "spark", "dataflow")  # Apache Beam's; without one: processes of this machine


def write_split(
    rows: Sequence[Row],
    root: str | Path,
    out: str | Path,
    split: str,
    spec: DecodeSpec | None = None,
    workers: int = 1,
    progress: Callable[[tally.Tally], None] | None = None,
    *,
    rejects: Sequence[Reject] = (),
    shards: int | None = None,
    overwrite: bool = False,
    time_limit: float = TIME_LIMIT,
) -> ShardReport:
    """Decode clips and make them a split of the shard folder `out`; `out/rejects-SPLIT.tsv` lists what failed and why.

    Args:
      rows: the clips; their own `split` does not matter here.
      root: folder below which the videos lie.
      out: the dataset; other splits in it stay as they are.
      split: name of the split.
      spec: frames, size and bounds; default DecodeSpec().
      workers: processes that decode.
      progress: called after each clip.
      rejects: rows that failed before, to be listed too.
      shards: number of files; None: one per 256 MB.
      overwrite: replace the split if it exists.
      time_limit: seconds for one clip.

    Raises:
      DataError: the split exists, two rows share an id, not one clip could be used.
      ConfigError: more shards than clips.
      OSError: the disk is full, and the like. Nothing of the dataset has changed then; called again it goes on.
    """
    options = plan.Options(spec or DecodeSpec(), shards, time_limit=time_limit)
    way = Way(here(workers), workers, overwrite, watch=lambda _: contextlib.nullcontext(progress))
    given: list[Row | Reject] = [*rejects, *rows]
    if not given:
        raise DataError(f"no rows to make the split {split!r} of")
    ((_, report),) = prepare(((split, entry) for entry in given), root, Path(out), options, way)
    return report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `harvest shards`."""
    parser.epilog = (
        "A manifest is CSV, TSV, JSONL or Parquet with the columns video and caption; optional id, split, start, end\n"
        "(seconds or h:m:s); WebVid's, InternVid's and Panda-70M's own files are recognised. WebDataset tars, a\n"
        "folder of videos with captions beside them and a TFDS dataset do as well. Rows and videos that cannot be\n"
        "used are listed with their reasons in OUT/rejects-SPLIT.tsv and stop nothing, unless more than --max_rejects\n"
        "of them fail: exit code 3, at the end or, where after 200 clips no doubt is left, at once. A run that was\n"
        "stopped goes on when the same command is given again. With another --split or manifest it adds a split."
    )
    parser.add_argument(
        "--manifest", required=True, type=Path, nargs="+", metavar="FILE", help="which videos and captions"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the shards, a TFDS dataset")
    parser.add_argument("--root", type=Path, help="folder below which the videos lie (default: the manifest's)")
    parser.add_argument("--split", help="take only the rows of this split; without a split column: the split's name")
    parser.add_argument("--fields", default="", help="fields of a TFDS dataset: video=NAME,caption=NAME,id=NAME")
    parser.add_argument("--workers", type=int, help="decoding processes (default: one for each core; with --runner: 1)")
    parser.add_argument("--frames", type=int, default=16, help="frames stored of each clip (%(default)s)")
    parser.add_argument("--short_side", type=int, default=256, help="their shorter side in pixels (%(default)s)")
    parser.add_argument("--min_frames", type=int, default=1, help="reject clips with fewer frames (%(default)s)")
    parser.add_argument("--time_limit", type=float, default=TIME_LIMIT, help="seconds for one clip (%(default)g)")
    parser.add_argument("--shards", type=int, help="files of each split (default: as --shard_mb says)")
    parser.add_argument(
        "--shard_mb", type=float, default=plan.SHARD_MB, help="their size, from a few decoded clips (%(default)g)"
    )
    parser.add_argument("--max_rejects", type=float, default=0.05, help="share of rows that may fail (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace splits that exist")
    parser.add_argument("--restart", action="store_true", help="begin anew what a stopped run has begun")
    parser.add_argument("--dry_run", action="store_true", help="decode a few clips and say what all would take")
    parser.add_argument("--runner", choices=RUNNERS, help="an engine of Apache Beam (default: none, this machine)")
    parser.add_argument(
        "beam_options", nargs="*", metavar="-- BEAM_OPTION", help="after a --: what the runner is to be told"
    )


def run(args: argparse.Namespace) -> int:
    """Write every split asked for; 3 if more than the allowed share of the rows failed."""
    from data_pipeline.prepare.progress import progress_line

    options, workers = _checked(args)
    stream = iter_manifest(args.manifest, args.root, args.split, args.fields)
    entries = ((entry.split, entry) for entry in stream)
    if args.dry_run:
        return _dry_run(entries, stream.root, options, workers)
    engine = here(workers)
    if args.runner:
        from data_pipeline.prepare import beam

        engine = beam.engine(beam.options_of(args.runner, args.beam_options), args.workers or 1)
    way = Way(engine, workers, args.overwrite, args.restart, args.max_rejects, progress_line)
    rejected = rows = 0
    try:
        for split, report in prepare(entries, stream.root, args.out, options, way):
            _say(args.out, split, report)
            rejected += len(report.rejects)
            rows += report.n_written + len(report.rejects)
    except tally.TooManyRejects as error:
        _print_table(error.kinds)
        raise
    if rejected > args.max_rejects * rows:
        raise DataError(
            f"{rejected} of {rows} rows failed, more than --max_rejects {args.max_rejects:g}; the shards of the others "
            f"are written, and {args.out}/rejects-*.tsv say why"
        )
    return 0


def _checked(args: argparse.Namespace) -> tuple[plan.Options, int]:
    """What to write, and the number of decoding processes on this machine."""
    workers = len(os.sched_getaffinity(0)) if args.workers is None else args.workers
    if workers < 1:
        raise ConfigError(f"--workers {workers}: at least 1")
    if not 0 <= args.max_rejects <= 1:
        raise ConfigError(f"--max_rejects {args.max_rejects:g} is a share from 0 to 1")
    if args.beam_options and not args.runner:
        raise ConfigError(f"{args.beam_options[0]!r} is for a --runner, and none was chosen")
    spec = DecodeSpec(num_frames=args.frames, short_side=args.short_side, min_frames=args.min_frames)
    return plan.Options(spec, args.shards, args.shard_mb, args.time_limit), workers


def _dry_run(entries: Iterable[tuple[str, Row | Reject]], root: Path, options: plan.Options, workers: int) -> int:
    from data_pipeline.prepare import cost

    for split, found in cost.estimate(entries, root, options).items():
        hours = found.core_seconds / 3600
        print(
            f"{split}: {found.rows} clips, about {found.bytes / 1e9:.3g} GB in {found.shards} "
            f"shard{'s' * (found.shards != 1)}, {hours:.3g} core-hours: {hours / workers:.3g} hours with {workers} "
            f"worker{'s' * (workers != 1)} ({found.sampled} clips were decoded to know)"
        )
        if found.kinds:
            print(f"{split}: {found.early} rows of the manifest cannot be used, and about {found.rejects:.0f} videos:")
            _print_table(found.kinds)
    return 0


def _print_table(kinds: dict[str, int]) -> None:
    for kind, count in kinds.items():
        print(f"{count:>10}  {kind}", flush=True)


def _say(out: Path, split: str, report: ShardReport) -> None:
    rows = report.n_written + len(report.rejects)
    here = rows - report.before
    if report.seconds == 0:
        print(
            f"{split}: {report.n_written} clips in {report.shards} shards of {out} already; nothing to do", flush=True
        )
        return
    print(
        f"{split}: {report.n_written} clips in {report.shards} shard{'s' * (report.shards != 1)} of {out}, "
        f"{report.bytes / 1e6:.1f} MB, {report.seconds:.1f} s ({here / max(report.seconds, 1e-9):.1f} clips/s"
        f"{f', {report.before} were there before' if report.before else ''})",
        flush=True,
    )
    if report.rejects:
        reasons = "; ".join(
            f"{count} x {kind}" for kind, count in count_kinds(r.reason for r in report.rejects).items()
        )
        print(f"{split}: {len(report.rejects)} rejected, listed in {out}/rejects-{split}.tsv ({reasons})", flush=True)
