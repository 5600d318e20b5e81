"""Small shards of training clips, and their batches."""

import os
from pathlib import Path

import numpy as np
import simplejpeg

from data_pipeline.shards import shard_format
from harvest_jax.config import RunConfig, check, load_dict
from harvest_jax.input.batches import Batches
from harvest_jax.input.pipeline import training_batches
from harvest_jax.input.process_share import first_block
from harvest_jax.input.tokenizer import Tokenizer
from tests.helpers.shard_files import write_records

SIZE, PATCH, FRAMES, LENGTH = 32, 8, 4, 22
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
TOKENIZER = Tokenizer(1000)


def make_record(number: int, frames: int = 6, height: int = 40, width: int = 52, **changes) -> shard_format.Record:
    """A clip of noise-free frames that differ in every corner and over time; its caption names its number."""
    y, x = np.mgrid[:height, :width]
    jpegs = []
    for t in range(frames):
        frame = np.stack([(4 * x + 20 * number) % 256, (5 * y + 30 * t) % 256, (3 * (x + y) + 11 * t) % 256], axis=-1)
        jpegs.append(simplejpeg.encode_jpeg(frame.astype(np.uint8), quality=95, colorspace="RGB"))
    fields = {
        "id": f"clip-{number}",
        "captions": (f"the clip number {WORDS[number]}",),
        "jpegs": tuple(jpegs),
        "seconds": tuple(0.5 * t for t in range(frames)),
        "width": width,
        "height": height,
        "extra": {},
    }
    return shard_format.Record(**(fields | changes))


def write(folder: Path, split: str, records: list[shard_format.Record]) -> None:
    write_records(folder, split, [shard_format.encode(record) for record in records], shards=min(2, len(records)))


def config(folder, *overrides: str) -> RunConfig:
    base = {
        "seed": 3,
        "model.num_frames": FRAMES,
        "model.keep_ratio": 0.25,
        "text.length": LENGTH,
        "text.mask_ratio": 0.4,
        "data.shards": folder,
        "train.batch_size": 4,
    }
    path = os.path.join(os.path.dirname(__file__), "..", "..", "configs", "base.py")
    return check(load_dict(path, [*(f"{key}={value}" for key, value in base.items()), *overrides]).to_dict())


def batches(folder, *overrides: str, process: tuple[int, int] = (0, 1)) -> Batches:
    return training_batches(config(folder, *overrides), SIZE, PATCH, TOKENIZER, *process)


def take(folder, count: int, *overrides: str, process: tuple[int, int] = (0, 1)) -> list[dict[str, np.ndarray]]:
    iterator = batches(folder, *overrides, process=process)
    taken = [next(iterator) for _ in range(count)]
    iterator.close()
    return taken


def block(rows: np.ndarray, step: int, process: int, count: int) -> np.ndarray:
    """Those of a global batch's rows that a process reads."""
    return np.split(rows, count)[(process + first_block(step, count)) % count]


def assert_equal(left, right) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert np.array_equal(one[name], other[name]), name


def captions(batch) -> list[str]:
    return [TOKENIZER.decode(ids) for ids in batch["ids"]]
