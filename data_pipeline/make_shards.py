"""`harvest shards`: captioned videos in, shards of decoded frames out.

    harvest shards --manifest clips.csv --out shards/clips --workers 16

Manifest -> rows -> clips decoded in worker processes -> JPEG frames -> ArrayRecord files that are a TFDS dataset.
Records lie in the order of a hash of their ids, so neighbours in a shard have nothing in common and the same manifest
gives the same bytes with any number of workers.
"""

import argparse
import collections
import dataclasses
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.manifest import Reject, Row, check_split, read_manifest
from data_pipeline.video_file import DecodeSpec
from data_pipeline.worker_pool import TIME_LIMIT, DecoderPool
from harvest_jax.errors import ConfigError, DataError

RUNNERS = ("direct",)
_MODULES = ("data_pipeline.decode", "data_pipeline.shard_format")  # what a worker needs to make records
Progress = Callable[[int, int, int], None]  # clips done, clips in all, rejected so far


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """What became of a split: records written, rows that were not, seconds it took, bytes and files of its shards."""

    n_written: int
    rejects: tuple[Reject, ...]
    seconds: float
    bytes: int
    shards: int

    @property
    def rejected_share(self) -> float:
        """Rejected rows over all rows."""
        return len(self.rejects) / max(1, self.n_written + len(self.rejects))


