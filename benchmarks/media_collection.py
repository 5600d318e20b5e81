"""A collection of every kind of video file, compared with FFmpeg's own decoding: `make media`.

    python -m benchmarks.media_collection                     # the table in docs/media.md; status 1 if a file is wrong
    python -m benchmarks.media_collection --only hevc --keep runs/media

The files of benchmarks/media_files.py are made by the FFmpeg of the package imageio-ffmpeg (extra `media`), and decoded
by the worker processes of `harvest shards`, with PyAV's FFmpeg. A file is right if

- its pictures are those that FFmpeg shows at the middles of 8 equal parts of the file, and of 5 parts of a span of it;
- each picture is the one that FFmpeg decodes at that time, upright, with square pixels: its luma is at most 2 of 255
  from FFmpeg's in the mean, and no nearer to that of another picture; so are the means of R, G and B.

Headers state an end that is up to a quarter of a second, or two pictures, from that of the last picture: where that
decides which picture is shown in the middle of a part, both are right.
A file that is to be refused must give the reason that is expected. The table stands between `<!-- table -->` and
`<!-- end -->`; all other text of the page stays.
"""

import argparse
import bisect
import contextlib
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import av
import imageio_ffmpeg
import numpy as np
from jaxtyping import Float32, UInt8

from benchmarks.media_files import COLLECTION, RIGHT, SMOOTH, TEST, MediaFile
from data_pipeline.decode.pool import DecodeResult, DecoderPool
from harvest_jax.machine import available_cores

PAGE = Path(__file__).resolve().parents[1] / "docs/media.md"
FRAMES, SPAN_FRAMES = 8, 5
SPAN = (0.35, 0.8)  # of the file
SIDE = 512  # of the shorter side of what is compared
NEAR = 2.0  # of 255
END = 0.25  # seconds
SECONDS = 0.0025  # clocks of containers count milliseconds
_LUMA = (0.299, 0.587, 0.114)
_START = re.compile(r"Duration: .*?start: (-?[\d.]+)")
_SHOWN = re.compile(r"pts_time:(\S+) .*?duration_time:(\S+) .*?sar:(\d+)/(\d+) s:(\d+)x(\d+)")


class Reference(NamedTuple):
    """FFmpeg's pictures of a file.

    Attributes:
      seconds: when each begins.
      durations: how long each is shown, as the file says; 0 if it does not.
      aspect: width over height as shown.
      luma: of the size that was asked for, 0..255.
      colours: means of R, G and B.
    """

    seconds: list[float]
    durations: list[float]
    aspect: float
    luma: Float32[np.ndarray, "T H W"]
    colours: Float32[np.ndarray, "T 3"]


