"""A large set of real videos, prepared in different ways: all must give the same bytes.

    python -m benchmarks.many_clips --clips 20000 --out runs/many              # writes the set; continues if stopped
    python -m benchmarks.many_clips --compare runs/many --result benchmarks/results/many_clips_cpu.json

The videos are H.264 of 64 x 48 pixels, 8 frames each, all different; 3 % are broken, in five ways. The
whole folders are compared: written by processes of this machine; the same, killed several times and started again; by
Apache Beam on Dask's distributed scheduler (extra `beam`), with workers in separate processes.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq

from data_pipeline.prepare.ledger import count_kinds

_FRAMES, _HEIGHT, _WIDTH, _RATE = 8, 48, 64, 10
_BROKEN = ("missing", "empty", "text", "cut off", "no caption")
_KILLS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--out", type=Path, help="write the set there")
    parser.add_argument("--compare", type=Path, help="the folder of a set: prepare it in every way and compare")
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--result", type=Path, help="JSON of the comparison")
    args = parser.parse_args()
    if args.out:
        write_set(args.out, args.clips)
    if args.compare:
        result = compare(args.compare, args.shards)
        text = json.dumps(result, indent=2) + "\n"
        print(text)
        if args.result:
            args.result.write_text(text, encoding="utf-8")
        sys.exit(not result["equal"])


def write_set(folder: Path, count: int) -> None:
    """Videos 0000/000000.mp4, ..., and manifest.csv; files that are there are kept."""
    lines = ["video,caption\n"]
    for number in range(count):
        path = folder / f"{number // 1000:04d}" / f"{number:06d}.mp4"
        broken = _BROKEN[number // 100 % len(_BROKEN)] if number % 100 in (17, 50, 83) else ""
        if broken != "missing" and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_clip(path, number, broken)
        caption = "" if broken == "no caption" else f"clip number {number}"
        lines.append(f"{path.relative_to(folder)},{caption}\n")
    (folder / "manifest.csv").write_text("".join(lines), encoding="utf-8")


def write_clip(path: Path, number: int, broken: str) -> None:
    aside = path.with_suffix(".part")
    if broken in ("empty", "text"):
        aside.write_bytes(b"" if broken == "empty" else b"<!doctype html><title>404</title>")
    else:
        rng = np.random.default_rng(number)
        corners = rng.integers(0, 256, (2, 2, 2, 3)).astype(np.float32)  # in time, height, width: a moving gradient
        weights = [np.stack([1 - np.linspace(0, 1, n), np.linspace(0, 1, n)]) for n in (_FRAMES, _HEIGHT, _WIDTH)]
        frames = np.einsum("ijkc,it,jh,kw->thwc", corners, *weights, optimize=True).astype(np.uint8)
        with av.open(str(aside), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=_RATE, options={"preset": "ultrafast", "threads": "1"})
            stream.height, stream.width, stream.pix_fmt = _HEIGHT, _WIDTH, "yuv420p"
            for index, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, _RATE)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        if broken == "cut off":
            aside.write_bytes(aside.read_bytes()[: aside.stat().st_size // 2])
    aside.replace(path)


def compare(folder: Path, shards: int) -> dict[str, Any]:
    out = folder / "prepared"
    command = [sys.executable, "-m", "harvest_jax", "shards", "--manifest", str(folder / "manifest.csv")]
    command += ["--out", str(out), "--frames", str(_FRAMES), "--short_side", str(_HEIGHT), "--shards", str(shards)]
    ways = {}
    for name, kills, words in (
        ("processes, one for each core", 0, []),
        (f"one process, killed {_KILLS} times", _KILLS, ["--workers", "1"]),
        ("Beam on Dask, workers in other processes", 0, ["--runner", "dask"]),
    ):
        shutil.rmtree(out, ignore_errors=True)
        began = time.monotonic()
        for kill in range(kills):
            killed_after([*command, *words], out, shards * (2 * kill + 1) // (2 * kills))
        subprocess.run([*command, *words], check=True)
        ways[name] = {"seconds": round(time.monotonic() - began, 1), **describe(out)}
        print(name, ways[name], file=sys.stderr, flush=True)
    return {
        "equal": len({way["digest"] for way in ways.values()}) == 1,
        "ways": ways,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("apache-beam", "dask", "av", "array_record", "simplejpeg")},
    }


def killed_after(command: list[str], out: Path, finished: int) -> None:
    """Run a command until so many shards are finished and a moment longer, then kill it."""
    run = subprocess.Popen(command)
    while len(list((out / ".train.writing").glob("*.ledger"))) < finished and run.poll() is None:
        time.sleep(0.01)
    time.sleep(random.random())
    run.kill()
    run.wait()


def describe(out: Path) -> dict[str, Any]:
    table = pq.read_table(out / "ledger-train.parquet")
    reasons = [reason for reason in table["reason"].to_pylist() if reason]
    return {
        "digest": digest(out),
        "clips": table.num_rows,
        "written": table.num_rows - len(reasons),
        "rejects": count_kinds(reasons),
        "most_attempts": max(table["attempts"].to_pylist()),
        "megabytes": round(sum(path.stat().st_size for path in out.iterdir()) / 1e6, 1),
    }


def digest(out: Path) -> str:
    """The sha256 of all names and contents of a folder; of the ledger without the attempts, which may differ."""
    total = hashlib.sha256()
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content = repr(pq.read_table(path).drop_columns(["attempts"]).to_pylist()).encode()
        total.update(f"{path.relative_to(out)} {hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()


if __name__ == "__main__":
    main()
