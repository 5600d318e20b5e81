"""`harvest shards`: captioned videos in, shards of decoded frames out.

    harvest shards --manifest clips.csv --out shards/clips --workers 16

Manifest -> rows -> clips decoded in worker processes -> JPEG frames -> ArrayRecord files that are a TFDS dataset.
Records are ordered by a hash of their ids: neighbours in a shard have nothing in common, and the same manifest gives
the same bytes with any number of workers and on any engine. A run that was stopped in any way continues.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipeline.decode.spec import TIME_LIMIT, DecodeSpec
from data_pipeline.prepare.options import SHARD_MB, Options
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.machine import available_cores
from harvest_jax.terminal import printable, progress

if TYPE_CHECKING:  # else imported by `run`, so that --help needs no library
    from data_pipeline.manifest.read import ManifestStream
    from data_pipeline.manifest.rows import ClipRow, Reject
    from data_pipeline.prepare.split import ShardReport

RUNNERS = ("direct", "dask", "flink", "spark", "dataflow")  # Apache Beam's; without one: processes of this machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `harvest shards`."""
    parser.epilog = (
        "A manifest is a CSV, TSV, JSONL, JSON or Parquet file with the columns video and caption, and optionally id,\n"
        "split, start and end (seconds or h:m:s). The files of WebVid, InternVid and Panda-70M are recognised.\n"
        "Instead of a manifest: WebDataset tars, a folder of videos with captions beside them (NAME.txt or\n"
        "NAME.json), or a TFDS dataset.\n"
        "\n"
        "Rows and videos that cannot be used are listed with the reason in OUT/rejects-SPLIT.tsv; the others are\n"
        "written. If a larger share than --max_rejects fails, the exit code is 3. The run stops early, from 200 clips\n"
        "on, once it is certain that the share will be exceeded.\n"
        "\n"
        "To continue a run that was stopped, give the same command again. To add a split to OUT, give another --split\n"
        "or another manifest. To change a split, give the changed manifest and --overwrite: clips whose videos, spans\n"
        "and settings are the same are taken over, and the result is that of a fresh run."
    )
    parser.add_argument(
        "--manifest",
        required=True,
        type=Path,
        nargs="+",
        metavar="FILE",
        help="files or folders of videos and captions",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the shards; it becomes a TFDS dataset")
    parser.add_argument(
        "--root", type=Path, help="folder that the videos' names are relative to (default: the manifest's folder)"
    )
    parser.add_argument(
        "--split",
        help="take only the rows of this split; if the manifest has no column split: the name of the split (train)",
    )
    parser.add_argument(
        "--fields", default="", help="which fields of a TFDS dataset to take: video=NAME,caption=NAME,id=NAME"
    )
    parser.add_argument(
        "--columns",
        default="",
        help="in tables with other columns than those above: which are ours, video=NAME,caption=NAME,start=NAME",
    )
    parser.add_argument(
        "--workers", type=int, help="decoding processes (default: one per core; with --runner: 1 per shard)"
    )
    parser.add_argument("--frames", type=int, default=16, help="frames to store per clip (default: %(default)s)")
    parser.add_argument(
        "--short_side",
        type=int,
        default=256,
        help="length of the frames' shorter side in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--min_frames", type=int, default=1, help="reject clips with fewer different frames (default: %(default)s)"
    )
    parser.add_argument(
        "--time_limit",
        type=float,
        default=TIME_LIMIT,
        help="seconds of processor time to decode one clip (default: %(default)g)",
    )
    parser.add_argument("--shards", type=int, help="number of files of each split (default: as --shard_mb requires)")
    parser.add_argument(
        "--shard_mb", type=float, default=SHARD_MB, help="size of a file in MB, roughly (default: %(default)g)"
    )
    parser.add_argument(
        "--max_rejects", type=float, default=0.05, help="share of rows that may fail, 0 to 1 (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace splits that exist, decoding what has changed")
    parser.add_argument(
        "--restart", action="store_true", help="discard what a stopped run has written, and begin again"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="write nothing; decode a few clips and estimate time and size"
    )
    parser.add_argument(
        "--runner", choices=RUNNERS, help="a runner of Apache Beam (default: none, processes of this machine)"
    )
    parser.add_argument("beam_options", nargs="*", metavar="-- BEAM_OPTION", help="after --: options for the runner")


def run(args: argparse.Namespace) -> int:
    """Write every split of the manifest.

    Raises:
      HarvestError, OSError: as `split.prepare`.
      DataError: more than the allowed share of the rows failed, or would fail (`--dry_run`).
    """
    from data_pipeline.manifest.read import iter_manifest
    from data_pipeline.prepare.split import Execution, local_engine, prepare
    from data_pipeline.prepare.split_progress import TooManyRejects

    options, workers = _checked(args)
    stream = iter_manifest(args.manifest, args.root, args.split, args.fields, args.columns)
    entries = ((entry.split, entry) for entry in stream)
    if args.dry_run:
        _dry_run(entries, stream, options, workers, args.max_rejects)
        return 0
    engine = local_engine(workers)
    if args.runner:
        from data_pipeline.prepare import beam

        engine = beam.engine(beam.options_of(args.runner, args.beam_options), args.workers or 1)
    execution = Execution(engine, workers, args.overwrite, args.restart, args.max_rejects, progress)
    rejected = rows = 0
    try:
        for split, report in prepare(entries, stream.root, args.out, options, execution):
            _print_report(args.out, split, report)
            rejected += len(report.rejects)
            rows += report.n_written + len(report.rejects)
    except TooManyRejects as error:
        _print_kinds(error.kinds)
        raise
    _print_skipped(stream)
    if rejected > args.max_rejects * rows:
        raise DataError(
            f"{rejected} of {rows} rows failed, more than --max_rejects {args.max_rejects:g}; the shards of the others "
            f"are written, and {args.out}/rejects-*.tsv lists the reasons"
        )
    return 0


def _checked(args: argparse.Namespace) -> tuple[Options, int]:
    """What to write, and the number of decoding processes on this machine."""
    workers = available_cores() if args.workers is None else args.workers
    if workers < 1:
        raise ConfigError(f"--workers {workers}: at least 1")
    if not 0 <= args.max_rejects <= 1:
        raise ConfigError(f"--max_rejects {args.max_rejects:g} is outside 0..1: it is a share of the rows")
    if args.beam_options and not args.runner:
        raise ConfigError(f"{args.beam_options[0]!r} is an option for Apache Beam: it needs --runner")
    spec = DecodeSpec(num_frames=args.frames, short_side=args.short_side, min_frames=args.min_frames)
    return Options(spec, args.shards, args.shard_mb, args.time_limit), workers


def _dry_run(
    entries: "Iterable[tuple[str, ClipRow | Reject]]",
    stream: "ManifestStream",
    options: Options,
    workers: int,
    max_rejects: float,
) -> None:
    from data_pipeline.prepare.dry_run import estimate_splits

    estimates = estimate_splits(entries, stream.root, options, progress)
    for split, found in estimates.items():
        hours = found.core_seconds / 3600
        print(
            f"{split}: {found.rows} clips, about {found.bytes / 1e9:.3g} GB in {_count(found.shards, 'shard')}, "
            f"{hours:.3g} core-hours: {hours / workers:.3g} hours with {_count(workers, 'worker')} "
            f"(estimated from {_count(found.sampled, 'decoded clip')})"
        )
        if found.kinds:
            print(f"{split}: {found.early} rows of the manifest cannot be used, and about {found.rejects:.0f} videos:")
            _print_kinds(found.kinds)
    _print_skipped(stream)
    for split, found in estimates.items():
        if found.rejects == found.rows:
            tried = f"all {found.sampled} clips that were tried" if found.sampled else "all rows of the manifest"
            raise DataError(f"not one clip of {split} could be used: {tried} were rejected")
    rows = sum(found.rows + found.early for found in estimates.values())
    rejected = sum(found.rejects + found.early for found in estimates.values())
    if rejected > max_rejects * rows:
        raise DataError(f"about {rejected:.0f} of {rows} rows would fail, more than --max_rejects {max_rejects:g}")


def _print_kinds(kinds: dict[str, int]) -> None:
    for kind, count in kinds.items():
        print(f"{count:>10}  {printable(kind)}", flush=True)


def _print_report(out: Path, split: str, report: "ShardReport") -> None:
    from data_pipeline.prepare.ledger import count_kinds, kinds_in_words

    folder = printable(out)
    if report.seconds == 0:
        print(
            f"{split}: {folder} has its {report.n_written} clips in {_count(report.shards, 'shard')} already",
            flush=True,
        )
        return
    done = report.n_written + len(report.rejects) - report.before
    print(
        f"{split}: {report.n_written} clips in {_count(report.shards, 'shard')} of {folder}, "
        f"{report.bytes / 1e6:.1f} MB, {report.seconds:.1f} s ({done / max(report.seconds, 1e-9):.1f} clips/s"
        f"{f', {report.before} were there before' if report.before else ''}"
        f"{f', {report.taken_over} taken over undecoded' if report.taken_over else ''})",
        flush=True,
    )
    if report.rejects:
        kinds = kinds_in_words(count_kinds(reject.reason for reject in report.rejects))
        print(f"{split}: {len(report.rejects)} rejected, listed in {folder}/rejects-{split}.tsv ({kinds})", flush=True)

    if report.damaged_frames:
        clips, frames = _count(report.damaged_clips, "clip"), _count(report.damaged_frames, "frame")
        ledger = f"{folder}/ledger-{split}.parquet"
        print(f"{split}: the decoder marks {frames} in {clips} as damaged: column damaged of {ledger}", flush=True)


def _print_skipped(stream: "ManifestStream") -> None:
    for line in stream.skipped.in_words():
        print(f"skipped: {line}", flush=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
