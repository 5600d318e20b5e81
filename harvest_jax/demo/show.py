"""What the demo's page shows: clips, the patches that were kept, and queries with their best clips before and after."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.shards.shard_format import Record
from harvest_jax.api import Model
from harvest_jax.config.run import RunConfig
from harvest_jax.demo.report import Hit, Query, ShownClip, write_report
from harvest_jax.demo.world import MOTIONS, combinations, random_scene, render_still
from harvest_jax.input.patches import keep_positions
from harvest_jax.input.pipeline import evaluation_clips

TOP = 3  # clips shown for a query
QUERY_MOTIONS = ("moves right", "moves up", "grows", "turns clockwise", "blinks off")


def write_page(
    workdir: Path, report: dict[str, Any], before: Model, after: Model, shards: Path, run: RunConfig
) -> None:
    """Write `workdir/report.html`."""
    video = after.config.video
    resize = after.config.preprocessing.resize
    gallery = list(evaluation_clips(shards, "retrieval", video.num_frames, video.image_size, resize))
    rng = np.random.default_rng(run.seed)
    chosen = _one_for_each(gallery, MOTIONS[1::2])
    clips = [
        ShownClip(
            caption=record.captions[0],
            frames=frames,
            kept=keep_positions(
                rng, video.num_frames, video.cells_per_frame, run.model.keep_ratio, run.model.drop_scope
            ),
        )
        for record, frames in chosen
    ]
    curves = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    write_report(workdir / "report.html", report, curves, clips, _queries(before, after, gallery), _stills(run.seed))


def _one_for_each(
    gallery: list[tuple[Record, np.ndarray]], motions: tuple[str, ...]
) -> list[tuple[Record, np.ndarray]]:
    """The first clip of each motion, another colour or shape each time where there is one."""
    return [
        [entry for entry in gallery if entry[0].captions[0].endswith(motion)][number % 4]
        for number, motion in enumerate(motions)
    ]


def _queries(before: Model, after: Model, gallery: list[tuple[Record, np.ndarray]]) -> list[Query]:
    frames = np.stack([clip for _, clip in gallery])
    captions = [record.captions[0] for record, _ in gallery]
    texts = [record.captions[0] for record, _ in _one_for_each(gallery, QUERY_MOTIONS)]

    def hits(model: Model) -> list[list[Hit]]:
        scores = model.encode_text(texts) @ model.encode_clips(frames).T
        best = np.argsort(-scores, axis=1)[:, :TOP]
        return [
            [Hit(captions[i], frames[i], float(scores[row, i]), captions[i] == text) for i in best[row]]
            for row, text in enumerate(texts)
        ]

    return [Query(text, one, other) for text, one, other in zip(texts, hits(before), hits(after), strict=True)]


def _stills(seed: int) -> list[tuple[str, np.ndarray]]:
    """A marked still of each motion, of the kind the image model learnt its words from."""
    rng = np.random.default_rng(seed)
    training = combinations(held=False)
    picked = [
        next(c for c in training[number:] + training if c[2] == m)
        for number, m in zip(range(0, 80, 8), MOTIONS, strict=True)
    ]
    scenes = [random_scene(rng, *combination) for combination in picked]
    return [(scene.caption, render_still(scene, float(rng.uniform(0.3, 0.7)), posed=True)) for scene in scenes]
