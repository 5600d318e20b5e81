"""Preparation from 360p H.264: clips per second and core of `harvest shards`, compared with plain PyAV decoding.

    python benchmarks/prepare.py --videos FOLDER [FOLDER ...] --out benchmarks/results/prepare_cpu.json

The clips are made first: every video in the folders whose shorter side has at least 360 pixels is encoded as 360p H.264
with x264's defaults (crf 23, key pictures up to 250 apart, three B pictures), 9 seconds long; shorter videos are played
forwards and backwards. What is measured, alternately for each clip:

    bare                  open the file, decode every picture up to the last wanted one: no scaling, no JPEG
    bare, skipping        the same without all pictures that no other picture depends on, wanted or not: the least work
                          for the decoder (decode_clip skips only those that are not wanted)
    bare, scaled, JPEG    bare, and the 16 wanted pictures scaled to 256 px RGB by FFmpeg's default scaler, to JPEG 90
    decode_clip           this project's decoding, with its checks, to 16 pictures of 256 px
    record                what a worker of `harvest shards` does: decode_clip, JPEG 90, the record's bytes
    harvest shards        the whole command: time of its processes with four rows for each clip, minus the time with one
                          row for each, so that the start is not counted

Times are CPU seconds of all threads and processes, the minimum of `--repeats` for each clip (`harvest shards`: of each
of its two runs).
"""

import argparse
import csv
import dataclasses
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import simplejpeg
from av.video.frame import VideoFrame

from benchmarks.vs_torch_arm import cpu_name
from data_pipeline.decode import worker
from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.spec import DecodeSpec

SIDE = 360
SECONDS = 9
SPEC = DecodeSpec()
SHARDS = "harvest shards"


def make_clip(source: Path, target: Path) -> bool:
    """A video as 360p H.264; False if it is too small or not a video."""
    try:
        with av.open(str(source)) as container:
            video = container.streams.video[0]
            rate = Fraction(round(min(30, max(24, float(video.average_rate or 25)))))
            pictures = [frame for _, frame in zip(range(int(rate * SECONDS)), container.decode(video), strict=False)]
    except (av.FFmpegError, IndexError):
        return False
    if len(pictures) < rate or min(pictures[0].width, pictures[0].height) < SIDE:
        return False
    scale = SIDE / min(pictures[0].width, pictures[0].height)
    width, height = (round(side * scale / 2) * 2 for side in (pictures[0].width, pictures[0].height))
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, picture in enumerate(back_and_forth(pictures, int(rate * SECONDS))):
            frame = picture.reformat(width, height, "yuv420p", interpolation="BICUBIC")
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return True


def back_and_forth(pictures: list[VideoFrame], count: int) -> Iterator[VideoFrame]:
    there_and_back = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]
    for index in range(count):
        yield pictures[there_and_back[index % len(there_and_back)]]


def bare(path: Path, jpegs: bool = False, skipping: bool = False) -> list[bytes]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.skip_frame = "NONREF" if skipping else "DEFAULT"
        seconds = float((stream.duration or 0) * (stream.time_base or 0))
        wanted = [(index + 0.5) * seconds / SPEC.num_frames for index in range(SPEC.num_frames)]
        found = []
        shown: VideoFrame | None = None
        for frame in container.decode(stream):
            while wanted and shown is not None and frame.time > wanted[0]:
                found.append(shown)
                wanted.pop(0)
            if not wanted:
                break
            shown = frame
        if not jpegs:
            return []
        scale = SPEC.short_side / min(found[0].width, found[0].height)
        width, height = (round(side * scale) for side in (found[0].width, found[0].height))
        pictures = [frame.to_ndarray(format="rgb24", width=width, height=height) for frame in found]
        return [simplejpeg.encode_jpeg(picture, 90, "RGB", "420") for picture in pictures]


def record(path: Path) -> None:
    task = {"root": str(path.parent), "video": path.name, "start": None, "end": None, "spec": dataclasses.asdict(SPEC)}
    header, _ = worker.run_task(task | {"record": {"id": path.stem, "captions": ["a clip"], "extra": {}}})
    if "rejected" in header:
        raise RuntimeError(header["rejected"])


ARMS: dict[str, Callable[[Path], Any]] = {
    "bare": bare,
    "bare, skipping": lambda path: bare(path, skipping=True),
    "bare, scaled, JPEG": lambda path: bare(path, jpegs=True),
    "decode_clip": lambda path: decode_clip(path, SPEC),
    "record": record,
}


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def shards_seconds(paths: list[Path], work: Path, rows: int) -> float:
    """CPU seconds of `harvest shards` with `rows` rows for each clip."""
    manifest, out = work / f"rows{rows}.csv", work / "shards"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "video", "caption"))
        writer.writerows((f"{path.stem}.{row}", path.name, "a clip") for row in range(rows) for path in paths)
    options = {"--manifest": manifest, "--root": paths[0].parent, "--out": out, "--workers": 1, "--shards": 1}
    words = ["shards", "--overwrite", *(word for option in options.items() for word in option)]
    before = children_seconds()
    command = [sys.executable, "-m", "harvest_jax", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return children_seconds() - before


def main() -> None:
    """Print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, nargs="+", required=True, help="folders of videos")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sources = [path for root in args.videos for path in sorted(root.rglob("*")) if path.is_file()]
        targets = [Path(folder) / f"{index:04d}.mp4" for index in range(len(sources))]
        paths = [target for source, target in zip(sources, targets, strict=True) if make_clip(source, target)]
        if not paths:
            parser.error(f"no video of {SIDE} pixels there")
        size = statistics.mean(path.stat().st_size for path in paths)
        best: dict[str, dict[Path, float]] = {arm: {} for arm in ARMS}
        whole: dict[int, list[float]] = {1: [], 4: []}
        for _ in range(args.repeats):
            for path in paths:
                for arm, function in ARMS.items():
                    began = time.process_time()
                    function(path)
                    taken = time.process_time() - began
                    best[arm][path] = min(taken, best[arm].get(path, taken))
            for rows, taken_by in whole.items():
                taken_by.append(shards_seconds(paths, Path(folder), rows))
        seconds = {arm: statistics.mean(times.values()) for arm, times in best.items()}
        seconds[SHARDS] = (min(whole[4]) - min(whole[1])) / (3 * len(paths))
        startup = min(whole[1]) - len(paths) * seconds[SHARDS]
    table = {
        arm: {
            "ms_per_clip": round(1e3 * taken, 1),
            "clips_per_second_per_core": round(1 / taken, 2),
            "of_bare": round(seconds["bare"] / taken, 3),
        }
        for arm, taken in seconds.items()
    }
    print(f"{len(paths)} clips of {SECONDS} s, {SIDE}p H.264, {size / 1e3:,.0f} kB each\n")
    print("| | ms a clip | clips/s a core | of bare |\n|---|---|---|---|")
    for arm, row in table.items():
        print(f"| {arm} | {row['ms_per_clip']:.0f} | {row['clips_per_second_per_core']:.1f} | {row['of_bare']:.0%} |")
    if args.out:
        what = {"clips": len(paths), "seconds": SECONDS, "bytes_per_clip": round(size), "startup_s": round(startup, 1)}
        versions = {"av": av.__version__, "simplejpeg": simplejpeg.__version__, "python": platform.python_version()}
        found = what | {"cpu": cpu_name(), "versions": versions, "arms": table}
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
