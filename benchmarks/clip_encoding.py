"""Whether the bytes of the demo's clips depend on memory that nothing has written, by width and encoder setting.

    python benchmarks/clip_encoding.py           # 14 processes of 40 clips
    python benchmarks/clip_encoding.py --all     # also time and bytes of all clips

Each row encodes the same frames in two processes. glibc's MALLOC_PERTURB_ fills new memory with another byte in each,
so that clips differ if and only if the encoder reads memory before something is written there. The result is in
docs/demo.md.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from harvest_jax import encode
from harvest_jax.demo import clips, world

CLIPS = 40
WIDTHS = (64, 128, 192, 256, 320)  # pixels; the demo's clips have 64
FILLS = ("1", "170")
TREE = encode.ENCODER | {"mbtree": "1"}
OPTIONS = {
    "macroblock tree": TREE,
    "macroblock tree, no vector code": TREE | {"x264-params": "asm=0"},
    "as the demo": encode.ENCODER,
}


def digests(width: int) -> list[str]:
    """SHA-256 of each clip, its frames repeated side by side until they are `width` pixels wide."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.mp4")
        for scene in clips.scenes(0)["choice"][:CLIPS]:
            frames = world.render_clip(scene)
            encode.write_video(path, np.tile(frames, (1, 1, width // world.SIZE, 1)))
            found.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def differing(options: str, width: int) -> int:
    """Clips that are other bytes in a process whose new memory holds another byte."""
    command = [sys.executable, __file__, "--options", options, "--width", str(width)]
    runs = [
        subprocess.run(command, env=os.environ | {"MALLOC_PERTURB_": fill}, capture_output=True, text=True, check=True)
        for fill in FILLS
    ]
    one, other = (run.stdout.split() for run in runs)
    return sum(a != b for a, b in zip(one, other, strict=True))


def whole() -> None:
    """Print processor time and bytes of all clips of the demo."""
    for name in ("macroblock tree", "as the demo"):
        encode.ENCODER = OPTIONS[name]
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            clips.write_clips(Path(folder), 0)
            seconds = time.process_time() - began
            size = sum(path.stat().st_size for path in Path(folder).rglob("*.mp4"))
        print(f"all clips, {name}: {seconds:.1f} s of processor time, {size / 1e6:.1f} MB")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Whether clips depend on memory that nothing has written.")
    parser.add_argument("--all", action="store_true", help="also write all clips, and print time and bytes")
    parser.add_argument("--options", choices=OPTIONS, help="print the digests of clips encoded so, and nothing else")
    parser.add_argument("--width", type=int, default=world.SIZE, help="of these clips")
    args = parser.parse_args()
    if args.options:
        encode.ENCODER = OPTIONS[args.options]
        print("\n".join(digests(args.width)))
        return
    for name in OPTIONS:
        for width in WIDTHS if name == "macroblock tree" else WIDTHS[:1]:
            print(f"{width} pixels wide, {name}: {differing(name, width)} of {CLIPS} clips differ", flush=True)
    if args.all:
        whole()


if __name__ == "__main__":
    main()
