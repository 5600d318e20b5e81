"""CPU time and memory of decoding a clip, by kinds of video: web clips, 1080p, 4K60 of a phone, all-key ProRes.

    python benchmarks/prepare_kinds.py --before 628c0b5~1 --out benchmarks/results/prepare_kinds_cpu.json

The videos are generated: a texture that moves, with noise, encoded by PyAV's x264, x265 and ProRes; a few seconds of
each, repeated to its length without encoding again. What is measured, each in a process of its own, in turns:

    bare      open the file and decode every picture up to the last wanted one, in one thread; nothing else
    before    what a worker of `harvest shards` does, by the code of another commit of this repository (--before)
    now       the same, by this code: decode, scale to 256 pixels, JPEG, the record's bytes

CPU seconds are those of user and system, the least of `--repeats`. Memory is what the process has at its peak above
what it had before. A tiny video is decoded first, so that imports and tables do not count. About 4 minutes on 2 cores
with one repeat, 2.5 GB of disk.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Kind(NamedTuple):
    """A video: encoder, its options, pixels, size, pictures a second, seconds that are encoded and in all, frames."""

    codec: str
    options: dict[str, str]
    pixels: str
    size: tuple[int, int]
    rate: int
    encoded: int
    seconds: int
    frames: int


TINY = "tiny.mp4"
X265 = "log-level=none:keyint=60:min-keyint=60:scenecut=0:open-gop=0:pools=2:frame-threads=1"
KINDS = {
    "web clip, 360p, 9 s": Kind("libx264", {"crf": "23"}, "yuv420p", (640, 360), 30, 9, 9, 16),
    "1080p30 H.264, 60 s, groups of 2 s": Kind(
        "libx264", {"crf": "23", "g": "60", "preset": "veryfast"}, "yuv420p", (1920, 1080), 30, 4, 60, 16
    ),
    "1080p30 H.264, 60 s, groups of 8 s": Kind(
        "libx264", {"crf": "23", "g": "250", "preset": "veryfast"}, "yuv420p", (1920, 1080), 30, 8, 64, 16
    ),
    "4K60 HEVC of 10 bits, HLG, 30 s, groups of 1 s": Kind(
        "libx265", {"preset": "ultrafast", "crf": "24", "x265-params": X265}, "yuv420p10le", (3840, 2160), 60, 1, 30, 8
    ),
    "1080p25 ProRes, 20 s": Kind("prores_ks", {"profile": "3"}, "yuv422p10le", (1920, 1080), 25, 1, 20, 16),
}


def make(kind: Kind, path: Path) -> Path:
    """Write the video."""
    import av
    import numpy as np

    width, height = kind.size
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (height // 40 + 2, width // 40 + 2, 3), np.uint8)
    texture = coarse.repeat(40, 0).repeat(40, 1)
    short = path.with_name(f"short_{path.name}")
    with av.open(str(short), "w") as container:
        stream = container.add_stream(kind.codec, rate=kind.rate, options=kind.options)
        stream.width, stream.height, stream.pix_fmt = width, height, kind.pixels
        if kind.codec == "libx265":  # a phone's HLG
            context = stream.codec_context
            context.color_primaries, context.color_trc, context.colorspace = 9, 18, 9
        for number in range(kind.encoded * kind.rate):
            shift = number % 40
            picture = texture[shift : shift + height, shift : shift + width] // 2
            picture[::2, ::2] += rng.integers(0, 40, (height // 2, width // 2, 1), np.uint8)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, kind.rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    repeated(short, path, kind.seconds // kind.encoded, Fraction(kind.encoded))
    short.unlink()
    return path


def repeated(source: Path, target: Path, times: int, seconds: Fraction) -> None:
    """The packets of a video several times."""
    import av

    with av.open(str(target), "w") as output:
        stream = None
        for turn in range(times):
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                stream = stream or output.add_stream_from_template(video)
                for packet in container.demux(video):
                    if packet.size:
                        shift = int(turn * seconds / Fraction(packet.time_base))
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        output.mux(packet)


def bare(path: Path, frames: int) -> int:
    """The simplest program; pictures that were decoded."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        last = (frames - 0.5) / frames * float((stream.duration or 0) * (stream.time_base or 0))
        count = 0
        for frame in container.decode(stream):
            count += 1
            if frame.time >= last:
                break
        return count


