"""`harvest clips`: long videos in, a manifest of their scenes out.

    harvest clips --videos films/ --out films/clips.csv
    harvest shards --manifest films/clips.csv --out shards/films

Nothing is encoded: the manifest has the names of the videos and the spans of their clips.
"""

import argparse
import collections
import csv
import importlib.util
import json
import os
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.clips.limits import BLACK, DUPLICATE, LONGEST, SHORTEST, STILL
from harvest_jax.arguments import number
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.machine import available_cores
from harvest_jax.terminal import printable, progress

TIME_LIMIT = 3600.0  # seconds of processor time for one video
_COLUMNS = ("video", "start", "end", "caption")
_DROPPED = ("video", "start", "end", "reason")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `harvest clips`."""
    parser.epilog = (
        "Scenes are found by PySceneDetect (pip install 'harvest_jax[clips]'). Longer ones are divided into equal\n"
        "pieces. Captions are the subtitles beside a video, NAME.srt or NAME.vtt; where there are none the column is\n"
        "empty, and `harvest shards` takes no clip without a caption.\n"
        "\n"
        "What was dropped is listed with its reason beside the manifest, in OUT with _dropped before its ending.\n"
        "A run that was stopped goes on where it was; the exit code is 3 if no clip is left."
    )
    parser.add_argument(
        "--videos", required=True, type=Path, nargs="+", metavar="PATH", help="videos, and folders of videos"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="CSV", help="the manifest to write")
    parser.add_argument("--workers", type=int, help="decoding processes (default: one per core)")
    parser.add_argument(
        "--min_seconds", type=number, default=SHORTEST, help="drop shorter scenes (default: %(default)g)"
    )
    parser.add_argument(
        "--max_seconds", type=number, default=LONGEST, help="divide longer scenes (default: %(default)g)"
    )
    parser.add_argument(
        "--black", type=number, default=BLACK, help="drop clips whose mean brightness is below, 0-255 (%(default)g)"
    )
    parser.add_argument(
        "--still",
        type=number,
        default=STILL,
        help="drop clips whose pictures, 0.25 s apart, differ by less on average, 0-255 (%(default)g)",
    )
    parser.add_argument(
        "--duplicate",
        type=number,
        default=DUPLICATE,
        help="drop clips that differ from one before by less on average, 0-255 (%(default)g)",
    )
    parser.add_argument(
        "--time_limit",
        type=number,
        default=TIME_LIMIT,
        help="seconds of processor time to read one video (default: %(default)g)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a manifest that exists")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a text")


def run(args: argparse.Namespace) -> int:
    """Write the manifest.

    Raises:
      ConfigError: an option out of its range, PySceneDetect is not installed.
      DataError: no videos, the manifest exists, no clip is left.
      OSError: a file cannot be written.
    """
    workers = _checked(args)
    from data_pipeline.clips.videos import find_videos, root_of

    root = root_of(args.videos)
    videos = find_videos(args.videos, root)
    if not videos:
        raise DataError(f"no video in {', '.join(map(str, args.videos))}")
    if args.out.exists() and not args.overwrite:
        raise DataError(f"{args.out} exists, perhaps with captions of yours: --overwrite replaces it")
    began = time.monotonic()
    rows, dropped, found = _cut(args, root, videos, workers)
    dropped_path = args.out.with_name(f"{args.out.stem}_dropped{args.out.suffix}")
    _write(dropped_path, _DROPPED, dropped)
    _write(args.out, _COLUMNS, rows)
    _journal_path(args.out).unlink(missing_ok=True)
    found |= {"out": str(args.out), "root": str(root), "seconds": time.monotonic() - began}
    print(json.dumps(found) if args.json else _text(found, args, root, dropped_path))
    if not rows:
        raise DataError(f"no clip is left of {len(videos)} videos; {dropped_path} lists why")
    return 0


def _checked(args: argparse.Namespace) -> int:
    workers = available_cores() if args.workers is None else args.workers
    if workers < 1:
        raise ConfigError(f"--workers {workers}: at least 1")
    if not 0 < args.min_seconds <= args.max_seconds:
        raise ConfigError(
            f"--min_seconds {args.min_seconds:g} must be above 0 and at most --max_seconds {args.max_seconds:g}"
        )
    for name in ("black", "still", "duplicate"):
        if not 0 <= getattr(args, name) <= 255:
            raise ConfigError(f"--{name} {getattr(args, name):g} is outside 0..255")
    if not args.time_limit > 0:
        raise ConfigError(f"--time_limit {args.time_limit:g}: more than 0 seconds")
    if args.out.suffix.lower() != ".csv":
        raise ConfigError(f"--out {printable(args.out)}: the name of a .csv file")
    if importlib.util.find_spec("scenedetect") is None:
        raise ConfigError("harvest clips needs PySceneDetect: pip install 'harvest_jax[clips]'")
    return workers


def _cut(
    args: argparse.Namespace, root: Path, videos: Sequence[Any], workers: int
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], dict[str, Any]]:
    """The rows of both tables, and the counts of the summary."""
    from data_pipeline.clips.selection import Selection
    from data_pipeline.clips.subtitles import caption_of, read_subtitles
    from data_pipeline.media_paths import VideoRejected

    selection = Selection(args.black, args.still, args.duplicate)
    rows: list[tuple[Any, ...]] = []
    dropped: list[tuple[Any, ...]] = []
    rejected: list[dict[str, str]] = []
    kinds: collections.Counter[str] = collections.Counter()
    scenes = 0
    with progress("scenes", "videos") as show:
        for done, (video, result) in enumerate(_scanned(args, root, videos, workers), start=1):
            reason, cues = result.get("rejected"), []
            if reason is None and video.subtitles is not None:
                try:
                    cues = read_subtitles(str(root), video.subtitles)
                except VideoRejected as error:
                    reason = f"bad subtitles: {video.subtitles}: {error.reason}"
            if reason is not None:
                rejected.append({"video": video.name, "reason": reason})
                dropped.append((video.name, "", "", reason))
                show(done, len(videos), f"{len(rows)} clips")
                continue
            scenes += result["scenes"]
            kinds["short"] += result["short"]
            for clip in result["clips"]:
                why = selection.reason(clip, (video.name, clip["scene"]))
                span = (video.name, _time(clip["start"]), _time(clip["end"]))
                if why is None:
                    rows.append((*span, caption_of(cues, clip["start"], clip["end"])))
                else:
                    kinds[why.partition(":")[0]] += 1
                    dropped.append((*span, why))
            show(done, len(videos), f"{len(rows)} clips")
    counts = {
        "videos": len(videos),
        "scenes": scenes,
        "clips": len(rows),
        "captioned": sum(bool(row[3]) for row in rows),
    }
    return rows, dropped, counts | {"dropped": dict(sorted((+kinds).items())), "rejected": rejected}


def _scanned(
    args: argparse.Namespace, root: Path, videos: Sequence[Any], workers: int
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each video and what `scenes.scan` says of it; what a stopped run had done is taken from its journal."""
    from data_pipeline.decode.pool import DecoderPool

    settings = {"shortest": args.min_seconds, "longest": args.max_seconds}
    keys = [json.dumps([video.name, _state(root, video.name), settings]) for video in videos]
    journal = _journal_path(args.out)
    known = _read_journal(journal)
    missing = [(video, key) for video, key in zip(videos, keys, strict=True) if key not in known]
    tasks = [{"root": str(root), "video": video.name, "scan": settings} for video, _ in missing]
    journal.parent.mkdir(parents=True, exist_ok=True)
    with (
        DecoderPool(workers, args.time_limit, modules=("data_pipeline.decode.scenes", "scenedetect.detectors")) as pool,
        journal.open("a", encoding="utf-8") as lines,
    ):
        results = pool.map(tasks)
        for video, key in zip(videos, keys, strict=True):
            if key not in known:
                known[key] = next(results).header
                lines.write(json.dumps([key, known[key]]) + "\n")
                lines.flush()
            yield video, known.pop(key)


