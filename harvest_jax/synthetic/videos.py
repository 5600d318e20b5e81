"""The clips of a world as MP4 files, and their manifest."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from harvest_jax.encode import write_video
from harvest_jax.files import atomic_file
from harvest_jax.synthetic.rows import SECONDS, World, frames_of, numbers_of


def write_videos(world: World, folder: Path, num_frames: int, report: Callable[[int], None]) -> Path:
    """Write all clips below `folder/SPLIT`, and `folder/manifest.jsonl`; files that are there already stay.

    Args:
      world: which clips.
      folder: made if missing.
      num_frames: of each file; they last two seconds.
      report: called with the number of finished clips.

    Returns:
      the manifest; it is written last.
    """
    lines, rate = [], Fraction(num_frames) / Fraction(SECONDS)
    for split in world.clips:
        (folder / split).mkdir(parents=True, exist_ok=True)
        for number, columns in numbers_of(world, split):
            name = f"{split}/{number:08d}.mp4"
            if not (folder / name).exists():
                frames = frames_of(world, split, number, num_frames)
                with atomic_file(folder / name) as aside:
                    write_video(aside, frames, rate)
            lines.append(json.dumps({"id": f"{split}-{number:08d}", "video": name, "split": split, **columns}))
            report(len(lines))
    manifest = folder / "manifest.jsonl"
    with atomic_file(manifest) as aside:
        aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest
