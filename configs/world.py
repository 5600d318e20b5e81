r"""The generated world's video model: post-pretraining of its image model (configs/world_image.py), on a CPU.

    harvest world --out small.world.json \
        --clips train=20000 retrieval=500 choice=3000 questions=800 stills_test=500
    harvest shards --manifest small.world.json --out shards/world --split train
    for split in retrieval choice questions; do
        harvest shards --manifest small.world.json --out shards/world --split $split --frames 8
    done
    harvest shards --manifest small.world.json --out shards/world --split stills_test --frames 1
    harvest train --config world --workdir runs/world --config.data.shards=shards/world \
        --config.model.init_from=runs/world_image/export
    harvest eval --config eval/multiple_choice --model runs/world/export \
        --config.data.shards=shards/world --config.data.split=choice

The experiments on the paper's claims change one field of it each: configs/sweeps/.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs import base

SEEDS = (0, 1, 2)  # of every setting of the sweeps


def get_config() -> ConfigDict:
    """`base` with the world's changes."""
    config = base.get_config()
    config.model.size = "world"
    config.model.dtype = "float32"
    config.model.temporal_init = "ramp"
    config.model.decoder_layers = 2
    config.text.length = 48
    config.data.min_scale = 1.0
    config.data.crop = "center"
    config.data.prefetch = 8
    config.train.steps = 3000
    config.train.batch_size = 64
    config.train.learning_rate = 2e-3
    config.train.warmup_steps = 200
    config.train.weight_decay = 0.1
    config.train.clip_norm = 1.0
    config.train.log_every = 100
    return config


def evaluate(add: Callable[..., None]) -> None:
    """What the sweeps score every run on: by factor, in search, by the decoder's word, and on pictures as before."""
    add("choice", "eval/multiple_choice", **{"data.split": "choice"})
    add("retrieval", "eval/retrieval", **{"data.split": "retrieval"})
    add("questions", "eval/videoqa", **{"data.split": "questions", "answers": "test_set"})
    add("stills", "eval/retrieval", **{"data.split": "stills_test"})
