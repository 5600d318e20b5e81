"""The loader and PyTorch's DataLoader, compared on the same clips and cores in one run.

    pip install -e '.[parity]'
    python benchmarks/loader.py --manifest clips.csv --out benchmarks/results/loader_cpu.json
    python benchmarks/loader.py --manifest clips.csv --many 4096      # opening so many shards: seconds and memory
    python benchmarks/loader.py --manifest clips.csv --soak 1800      # memory over half an hour

The loader reads shards that `harvest shards` makes of the manifest first. PyTorch's DataLoader reads the videos with
PyAV, and in a second case the JPEG frames of the shards. All make examples of 8 frames of 224 pixels from random crops:
the loader 157 kept patches of 1,568, PyTorch whole frames as uint8, because its trainers drop patches in the model.
Every case runs on one core and on all cores, to which the process and its workers are bound.
"""

import argparse
import dataclasses
import itertools
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from harvest_jax.machine import available_cores

FRAMES, SIZE, LEAST = 8, 224, 0.5
REPEATED = 64  # times that each clip of the manifest is in the set


@dataclasses.dataclass(frozen=True)
class Clip:
    """A video file, or the JPEG frames of one."""

    video: str = ""
    jpegs: tuple[bytes, ...] = ()


def decode_video(path: str, rng: random.Random) -> list[np.ndarray]:
    """One frame of each of 8 segments, decoding from the keyframe before the first one to the last one."""
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"  # one core for each worker
        count = stream.frames or round(stream.duration * stream.time_base * stream.average_rate)
        edges = [count * number // FRAMES for number in range(FRAMES + 1)]
        wanted = {rng.randrange(low, max(high, low + 1)) for low, high in itertools.pairwise(edges)}
        frames, last = [], max(wanted)
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                frames.append(frame.to_ndarray(format="rgb24"))
            if number >= last:
                break
    return [frames[min(number, len(frames) - 1)] for number in range(FRAMES)]


def decode_jpegs(jpegs: tuple[bytes, ...], rng: random.Random) -> list[np.ndarray]:
    import simplejpeg

    edges = [len(jpegs) * number // FRAMES for number in range(FRAMES + 1)]
    chosen = [rng.randrange(low, max(high, low + 1)) for low, high in itertools.pairwise(edges)]
    return [simplejpeg.decode_jpeg(jpegs[which], "RGB") for which in chosen]


class TorchClips:
    """A dataset as PyTorch's trainers write it: decode, one random resized crop for the clip, whole frames."""

    def __init__(self, clips: list[Clip], length: int):
        self.clips, self.length = clips, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int):
        import torch

        torch.set_num_threads(1)
        rng = random.Random(index)
        clip = self.clips[index % len(self.clips)]
        frames = decode_video(clip.video, rng) if clip.video else decode_jpegs(clip.jpegs, rng)
        height, width, _ = frames[0].shape
        side = round(min(height, width) * rng.uniform(LEAST, 1) ** 0.5)
        top, left = rng.randrange(height - side + 1), rng.randrange(width - side + 1)
        square = np.stack([frame[top : top + side, left : left + side] for frame in frames])
        pixels = torch.from_numpy(square).permute(0, 3, 1, 2)
        return torch.nn.functional.interpolate(pixels, (SIZE, SIZE), mode="bicubic", antialias=True)  # uint8 throughout


def torch_case(arguments: argparse.Namespace) -> None:
    """In its own process: time PyTorch's DataLoader and print clips/s."""
    import torch

    if arguments.torch == "video":
        clips = [Clip(video=path) for path in videos(arguments.manifest)]
    else:
        from data_pipeline.shards.shard_format import open_shards, parse_record

        shards = open_shards(arguments.shards, "train")
        clips = [Clip(jpegs=parse_record(shards[number]).jpegs) for number in range(len(shards))]
    workers = available_cores()
    loader = torch.utils.data.DataLoader(
        TorchClips(clips, 10**9), batch_size=arguments.batch, num_workers=workers, prefetch_factor=2
    )
    batches = iter(loader)
    for _ in range(workers):
        next(batches)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() < begin + arguments.seconds:
        count += len(next(batches))
    print(json.dumps({"clips_per_s": count / (time.perf_counter() - begin), "torch": torch.__version__}))
    os._exit(0)  # the workers are in the middle of batches that are not needed


def videos(manifest: Path) -> list[str]:
    from data_pipeline.manifest.read import read_manifest

    found = read_manifest(manifest)
    return [str(found.root / row.video) for row in found.rows]


def on_cores(cores: list[int], *command: str, **more: str) -> dict:
    """The JSON object that a command prints last, run on some cores."""
    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | more,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def bench(shards: Path, arguments: argparse.Namespace, cores: list[int], workers: int) -> dict:
    result = on_cores(
        cores,
        *("-m", "harvest_jax", "bench", "loader", "--json", "--shards", str(shards)),
        *("--batch", str(arguments.batch), "--seconds", str(arguments.seconds)),
        f"--config.data.workers={workers}",
        JAX_PLATFORMS="cpu",
    )
    result["overrides"] = [override for override in result["overrides"] if not override.startswith("data.shards=")]
    return result


def write_shards(manifest: Path, out: Path) -> None:
    command = ["-m", "harvest_jax", "shards", "--manifest", str(manifest), "--out", str(out)]
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def compare(shards: Path, arguments: argparse.Namespace) -> dict:
    cores = sorted(os.sched_getaffinity(0))
    cases = []
    for used in [cores[:1], cores] if len(cores) > 1 else [cores]:
        for workers in sorted({0, len(used)}):
            ours = bench(shards, arguments, used, workers)
            cases.append({"what": "harvest_jax"} | ours | {"cores": len(used)})
            print(f"{len(used)} cores, {workers} loader processes: {ours['clips_per_s']:.0f} clips/s", flush=True)
        for kind in ("video", "jpeg"):
            options = ["--manifest", str(arguments.manifest), "--shards", str(shards), "--batch", str(arguments.batch)]
            theirs = on_cores(used, __file__, "--torch", kind, *options, "--seconds", str(arguments.seconds))
            cases.append({"what": f"torch DataLoader, {kind}", "cores": len(used)} | theirs)
            print(f"{len(used)} cores, torch on {kind}s: {theirs['clips_per_s']:.1f} clips/s", flush=True)
    return {"machine": platform.processor() or platform.machine(), "cases": cases}


def enlarge(shards: Path, folder: Path, count: int) -> Path:
    """A set of `count` files: copies of the one file of the small set. (Grain's shuffle is slow on tiny sets.)"""
    from data_pipeline.shards.shard_format import checksum_path, shard_path

    folder.mkdir()
    info = json.loads((shards / "dataset_info.json").read_text())
    (split,) = [split for split in info["splits"] if split["name"] == "train"]
    (length,) = split["shardLengths"]
    split["shardLengths"] = [length] * count
    info["splits"] = [split]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    original = shard_path(shards, "train", 0, 1)
    for number in range(count):
        try:
            os.link(original, shard_path(folder, "train", number, count))
        except OSError:  # another disk
            shutil.copyfile(original, shard_path(folder, "train", number, count))
    shutil.copyfile(checksum_path(shards, "train"), checksum_path(folder, "train"))
    return folder


def soak(shards: Path, arguments: argparse.Namespace) -> dict:
    """Memory of all processes, minute by minute."""
    from harvest_jax.config import files as config_files
    from harvest_jax.config import run as run_config
    from harvest_jax.input.pipeline import training_batches
    from harvest_jax.input.tokenizer import Tokenizer
    from harvest_jax.machine import resident_bytes

    overrides = [f"data.shards={shards}", f"train.batch_size={arguments.batch}", "data.workers=1"]
    run = run_config.load(str(config_files.config_file("harvest_b16.py")), overrides)
    batches = training_batches(run, SIZE, 16, Tokenizer(49408), 0, 1)
    begin, clips, lines = time.perf_counter(), 0, []
    while time.perf_counter() < begin + arguments.soak:
        clips += len(next(batches)["index"])
        if time.perf_counter() > begin + 60 * len(lines):
            lines.append({"seconds": time.perf_counter() - begin, "clips": clips, "bytes": resident_bytes()})
            print(lines[-1], flush=True)
    batches.close()
    return {"soak": lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--shards", type=Path, help="made of the manifest before, with one shard (default: made now)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--many", type=int, default=0)
    parser.add_argument("--soak", type=float, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--torch", choices=("video", "jpeg"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.torch:
        torch_case(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        shards = arguments.shards or Path(scratch) / "shards"
        if not arguments.shards:
            write_shards(arguments.manifest, shards)
        if arguments.many:
            cores = sorted(os.sched_getaffinity(0))
            result = bench(enlarge(shards, Path(scratch) / "many", arguments.many), arguments, cores, len(cores))
            result["shards"] = arguments.many
        elif arguments.soak:
            result = soak(enlarge(shards, Path(scratch) / "many", REPEATED), arguments)
        else:
            result = compare(enlarge(shards, Path(scratch) / "many", REPEATED), arguments)
    text = json.dumps(result, indent=1) + "\n"
    if arguments.out:
        arguments.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
