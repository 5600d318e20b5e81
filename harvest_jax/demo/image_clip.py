"""The demo's image model: a small CLIP trained on stills (`world.render_still`) in which marks show the motion.

It takes the place of the CLIP that the method starts from, and comes with the package. This command trains it again, in
11 minutes on 2 cores:

    python -m harvest_jax.demo.image_clip --out harvest_jax/demo/data/image_clip

It is trained on single pictures, of training combinations only (`world.held_out`).
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Int, UInt8

from harvest_jax.config import files as config_files
from harvest_jax.config import run as run_config
from harvest_jax.config.run import RunConfig
from harvest_jax.demo.world import COLORS, MOTIONS, SHAPES, combinations, random_scene, render_still
from harvest_jax.input.patches import patchify
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.model.config import harvest_config
from harvest_jax.model.harvest import Harvest
from harvest_jax.train.freeze import merge, partition
from harvest_jax.train.step import Step
from harvest_jax.weights.folder import save_model

SHIPPED = Path(__file__).parent / "data" / "image_clip"
STILLS = 100  # a caption
STEPS = 3000
PLAIN = 8  # unmarked stills in a batch, captioned without a motion
TEXT_LENGTH = 16


def image_run(steps: int, seed: int) -> RunConfig:
    """The config of CLIP's own training: one frame, all patches, both towers, no masked words."""
    batch = (
        len(combinations(held=False)) + PLAIN
    )  # each caption once, so that each picture of a batch has one right caption
    changes = {
        "seed": seed,
        "model": {"size": "demo", "num_frames": 1, "keep_ratio": 1.0, "decoder_layers": 0, "dtype": "float32"},
        "text": {"length": TEXT_LENGTH, "mask_ratio": 0.0},
        "train": {
            "steps": steps,
            "batch_size": batch,
            "learning_rate": 1e-3,
            "warmup_steps": min(200, steps // 4),
            "weight_decay": 0.1,
            "clip_norm": 1.0,
            "mlm_weight": 0.0,
            "lr_multipliers": ((".*", 1.0),),
        },
    }
    config = config_files.load_dict(str(config_files.config_file("base.py")))
    config.update(changes)
    return run_config.check(config)


def stills(seed: int) -> tuple[dict[str, UInt8[np.ndarray, "n 64 64 3"]], dict[str, UInt8[np.ndarray, "n 64 64 3"]]]:
    """Marked stills by full caption, and plain stills by caption without a motion; of training combinations only."""
    rng = np.random.default_rng(seed)
    marked, plain = {}, {}
    for color, shape, motion in combinations(held=False):
        scenes = [random_scene(rng, color, shape, motion) for _ in range(STILLS)]
        marked[scenes[0].caption] = np.stack([render_still(scene, rng.uniform(), posed=True) for scene in scenes])
    for color in COLORS:
        for shape in SHAPES:
            scenes = [random_scene(rng, color, shape, MOTIONS[rng.integers(len(MOTIONS) - 2)]) for _ in range(STILLS)]
            plain[f"a {color} {shape}"] = np.stack([render_still(s, rng.uniform(), posed=False) for s in scenes])
    return marked, plain


def train(out: Path, steps: int, seed: int) -> None:
    """Train and write the model folder `out` (float16, under 2 MB)."""
    run = image_run(steps, seed)
    config = harvest_config("demo", num_frames=1, decoder_layers=0)
    model = Harvest(config)
    marked, plain = stills(seed)
    captions, plain_captions = list(marked), list(plain)
    tokenizer = Tokenizer(config.text.vocab_size)
    ids = dict(zip(captions + plain_captions, tokenizer(captions + plain_captions, TEXT_LENGTH), strict=True))

    trained, frozen = partition(jax.jit(model.init)(jax.random.key(seed)), run.train.lr_multipliers)
    step = Step(model, run)
    state, compiled = step.init_state(trained), jax.jit(step, donate_argnums=0)
    rng = np.random.default_rng(seed + 1)
    size = run.train.batch_size
    everywhere = np.tile(np.arange(config.video.cells_per_frame, dtype=np.int32), (size, 1))
    no_slots: Int[np.ndarray, "b 0"] = np.zeros((size, 0), np.int32)
    began = time.perf_counter()
    for number in range(steps):
        chosen = captions + list(rng.permutation(plain_captions)[:PLAIN])
        images = np.stack([(marked.get(c, plain.get(c)))[rng.integers(STILLS)] for c in chosen])  # type: ignore[index]
        batch = {
            "patches": patchify(images[:, None], config.video.patch_size),
            "positions": everywhere,
            "ids": np.stack([ids[c] for c in chosen]),
            "slots": no_slots,
            "slot_weights": no_slots.astype(np.float32),
        }
        state, metrics = compiled(state, frozen, batch)
        if number % 100 == 0 or number == steps - 1:
            values = " ".join(f"{name} {float(value):.3f}" for name, value in sorted(metrics.items()))
            print(f"step {number + 1}/{steps} {time.perf_counter() - began:.0f} s {values}", flush=True)
    params = jax.tree.map(np.asarray, merge(state.params, frozen))
    save_model(
        out, config, params, {"made_by": "harvest_jax.demo.image_clip", "steps": steps, "seed": seed}, np.float16
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the demo's image model.")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train(args.out, args.steps, args.seed)


if __name__ == "__main__":
    main()
