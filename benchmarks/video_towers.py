"""The video towers of four models of B/16 on a CPU: clips of 8 frames, a tenth of the patches, forward and gradient.

    python benchmarks/video_towers.py --out benchmarks/results/video_towers.json

All are timed in turns, in one process, in CPU seconds (all threads), because other work then counts less. The median
counts. Parameters are random.
"""

import argparse
import dataclasses
import json
import math
import statistics
import time
from pathlib import Path

import jax
import numpy as np

from harvest_jax.input.patches import num_kept
from harvest_jax.model.config import HarvestConfig, harvest_config
from harvest_jax.model.cpu_attention import attention_of
from harvest_jax.model.harvest import Harvest, parameter_shapes

CLIPS, TURNS = 2, 3


def models() -> dict[str, HarvestConfig]:
    """CLIP, and the published models of its size whose towers are others."""
    clip = harvest_config("B/16", num_frames=8, decoder_layers=0)
    eva = {"activation": "swiglu", "mlp_width": 2048, "norm_eps": 1e-6, "inner_norms": True, "rotary": True}
    eva |= {"rotary_grid": 16, "patch_bias": True, "pre_norm": False, "projection_bias": True}
    siglip = {"activation": "gelu_tanh", "norm_eps": 1e-6, "class_token": False, "patch_bias": True, "pre_norm": False}
    siglip |= {"pooling": "attention", "projection": False, "embed_dim": 768}
    pe = {"activation": "gelu", "rotary": True, "rotary_start": 1, "pooling": "attention", "pooling_heads": 8}
    pe |= {"embed_dim": 1024}
    text = clip.text
    texts = {
        "SigLIP B/16": dataclasses.replace(
            text, vocab_size=32000, context_length=64, width=768, heads=12, embed_dim=768, projection_bias=True
        ),
        "PE-Core B/16": dataclasses.replace(text, context_length=32, width=1024, layers=24, heads=16, embed_dim=1024),
    }
    video = {"CLIP B/16": {}, "SigLIP B/16": siglip, "EVA-02 B/16": eva, "PE-Core B/16": pe}
    return {
        name: dataclasses.replace(
            clip, video=dataclasses.replace(clip.video, **fields), text=texts.get(name, text), name=name
        )
        for name, fields in video.items()
    }


def main() -> None:
    """Print the figures and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rng, programs, found = np.random.default_rng(0), {}, {}
    for name, config in models().items():
        harvest, video = Harvest(config, attention=attention_of("cpu")), config.video
        kept = num_kept(video.num_frames, video.cells_per_frame, 0.1)
        cells = np.sort(rng.permutation(video.num_frames * video.cells_per_frame)[:kept]).astype(np.int32)
        patches = rng.normal(size=(CLIPS, kept, video.patch_dim)).astype(np.float32)
        positions = np.tile(cells, (CLIPS, 1))
        tower = harvest._video
        params = jax.jit(tower.init)(jax.random.key(0), patches[:1, :1], positions[:1, :1])["params"]
        forward = jax.jit(lambda p, a, b, tower=tower: tower.apply({"params": p}, a, b)["embedding"])
        gradient = jax.jit(jax.grad(lambda p, a, b, forward=forward: forward(p, a, b).sum()))
        programs[name] = [(program, (params, patches, positions)) for program in (forward, gradient)]
        sizes = dict.fromkeys(("video", "text"), 0)
        for path, shape in parameter_shapes(config).items():
            if path.split("/")[0] in sizes:
                sizes[path.split("/")[0]] += math.prod(shape)
        found[name] = {"parameters": sizes, "patches": kept}
    times: dict[str, list[list[float]]] = {name: [[], []] for name in programs}
    for turn in range(TURNS + 1):  # the first one compiles
        for name, pair in programs.items():
            for number, (program, arguments) in enumerate(pair):
                began = time.process_time()
                jax.block_until_ready(program(*arguments))
                if turn:
                    times[name][number].append(time.process_time() - began)
    for name, (forward, gradient) in times.items():
        found[name] |= {
            "cpu_seconds_forward": round(statistics.median(forward), 3),
            "cpu_seconds_gradient": round(statistics.median(gradient), 3),
        }
        print(name, found[name])
    if args.out:
        args.out.write_text(json.dumps({"clips": CLIPS, "turns": TURNS, "models": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
