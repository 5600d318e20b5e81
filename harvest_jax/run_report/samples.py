"""Clips of a run's first batch as its model saw them: the crop, the kept patches, the caption with its masked words."""

import dataclasses
import itertools
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from harvest_jax.config import run as run_config
from harvest_jax.config.run import RunConfig
from harvest_jax.demo.clip_pictures import data_uri, highlight_kept, strip
from harvest_jax.errors import HarvestError
from harvest_jax.input.file_tokenizer import TextTokenizer
from harvest_jax.input.pipeline import training_batches
from harvest_jax.model.config import HarvestConfig
from harvest_jax.run_report.runs import Run
from harvest_jax.terminal import one_line
from harvest_jax.train.model_of_run import model_config, tokenizer_of_run
from harvest_jax.weights.workdir_model import recorded_config

CLIPS = 3
FRAMES_A_PICTURE = 4  # so that a phone shows the frames in rows
SIDE = 256  # pixels of a frame on the page, at most


def samples(run: Run, count: int = CLIPS) -> tuple[list[dict[str, Any]], str]:
    """Clips of the first batch, each as the template shows it, and why there are none ("" if there are some).

    The example at a place of the data's order depends on the seed alone, so it is made again as it was, once with all
    patches and once with those that were kept.
    """
    try:
        fields = run_config.recorded(run.config)
        config = recorded_config(run.workdir) or model_config(fields)
        tokenizer = tokenizer_of_run(fields, config, run.workdir.root)
        dropping = fields.train.unmasked_steps < fields.train.steps
        kept = _batch(fields, config, tokenizer, count, fields.model.keep_ratio if dropping else 1.0)
        whole = _batch(fields, config, tokenizer, count, 1.0)
    except (HarvestError, OSError) as error:
        return [], f"the clips cannot be shown: {one_line(error, 300)}"
    shown = []
    for row in range(count):
        frames = unpatchify(whole["patches"][row], config.video.num_frames, config.video.patch_size)
        frames = highlight_kept(frames, kept["positions"][row], config.video.patch_size)
        drawn = config.video.image_size <= SIDE // 4  # generated clips: few colours, sharp edges
        frames = frames if frames.shape[1] <= SIDE else np.stack([_smaller(frame) for frame in frames])
        parts = [frames[start : start + FRAMES_A_PICTURE] for start in range(0, len(frames), FRAMES_A_PICTURE)]
        words = caption({name: kept[name][row] for name in ("ids", "slots", "slot_weights") if name in kept}, tokenizer)
        shown.append({"pictures": [data_uri(strip(part, gap=4), drawn) for part in parts], "words": words})
    return shown, ""


def unpatchify(patches: UInt8[np.ndarray, "n p"], frames: int, patch: int) -> UInt8[np.ndarray, "t h w 3"]:
    """All patches of a clip of square frames, in order, as its frames."""
    side = round((len(patches) // frames) ** 0.5)
    cells = patches.reshape(frames, side, side, patch, patch, 3)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(frames, side * patch, side * patch, 3)


def caption(texts: dict[str, Any], tokenizer: TextTokenizer) -> list[tuple[str, bool]]:
    """Pieces of a caption with the spaces after them, each with whether it is masked; [] where there is no caption.

    Args:
      texts: "ids" int32 [L], "slots" int32 [M] and "slot_weights" float32 [M] of an example, those that it has.
      tokenizer: the model's.
    """
    if "ids" not in texts:
        return []
    ids = texts["ids"]
    weights = texts.get("slot_weights", np.ones(len(texts.get("slots", ()))))
    masked = {int(slot) for slot, weight in zip(texts.get("slots", ()), weights, strict=True) if weight > 0}
    pieces: list[tuple[list[int], bool]] = []
    ends = np.flatnonzero(ids == tokenizer.eot)
    for place in range(tokenizer.around - 1, int(ends[0]) if ends.size else len(ids)):
        if pieces and pieces[-1][1] == (place in masked):
            pieces[-1][0].append(int(ids[place]))
        else:
            pieces.append(([int(ids[place])], place in masked))
    words = [tokenizer.decode(part) for part, _ in pieces]
    for number, ((one, _), (other, _)) in enumerate(itertools.pairwise(pieces)):
        if tokenizer.decode(one + other) != words[number] + words[number + 1]:  # not within a word
            words[number] += " "
    return [(text, hidden) for text, (_, hidden) in zip(words, pieces, strict=True)]


def _smaller(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    return np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BOX))


def _batch(
    run: RunConfig, config: HarvestConfig, tokenizer: TextTokenizer, count: int, keep_ratio: float
) -> dict[str, np.ndarray]:
    """The first examples of a run, with the patches that such a ratio keeps; no loader process is started.

    Raises:
      ConfigError, DataError: the shards are not there or cannot be used.
    """
    few = dataclasses.replace(
        run,
        model=dataclasses.replace(run.model, keep_ratio=keep_ratio),
        data=dataclasses.replace(run.data, workers=0, prefetch=1),
        # No step of so few clips is one of the last stage, which drops nothing.
        train=dataclasses.replace(run.train, batch_size=count, unmasked_steps=0),
    )
    classes = config.head.classes if config.head else ()
    size, patch = config.video.image_size, config.video.patch_size
    batches = training_batches(few, size, patch, tokenizer, 0, 1, classes)
    try:
        batch: dict[str, np.ndarray] = next(batches)
    finally:
        batches.close()
    return batch
