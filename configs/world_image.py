r"""The generated world's image model: a small CLIP trained on single pictures, with or without marks.

    harvest world --out image.world.json --clips stills=60000 unmarked=60000
    harvest shards --manifest image.world.json --out shards/image --frames 1
    harvest train --config world_image --workdir runs/world_image --config.data.shards=shards/image
    harvest train --config world_image:unmarked --workdir runs/world_unmarked --config.data.shards=shards/image

It takes the place of the CLIP that the method starts from. The argument `unmarked` trains on pictures without the marks
that tell what happens: same captions, so the words for motions are there and the pictures do not tell them apart.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(split: str = "stills") -> ConfigDict:
    """`base` with the changes for single pictures; `split` is that of the shards."""
    config = base.get_config()
    config.model.size = "world"
    config.model.dtype = "float32"  # a CPU gains nothing from bfloat16
    config.model.num_frames = 1
    config.model.keep_ratio = 1.0
    config.model.decoder_layers = 0
    config.text.length = 48
    config.text.mask_ratio = 0.0
    config.data.split = split
    config.data.min_scale = 1.0  # the captions name positions and directions: no crops
    config.data.crop = "center"
    config.data.prefetch = 8
    config.train.steps = 6000
    config.train.batch_size = 128
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 200
    config.train.weight_decay = 0.1
    config.train.clip_norm = 1.0
    config.train.mlm_weight = 0.0
    config.train.lr_multipliers = ((".*", 1.0),)  # both towers
    config.train.log_every = 200
    return config