def reference(ffmpeg: str, path: Path, width: int, height: int, colours: str, stream: str) -> Reference:
    """Decode everything with FFmpeg's command line."""
    scale = f"scale={width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int"
    steps = ["showinfo=checksum=0", *([colours] if colours else []), scale, "format=gbrp"]
    words = [ffmpeg, "-nostdin", "-hide_banner", "-threads", "1", "-copyts", "-i", str(path), "-map", stream]
    words += ["-vf", ",".join(steps), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    done = subprocess.run(words, capture_output=True, check=False)
    said = done.stderr.decode(errors="replace")
    shown, start = _SHOWN.findall(said), float((_START.search(said) or ("", "0"))[1])
    frames = np.frombuffer(done.stdout, np.uint8)
    frames = frames[: len(frames) // (width * height * 3) * (width * height * 3)].reshape(-1, height, width, 3)
    if not shown or len(shown) != len(frames):
        raise RuntimeError(f"FFmpeg decodes {len(frames)} pictures and names {len(shown)}")
    *_, sar_width, sar_height, coded_width, coded_height = shown[0]
    sar = int(sar_width) / int(sar_height) if int(sar_width) and int(sar_height) else 1.0
    durations = [float(duration) if duration.replace(".", "").isdigit() else 0.0 for _, duration, *_ in shown]
    seconds, aspect = [float(pts) - start for pts, *_ in shown], sar * int(coded_width) / int(coded_height)
    return Reference(seconds, durations, aspect, *seen(frames))


def seen(frames: UInt8[np.ndarray, "T H W 3"]) -> tuple[Float32[np.ndarray, "T H W"], Float32[np.ndarray, "T 3"]]:
    """Luma, and means of R, G and B."""
    return frames @ np.array(_LUMA, np.float32), frames.mean(axis=(1, 2), dtype=np.float32)


def faults(of: Reference, result: DecodeResult, start: float, end: float | None) -> str:
    """How a decoded clip differs from the reference; "" if it is right."""
    frames = np.frombuffer(result.payload, np.uint8).reshape(result.header["shape"])
    found, (view,) = result.header["seconds"], result.header["views"]
    order = np.argsort(of.seconds, kind="stable")
    times = [of.seconds[number] for number in order]
    gap = (times[-1] - times[0]) / max(1, len(times) - 1) or 1.0
    last = of.durations[order[-1]] or gap
    early, late = min(times[-1] + min(last, gap) / 2, times[-1] - END), times[-1] + 2 * max(last, gap) + END
    ends = (end, end) if end is not None else (early, late)
    for step, number in enumerate(view):
        low, high = (
            max(0, bisect.bisect_right(times, start + (step + 0.5) * (stop - start) / len(view) + margin) - 1)
            for stop, margin in zip(ends, (-SECONDS, SECONDS), strict=True)
        )
        if not times[low] - SECONDS <= found[number] <= times[high] + SECONDS:
            return f"picture {step} begins at {found[number]:.3f} s, not at {times[low]:.3f} to {times[high]:.3f} s"
    height, width = frames.shape[1:3]
    if abs(width - of.aspect * height) > 1 + of.aspect:
        return f"{width} x {height} has another shape than {of.aspect:.3f}"
    for seconds, luma, colours in zip(found, *seen(frames), strict=True):
        number = order[int(np.argmin(np.abs(np.array(times) - seconds)))]
        if abs(of.seconds[number] - seconds) > SECONDS:
            return f"FFmpeg has no picture at {seconds:.3f} s"
        apart = np.abs(of.luma - luma).mean(axis=(1, 2)) if len(times) <= 300 else None
        own = np.abs(of.luma[number] - luma).mean()
        if max(own, np.abs(of.colours[number] - colours).max()) > NEAR:
            return f"the picture at {seconds:.3f} s differs by {own:.1f} of 255, {of.colours[number] - colours}"
        if apart is not None and apart.min() < own - 0.01:
            return f"the picture at {seconds:.3f} s is nearer to another one"
    return ""


def task(path: Path, num_frames: int, start: float | None = None, end: float | None = None) -> dict[str, Any]:
    spec = {"num_frames": num_frames, "short_side": SIDE}
    return {"path": str(path), "start": start, "end": end, "spec": spec}


def written(file: MediaFile, ffmpeg: str, folder: Path) -> str:
    """Make a file; why that failed, or ""."""
    try:
        file.write(ffmpeg, folder)
    except RuntimeError as error:
        return str(error)
    return ""


def compared(ffmpeg: str, file: MediaFile, path: Path, whole: DecodeResult, pool: DecoderPool) -> tuple[str, str]:
    """What happened with a file, for the table, and what is wrong with that, or ""."""
    reason = whole.header.get("rejected")
    if reason is not None:
        wrong = "" if file.expected != RIGHT and reason.startswith(file.expected) else f"expected: {file.expected}"
        return reason, wrong
    if file.expected != RIGHT:
        return "taken", f"expected: {file.expected}"
    height, width = whole.header["shape"][1:3]
    try:
        of = reference(ffmpeg, path, width, height, file.colours, file.stream)
    except RuntimeError as error:
        return "not compared", str(error)
    wrong = faults(of, whole, 0.0, None)
    length = max(of.seconds) - min(of.seconds)
    if not wrong and length > 1:
        start, end = (min(of.seconds) + share * length for share in SPAN)
        (part,) = pool.map([task(path, SPAN_FRAMES, start, end)])
        wrong = part.header.get("rejected") or faults(of, part, start, end)
        wrong = wrong and f"{start:.2f} to {end:.2f} s: {wrong}"
    return f"{len(of.seconds):,} pictures" if len(of.seconds) > 1 else "1 picture", wrong


def main() -> None:
    """Make, decode and compare; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="files whose names match this pattern; the page stays as it is")
    parser.add_argument("--keep", type=Path, help="a folder that keeps the files")
    args = parser.parse_args()
    began = time.monotonic()
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    files = [file for group in COLLECTION.values() for file in group if re.search(args.only, file.name)]
    with contextlib.ExitStack() as stack:
        folder = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(available_cores()) as threads:
            made_or_not = list(threads.map(lambda file: written(file, ffmpeg, folder), files))
        made = time.monotonic()
        pool = stack.enter_context(DecoderPool(available_cores()))
        results = list(pool.map(task(folder / file.name, FRAMES) for file in files))
        rows = {
            file.name: ("not made", fault) if fault else compared(ffmpeg, file, folder / file.name, result, pool)
            for file, fault, result in zip(files, made_or_not, results, strict=True)
        }
    wrong = {name: fault for name, (_, fault) in rows.items() if fault}
    for name, fault in wrong.items():
        print(f"{name}: {rows[name][0]}: {fault}")
    taken = sum(file.expected == RIGHT for file in files)
    now = time.monotonic()
    print(
        f"{len(files)} files, {taken} to be right, {len(files) - taken} to be refused, {len(wrong)} wrong; "
        f"made in {made - began:.0f} s, compared in {now - made:.0f} s"
    )
    if not args.only and not wrong:
        before, rest = PAGE.read_text(encoding="utf-8").split("<!-- table -->")
        after = rest.split("<!-- end -->")[1]
        versions = ".".join(map(str, av.library_versions["libavcodec"])), imageio_ffmpeg.get_ffmpeg_version()
        page = f"{before}<!-- table -->\n{table(rows, *versions)}\n<!-- end -->{after}"
        PAGE.write_text(page, encoding="utf-8")
    sys.exit(bool(wrong))


def table(rows: dict[str, tuple[str, str]], libavcodec: str, ffmpeg: str) -> str:
    """Markdown: a table for each group."""
    lines = [
        f"\n{len(rows)} files, made and compared by FFmpeg {ffmpeg.split('-')[0]}; decoded by libavcodec {libavcodec}."
    ]
    for group, files in COLLECTION.items():
        lines += [f"\n## {group}\n", "| file | made of | result |", "|---|---|---|"]
        for file in files:
            made = file.about or f"`{re.sub(r'^-c:v ', '', ' '.join(file.args.split()))}`"
            if file.again:
                made += f", then `{' '.join(' '.join(file.again).split())}`"
            if file.args and file.source not in (TEST, SMOOTH):
                made += f" of `{file.source.replace(TEST, 'testsrc2').replace(',gblur=2', '')}`"
            result = rows[file.name][0]
            result = f"right: {result}" if file.expected == RIGHT else f"refused: {result}"
            lines.append(f"| `{file.name}` | {made} | {result} |".replace("\\,", ","))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