def _state(root: Path, name: str) -> list[int]:
    try:
        status = os.stat(root / name)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _journal_path(out: Path) -> Path:
    return out.with_name(f".{out.name}.scenes")


def _read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """What videos were scanned with which result; half a line at its end is left out, and so are rejects."""
    known: dict[str, dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                key, result = json.loads(line)
            except ValueError:
                continue
            if "rejected" not in result:  # tried again: its cause may have passed
                known[key] = result
    return known


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    from harvest_jax.files import atomic_file

    with atomic_file(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def _time(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def _text(found: dict[str, Any], args: argparse.Namespace, root: Path, dropped: Path) -> str:
    read = found["videos"] - len(found["rejected"])
    lines = [
        f"{args.out}: {found['clips']} clips of {found['scenes']} scenes in {read} of {found['videos']} videos, "
        f"{found['captioned']} with captions from subtitles, {found['seconds']:.1f} s"
    ]
    if found["dropped"]:
        lines.append(
            f"dropped: {', '.join(f'{count} {kind}' for kind, count in found['dropped'].items())}; see {dropped}"
        )
    lines += [f"not read: {entry['video']}: {entry['reason']}" for entry in found["rejected"]]
    if found["captioned"] < found["clips"]:
        lines.append("fill the column caption before `harvest shards`, which takes no clip without one")
    words = ["harvest", "shards", "--manifest", str(args.out)]
    if Path(os.path.realpath(args.out.parent)) != root:
        words += ["--root", str(root)]
    lines.append(f"next: {shlex.join([*words, '--out'])} FOLDER")
    return "\n".join(map(printable, lines))
