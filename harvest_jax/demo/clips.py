"""The demo's videos: H.264 files and a manifest, from the world's scenes."""

import csv
import json
from pathlib import Path

import numpy as np

from harvest_jax.demo.world import FRAMES, Scene, combinations, random_scene, render_clip
from harvest_jax.encode import write_video
from harvest_jax.terminal import progress

TRAIN_CLIPS = 16  # of each training combination
TEST_FRAMES = 8  # as many as the model sees: the middles of 8 segments of 16 frames would not be symmetric in time
CHOICE_CLIPS = 5  # of each held-out combination; each has its twin


def scenes(seed: int, train_clips: int = TRAIN_CLIPS) -> dict[str, list[Scene]]:
    """The clips of each split.

    train: `train_clips` scenes of each training combination. choice: 5 scenes of each held-out combination, with their
    twins. retrieval: the first choice clip of each caption, so that all captions of the gallery differ.
    """
    rng = np.random.default_rng(seed)
    train = [random_scene(rng, *c) for c in combinations(held=False) for _ in range(train_clips)]
    choice: list[Scene] = []
    for color, shape, motion in combinations(held=True):
        firsts = [random_scene(rng, color, shape, motion) for _ in range(CHOICE_CLIPS)]
        if motion not in {scene.twin.motion for scene in choice if (scene.color, scene.shape) == (color, shape)}:
            choice += [scene for first in firsts for scene in (first, first.twin)]
    captions: dict[str, Scene] = {}
    for scene in choice:
        captions.setdefault(scene.caption, scene)
    return {"train": train, "retrieval": list(captions.values()), "choice": choice}


def write_clips(folder: Path, seed: int, train_clips: int = TRAIN_CLIPS) -> Path:
    """Write all clips below `folder/videos` and the manifest `folder/manifest.csv`; returns the manifest's path.

    Columns: id, video, caption, split, and for the split `choice` options (JSON list: caption and its reverse), answer
    and type (the pair of motions).
    """
    rng = np.random.default_rng(seed + 1)
    rows = []
    splits = scenes(seed, train_clips)
    total = sum(map(len, splits.values()))
    with progress("writing", "clips") as report:
        for split, of in splits.items():
            (folder / "videos" / split).mkdir(parents=True, exist_ok=True)
            for number, scene in enumerate(of):
                video = f"videos/{split}/{number:05d}.mp4"
                write_video(folder / video, render_clip(scene, FRAMES if split == "train" else TEST_FRAMES))
                row = {"id": f"{split}-{number:05d}", "video": video, "caption": scene.caption, "split": split}
                rows.append(row | (_choice(scene, rng) if split == "choice" else {}))
                report(len(rows), total, "")
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "video", "caption", "split", "options", "answer", "type"])
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def _choice(scene: Scene, rng: np.random.Generator) -> dict[str, str]:
    """The columns of a question: which of two captions, in random order, is right."""
    options = [scene.caption, scene.twin.caption]
    answer = int(rng.integers(2))
    return {
        "options": json.dumps(options[::-1] if answer else options),
        "answer": str(answer),
        "type": " / ".join(sorted((scene.motion, scene.twin.motion))),
    }
