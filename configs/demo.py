r"""The demo's training: a small image CLIP becomes a video model while nine of ten video patches are dropped.

    harvest demo --workdir runs/demo            # makes the clips, then trains with this config
    harvest train --config demo --workdir runs/demo/longer \
        --config.data.shards=runs/demo/shards --config.model.init_from=harvest_jax/demo/data/image_clip \
        --config.train.steps=2400               # longer

Hardware: 2 CPU cores, about 3 minutes (64 clips a step). Expect: the choice between a motion and its reverse goes from
chance (50 %) to 90 % and more, text-to-video R@1 among 40 clips of unseen combinations from 15-35 % to 90 % and more;
with some seeds one pair of motions comes out lower (docs/demo.md) and takes the longer training.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """`base` with the demo's changes."""
    config = base.get_config()
    config.model.size = "demo"
    config.model.dtype = "float32"  # a CPU gains nothing from bfloat16
    config.model.temporal_init = "ramp"
    config.model.decoder_layers = 2
    config.text.length = 16
    config.data.min_scale = 1.0  # the captions name positions and directions: no crops
    config.data.crop = "center"
    config.data.prefetch = 8
    config.train.steps = 1200
    config.train.batch_size = 64
    config.train.learning_rate = 2e-3
    config.train.warmup_steps = 100
    config.train.weight_decay = 0.1
    config.train.clip_norm = 1.0
    config.train.save_every = 400
    return config
