"""The clips of a world as MP4 files, and their manifest."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from harvest_jax.encode import write_video
from harvest_jax.errors import DataError
from harvest_jax.files import atomic_file, write_atomically
from harvest_jax.synthetic.rows import SECONDS, World, frames_of, numbers_of


def check_videos(world: World) -> None:
    """Refuse a world that cannot be written as videos.

    Raises:
      DataError: an odd size.
    """
    if world.size % 2:
        raise DataError(f"videos of {world.size} pixels cannot be encoded: the size must be even")


def write_videos(world: World, folder: Path, num_frames: int, report: Callable[[int], None]) -> Path:
    """Write all clips below `folder/SPLIT`, and `folder/manifest.jsonl`; files that are there already stay.

    Args:
      world: which clips.
      folder: made if missing.
      num_frames: of each file; they last two seconds.
      report: called with the number of finished clips.

    Returns:
      the manifest; it is written last.

    Raises:
      DataError: an odd size, or the folder has the videos of another world.
    """
    check_videos(world)
    _begin(folder, f"{num_frames} frames of {world.text()}")
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


def _begin(folder: Path, facts: str) -> None:
    """Note in a folder which videos it gets; one that has others is refused."""
    note = folder / "made_by.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not note.exists():
            write_atomically(note, facts.encode())
        elif note.read_text(encoding="utf-8") != facts:
            raise DataError(f"{folder} has the videos of another world ({note}): give another folder")
    except OSError as error:
        raise DataError(f"{folder}: no folder for videos ({error.strerror})") from error
