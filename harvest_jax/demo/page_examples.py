"""The examples on the demo's page: clips, the patches kept of them, and queries with the clips found for them."""

from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from data_pipeline.shards.shard_format import Record
from harvest_jax.api import Model
from harvest_jax.config.run import RunConfig
from harvest_jax.demo.report import Hit, Query, ShownClip
from harvest_jax.demo.world import MOTIONS, combinations, random_scene, render_still
from harvest_jax.input.patches import keep_positions
from harvest_jax.input.pipeline import evaluation_clips

TOP = 3  # clips shown for a query
QUERY_MOTIONS = ("moves right", "moves up", "grows", "turns clockwise", "blinks off")


def page_examples(
    before: Model, after: Model, shards: Path, run: RunConfig
) -> tuple[list[ShownClip], list[Query], list[tuple[str, UInt8[np.ndarray, "64 64 3"]]]]:
    """The last three arguments of `report.write_report`: clips, queries and stills.

    Args:
      before: the image model.
      after: the video model trained from it.
      shards: with the split `retrieval`, which is searched.
      run: of the training; its seed draws the kept patches and the stills.
    """
    video, resize = after.config.video, after.config.preprocessing.resize
    gallery = list(evaluation_clips(shards, "retrieval", video.num_frames, video.image_size, resize))
    rng = np.random.default_rng(run.seed)

    def kept() -> Int[np.ndarray, " k"]:
        return keep_positions(rng, video.num_frames, video.cells_per_frame, run.model.keep_ratio, run.model.drop_scope)

    clips = [ShownClip(record.captions[0], frames, kept()) for record, frames in _one_for_each(gallery, MOTIONS[1::2])]
    return clips, _queries(before, after, gallery), _stills(run.seed)


def _one_for_each(
    gallery: list[tuple[Record, np.ndarray]], motions: tuple[str, ...]
) -> list[tuple[Record, np.ndarray]]:
    """One clip of each motion, of different colours and shapes."""
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
    """A marked still of each motion, like those that the image model was trained on."""
    rng = np.random.default_rng(seed)
    training = combinations(held=False)
    picked = [
        next(c for c in training[number:] + training if c[2] == m)
        for number, m in zip(range(0, 80, 8), MOTIONS, strict=True)
    ]
    scenes = [random_scene(rng, *combination) for combination in picked]
    return [(scene.caption, render_still(scene, float(rng.uniform(0.3, 0.7)), posed=True)) for scene in scenes]