def write_split(
    rows: Sequence[Row],
    root: str | Path,
    out: str | Path,
    split: str,
    spec: DecodeSpec | None = None,
    workers: int = 1,
    progress: Progress | None = None,
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
      OSError: the disk is full, and the like. Nothing of the dataset has changed then.
    """
    from data_pipeline.tfds_builder import SplitWriter

    began = time.monotonic()
    check_split(split)
    out, spec = Path(out), spec or DecodeSpec()
    _check_ids(rows)
    # sorted by hash, each with its place in the manifest, in which order rejects are listed
    ordered = sorted(enumerate(rows), key=lambda entry: hashlib.sha256(entry[1].id.encode()).digest())
    failed: dict[int, Reject] = {}
    with SplitWriter(out, split, len(rows), shards, overwrite) as writer:
        with DecoderPool(workers, time_limit, modules=_MODULES) as pool:
            answers = pool.map(_tasks([row for _, row in ordered], os.path.realpath(root), spec))
            for position, ((place, row), answer) in enumerate(zip(ordered, answers, strict=True)):
                if "rejected" in answer.header:
                    failed[place] = Reject(row.id, row.video, answer.header["rejected"], split)
                else:
                    writer.write(position, answer.payload)
                if progress is not None:
                    progress(position + 1, len(ordered), len(failed))
        all_rejects = (*rejects, *(failed[place] for place in sorted(failed)))
        _write_rejects(out / f"rejects-{split}.tsv", all_rejects)
        if len(failed) == len(rows):
            reasons = "; ".join(f"{count} x {kind}" for kind, count in count_reasons(all_rejects).items())
            raise DataError(
                f"not one clip of {split} could be used ({reasons or 'none given'}): see {out}/rejects-{split}.tsv"
            )
        writer.publish()
    written = len(rows) - len(failed)
    return ShardReport(written, all_rejects, time.monotonic() - began, writer.num_bytes, len(writer.lengths))


def _tasks(rows: Sequence[Row], root: str, spec: DecodeSpec) -> Iterator[dict[str, Any]]:
    fields = dataclasses.asdict(spec)
    for row in rows:
        record = {"id": row.id, "captions": row.captions, "extra": row.extra}
        yield {"root": root, "video": row.video, "start": row.start, "end": row.end, "spec": fields, "record": record}


def _check_ids(rows: Sequence[Row]) -> None:
    twice = [name for name, count in collections.Counter(row.id for row in rows).items() if count > 1]
    if twice:
        raise DataError(f"two rows share the id {twice[0]!r}")


def _write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    """One line each: id, video, reason; written aside and moved into place."""
    lines = [("id", "video", "reason"), *((reject.id, reject.video, reject.reason) for reject in rejects)]
    text = "".join("\t".join(" ".join(cell.split()) for cell in line) + "\n" for line in lines)
    aside = path.with_name(f".{path.name}.writing")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def count_reasons(rejects: Sequence[Reject]) -> dict[str, int]:
    """How many rejects of each kind (what stands before the reason's colon), the most frequent first."""
    kinds = collections.Counter(re.split(r":", reject.reason, maxsplit=1)[0] for reject in rejects)
    return dict(kinds.most_common())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `harvest shards`."""
    parser.epilog = (
        "A manifest is CSV, TSV, JSONL or Parquet with the columns video and caption; optional id, split, start, end\n"
        "(seconds or h:m:s); WebVid's, InternVid's and Panda-70M's own files are recognised. Rows and videos that\n"
        "cannot be used are listed with their reasons in OUT/rejects-SPLIT.tsv and never stop a run; exit code 3 says\n"
        "that more than --max_rejects of them failed. Run again with another --split or manifest to add a split to OUT."
    )
    parser.add_argument("--manifest", required=True, type=Path, help="which videos and captions")
    parser.add_argument("--out", required=True, type=Path, help="folder of the shards, a TFDS dataset")
    parser.add_argument("--root", type=Path, help="folder below which the videos lie (default: the manifest's)")
    parser.add_argument("--split", help="take only the rows of this split; without a split column: the split's name")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="decoding processes (%(default)s)"
    )
    parser.add_argument("--frames", type=int, default=16, help="frames stored of each clip (%(default)s)")
    parser.add_argument("--short_side", type=int, default=256, help="their shorter side in pixels (%(default)s)")
    parser.add_argument("--min_frames", type=int, default=1, help="reject clips with fewer frames (%(default)s)")
    parser.add_argument("--time_limit", type=float, default=TIME_LIMIT, help="seconds for one clip (%(default)g)")
    parser.add_argument("--shards", type=int, help="files of each split (default: one per 256 MB)")
    parser.add_argument("--max_rejects", type=float, default=0.05, help="share of rows that may fail (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace splits that exist")
    parser.add_argument("--runner", default="direct", help="where it runs: direct, on this machine (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write every split asked for; 3 if more than the allowed share of the rows failed."""
    from data_pipeline.progress import progress_line

    spec = _checked_spec(args)
    manifest = read_manifest(args.manifest, args.root, args.split)
    rejected = rows = 0
    for split in manifest.splits:
        chosen = [row for row in manifest.rows if row.split == split]
        early = [reject for reject in manifest.rejects if reject.split == split]
        with progress_line(split) as progress:
            report = write_split(
                chosen,
                manifest.root,
                args.out,
                split,
                spec,
                args.workers,
                progress,
                rejects=early,
                shards=args.shards,
                overwrite=args.overwrite,
                time_limit=args.time_limit,
            )
        _say(args.out, split, report, len(chosen))
        rejected += len(report.rejects)
        rows += report.n_written + len(report.rejects)
    if rejected > args.max_rejects * rows:
        raise DataError(
            f"{rejected} of {rows} rows failed, more than --max_rejects {args.max_rejects:g}; the shards of the others "
            f"are written, and {args.out}/rejects-*.tsv say why"
        )
    return 0


def _checked_spec(args: argparse.Namespace) -> DecodeSpec:
    if args.runner not in RUNNERS:
        raise ConfigError(f"--runner {args.runner} is not available here; available: {', '.join(RUNNERS)}")
    if args.workers < 1:
        raise ConfigError(f"--workers {args.workers}: at least 1")
    if not 0 <= args.max_rejects <= 1:
        raise ConfigError(f"--max_rejects {args.max_rejects:g} is a share from 0 to 1")
    if not args.time_limit > 0:
        raise ConfigError(f"--time_limit {args.time_limit:g}: more than 0 seconds")
    return DecodeSpec(num_frames=args.frames, short_side=args.short_side, min_frames=args.min_frames)


def _say(out: Path, split: str, report: ShardReport, rows: int) -> None:
    rate = rows / max(report.seconds, 1e-9)
    print(
        f"{split}: {report.n_written} clips in {report.shards} shard{'s' * (report.shards != 1)} of {out}, "
        f"{report.bytes / 1e6:.1f} MB, {report.seconds:.1f} s ({rate:.1f} clips/s)",
        flush=True,
    )
    if report.rejects:
        reasons = "; ".join(f"{count} x {kind}" for kind, count in count_reasons(report.rejects).items())
        print(f"{split}: {len(report.rejects)} rejected, listed in {out}/rejects-{split}.tsv ({reasons})", flush=True)
