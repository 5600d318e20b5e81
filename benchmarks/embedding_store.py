"""What `harvest eval --store` saves: the seconds of a first evaluation, and of a second one of the same videos.

    python -m benchmarks.embedding_store --model runs/demo/export --videos 200

The videos are made for it: H.264 of 320 x 240 pixels, 100 frames each, all different. The first evaluation is done
without a store and with a new one, the second with the store filled: the same task, and another one. Each is a process
of its own, as people run it, and each is run several times, in turn, because other work of the machine disturbs single
runs. Seconds are the least of the result's `run`: without starting Python and loading the model. CPU seconds are those
of the whole process and of its decoding processes, the least too.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np

FRAMES, HEIGHT, WIDTH, RATE = 100, 240, 320, 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--result", type=Path, help="JSON of the result")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args.model, args.videos, args.repeats)
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if args.result:
        args.result.write_text(text, encoding="utf-8")


def measure(folder: Path, model: str, count: int, repeats: int) -> dict[str, Any]:
    """The seconds of the four evaluations, and whether the scores of the same task are equal."""
    write_videos(folder, count)
    store = ["--store", str(folder / "store")]
    cases = {
        "without a store": ("retrieval", []),
        "a new store": ("retrieval", store),
        "the same again": ("retrieval", store),
        "another task": ("zero_shot", store),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    cpu: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        shutil.rmtree(folder / "store", ignore_errors=True)
        for name, (task, words) in cases.items():
            before = _cpu_seconds()
            runs[name].append(evaluate(folder, model, task, *words))
            cpu[name].append(_cpu_seconds() - before)
    first = runs["without a store"][0]
    same_task = [run for own in runs.values() for run in own if run["task"] == first["task"]]
    return {
        "videos": count,
        "repeats": repeats,
        "seconds": {name: min(run["run"]["seconds"] for run in own) for name, own in runs.items()},
        "cpu_seconds": {name: round(min(own), 2) for name, own in cpu.items()},
        "equal": all(run["metrics"] == first["metrics"] for run in same_task),
        "device": first["run"]["device"],
        "libraries": first["run"]["libraries"],
    }


def _cpu_seconds() -> float:
    """Of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def evaluate(folder: Path, model: str, task: str, *words: str) -> dict[str, Any]:
    """The result of `harvest eval`."""
    out = folder / "r.json"
    data = f"--config.data.manifest={folder / 'set.csv'}"
    command = [sys.executable, "-m", "harvest_jax", "eval", "--config", f"eval/{task}", "--model", model]
    subprocess.run([*command, data, "--out", str(out), *words], check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(out.read_bytes())
    return found


def write_videos(folder: Path, count: int) -> None:
    """0.mp4, 1.mp4, ... of moving noise, and set.csv."""
    lines = ["video,caption,label\n"]
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
        picture = noise.repeat(16, axis=0).repeat(16, axis=1)
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for t in range(FRAMES):
                frame = av.VideoFrame.from_ndarray(np.roll(picture, t, axis=1))
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        lines.append(f"{number}.mp4,noise number {number},{'even' if number % 2 == 0 else 'odd'}\n")
    (folder / "set.csv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
