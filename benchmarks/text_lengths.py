"""The text tower of B/16 on a CPU: 16 captions in a program of the whole table, and in one of their own length.

    python benchmarks/text_lengths.py --out benchmarks/results/text_lengths.json

Both are timed in turns, in one process, in CPU seconds (all threads), because other work then counts less. The median
counts. Parameters are random.
"""

import argparse
import functools
import json
import statistics
import time
from pathlib import Path

import jax
import numpy as np

from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.model.batches import text_lengths
from harvest_jax.model.config import harvest_config
from harvest_jax.model.cpu_attention import attention_of
from harvest_jax.model.harvest import Harvest
from harvest_jax.model.inference import text_embedding

CAPTIONS = ["a man in a blue shirt is playing a guitar on a stage"] * 16  # 14 tokens
TURNS = 7


def main() -> None:
    """Print the figures and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    config = harvest_config("B/16", num_frames=8, decoder_layers=0)
    harvest = Harvest(config, attention=attention_of("cpu"))
    params = {"text": jax.jit(harvest._text.init)(jax.random.key(0), np.zeros((1, 2), np.int32))["params"]}
    ids = Tokenizer()(CAPTIONS, config.text.context_length)
    own = int(text_lengths(ids).max())
    program = jax.jit(functools.partial(text_embedding, harvest))
    embedded = {length: np.asarray(program(params, ids[:, :length])) for length in (ids.shape[1], own)}
    times: dict[int, list[float]] = {length: [] for length in embedded}
    for _ in range(TURNS):
        for length, found in times.items():
            began = time.process_time()
            jax.block_until_ready(program(params, ids[:, :length]))
            found.append(time.process_time() - began)
    medians = {length: statistics.median(found) for length, found in times.items()}
    difference = float(np.abs(embedded[ids.shape[1]] - embedded[own]).max())
    for length, seconds in medians.items():
        print(f"16 texts, {length} tokens computed: {seconds:.3f} CPU seconds")
    print(f"largest difference of a number: {difference:.1e}")
    if args.out:
        values = {"cpu_seconds_of_16_texts": medians, "largest_difference": difference, "turns": TURNS}
        args.out.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