def ours(path: Path, frames: int) -> dict[str, Any]:
    """A worker's task."""
    from data_pipeline.decode.worker import run_task

    record = {"id": "a", "captions": ["a clip"], "extra": {}}
    task = {"path": str(path), "start": None, "end": None, "spec": {"num_frames": frames}, "record": record}
    header, payload = run_task(task)
    return {"result": header.get("rejected", f"{header.get('frames')} frames, {len(payload):,} bytes")}


def arm(name: str, path: Path, frames: int) -> dict[str, Any]:
    """Measure one in this process."""

    def decode(video: Path) -> dict[str, Any]:
        return {"result": f"{bare(video, frames)} pictures decoded"} if name == "bare" else ours(video, frames)

    decode(path.with_name(TINY))
    memory, began = peak_megabytes(), time.process_time()
    found = decode(path)
    return found | {"cpu_s": time.process_time() - began, "peak_mb": peak_megabytes() - memory}


def peak_megabytes() -> float:
    """The most memory that this process has had. (`ru_maxrss` begins with that of the parent.)"""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def measured(name: str, path: Path, frames: int, code: Path) -> dict[str, Any]:
    """An arm in a process of its own, with the packages of a checkout."""
    words = [sys.executable, str(Path(__file__).resolve()), "--arm", name, str(path), str(frames)]
    environment = os.environ | {"PYTHONPATH": str(code), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def shown(found: dict[str, Any]) -> str:
    """CPU seconds; of a clip that was refused the kind of reason."""
    reason, colon, _ = found["result"].partition(":")
    return f"refused: {reason}" if colon else f"{found['cpu_s']:.2f} s"


def main() -> None:
    """Print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="a commit of this repository")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    parser.add_argument("--arm", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.arm:
        print(json.dumps(arm(args.arm[0], Path(args.arm[1]), int(args.arm[2]))))
        return
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        code = {"bare": ROOT, "now": ROOT}
        if args.before:
            archive = subprocess.run(["git", "archive", args.before], cwd=ROOT, capture_output=True, check=True).stdout
            with tarfile.open(fileobj=BytesIO(archive)) as tar:
                tar.extractall(Path(folder) / "before", filter="data")
            code["before"] = Path(folder) / "before"
        make(Kind("libx264", {}, "yuv420p", (64, 48), 10, 1, 1, 4), Path(folder) / TINY)
        for name, kind in KINDS.items():
            if args.only not in name:
                continue
            path = make(kind, Path(folder) / f"video.{'mov' if kind.codec == 'prores_ks' else 'mp4'}")
            found: dict[str, dict[str, Any]] = {}
            for _ in range(args.repeats):
                for which, where in code.items():
                    one = measured(which, path, kind.frames, where)
                    found[which] = min(found.get(which, one), one, key=lambda each: float(each["cpu_s"]))
            rows[name] = {"frames": kind.frames, "megabytes": round(path.stat().st_size / 1e6, 1), **found}
            path.unlink()
            print(name, json.dumps(rows[name]), flush=True)
    print("\n| video | frames | MB | bare | before | now | memory before | now |\n|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        times = [shown(row[which]) if which in row else "-" for which in ("bare", "before", "now")]
        peaks = [f"{row[which]['peak_mb']:.0f} MB" if which in row else "-" for which in ("before", "now")]
        print(f"| {name} | {row['frames']} | {row['megabytes']} | {' | '.join(times + peaks)} |")
    if args.out:
        import av

        from benchmarks.vs_torch_arm import cpu_name

        about = {"cpu": cpu_name(), "versions": {"av": av.__version__, "python": platform.python_version()}}
        args.out.write_text(json.dumps(about | {"kinds": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
