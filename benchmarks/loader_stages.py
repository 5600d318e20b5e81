"""CPU time per clip of each stage of the loader, on one core, minimum of several rounds.

OPENBLAS_NUM_THREADS=1 python benchmarks/loader_stages.py --shards shards/clips
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import simplejpeg

from data_pipeline.shards import shard_format
from harvest_jax.config import files as config_files
from harvest_jax.config import run as run_config
from harvest_jax.input import jpeg_tiles
from harvest_jax.input.examples import MakeExample, Numbered, Records
from harvest_jax.input.patches import keep_positions
from harvest_jax.input.text_masking import mask_slots, num_slots
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.pixels.frame_sampling import segment_indices
from harvest_jax.pixels.resample import kept_patches, touched_tiles
from harvest_jax.pixels.square import random_crop

SIZE, PATCH, LEAST = 224, 16, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True)
    parser.add_argument("--clips", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    run = run_config.load(str(config_files.config_file("harvest_b16.py")), [f"data.shards={arguments.shards}"])
    frames, keep, length, ratio = run.model.num_frames, run.model.keep_ratio, run.text.length, run.text.mask_ratio
    records, tokenizer = Records(run.data.shards, run.data.split), Tokenizer(49408)
    shards = shard_format.open_shards(run.data.shards, run.data.split)
    clips = range(arguments.clips)

    def timed(name: str, do: Callable[[int], Any]) -> list[Any]:
        best = float("inf")
        for _ in range(arguments.rounds):
            began = time.process_time()
            results = [do(clip) for clip in clips]
            best = min(best, time.process_time() - began)
        print(f"{name:34s} {1e3 * best / len(clips):6.3f} ms a clip")
        return results

    def rng(clip: int) -> np.random.Generator:
        return np.random.default_rng(clip)

    raws = timed("read", lambda clip: shards[clip % len(shards)])
    parsed = timed("parse", lambda clip: shard_format.parse_record(raws[clip]))
    indices = timed("choose frames", lambda clip: segment_indices(len(parsed[clip].jpegs), frames, rng(clip)).tolist())
    jpegs = [[parsed[clip].jpegs[index] for index in indices[clip]] for clip in clips]
    tilings = timed("read a header", lambda clip: jpeg_tiles.read_tiling(jpegs[clip]))
    crops = timed(
        "choose a crop", lambda clip: random_crop(tilings[clip].height, tilings[clip].width, LEAST, False, rng(clip))
    )
    kept = timed("choose patches", lambda clip: keep_positions(rng(clip), frames, (SIZE // PATCH) ** 2, keep))
    shapes = [(frames, tiling.rows, tiling.columns) for tiling in tilings]
    wanted = timed(
        "find the tiles they touch",
        lambda clip: touched_tiles(crops[clip], SIZE, PATCH, kept[clip], shapes[clip], jpeg_tiles.TILE),
    )
    tiles = timed("cut the tiles", lambda clip: jpeg_tiles._cut(tilings[clip], jpegs[clip], wanted[clip]))
    timed("decode the tiles", lambda clip: jpeg_tiles._decode(tilings[clip], tiles[clip]))
    timed(
        "cut, decode, put in their places",
        lambda clip: sum(1 for _ in jpeg_tiles.decode_tiles(tilings[clip], jpegs[clip], wanted[clip])),
    )
    timed(
        "and crop and resize the patches",
        lambda clip: kept_patches(
            jpeg_tiles.decode_tiles(tilings[clip], jpegs[clip], wanted[clip]), crops[clip], SIZE, PATCH, kept[clip]
        ),
    )
    ids = timed("caption to tokens", lambda clip: tokenizer([parsed[clip].captions[0]], length)[0])
    slots = num_slots(length, ratio)
    fixed = {"eot": tokenizer.eot, "sot": tokenizer.sot, "ratio": ratio, "num_slots": slots}
    timed("choose words to mask", lambda clip: mask_slots(rng(clip), ids[clip], **fixed))
    example = MakeExample((records,), run, SIZE, PATCH, tokenizer)
    timed("all of it", lambda clip: example.random_map(Numbered(clip, (0, clip % len(records))), rng(clip)))
    timed("decode whole frames, nothing else", lambda clip: [simplejpeg.decode_jpeg(j, "RGB") for j in jpegs[clip]])
    share = np.mean([len(found) for found in tiles]) / np.mean([np.prod(shape) for shape in shapes])
    print(f"tiles touched: {100 * share:.1f} %")


if __name__ == "__main__":
    main()
