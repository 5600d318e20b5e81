"""A benchmark in small: its annotation files and a video of one colour for each name in them."""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from harvest_jax.evaluate.benchmarks.named import all_benchmarks
from harvest_jax.evaluate.benchmarks.read_benchmark import read
from harvest_jax.evaluate.clips.video_files import SUFFIXES
from tests.helpers.benchmark_miniatures import RETRIEVAL
from tests.helpers.class_miniatures import CLASS_MINIATURES
from tests.helpers.colour_evaluation import COLOURS
from tests.helpers.question_miniatures import QUESTION_MINIATURES
from tests.helpers.time_annotations import TIME_MINIATURES
from tests.helpers.video_files import write_video

MINIATURES = {**RETRIEVAL, **QUESTION_MINIATURES, **CLASS_MINIATURES, **TIME_MINIATURES}


def write_benchmark(name, annotations, videos):
    """Write a miniature of a benchmark and its videos; the folders may have those of others already."""
    annotations.mkdir(parents=True, exist_ok=True)
    MINIATURES[name](annotations)
    rows = read(all_benchmarks()[name], annotations, partial=True)
    named = dict.fromkeys(row.video for row in rows)
    seconds = 2 + int(max(row.end or 0 for row in rows))  # at one frame a second
    for number, video in enumerate(named):
        # The content decides how a file is read: an MP4 may be called clip.mpg.
        has_suffix = Path(video).suffix.lower() in SUFFIXES
        file = videos / (video.lstrip("/") if has_suffix else f"{video.removesuffix('.')}.mp4")
        file.parent.mkdir(parents=True, exist_ok=True)
        colour = COLOURS[list(COLOURS)[number % len(COLOURS)]]
        with tempfile.TemporaryDirectory() as aside:
            made = write_video(Path(aside, "made.mp4"), np.full((seconds, 32, 32, 3), colour, np.uint8), rate=1)
            shutil.move(made, file)
