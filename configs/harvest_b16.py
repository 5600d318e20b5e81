r"""Post-pretraining of CLIP ViT-B/16 on WebVid-10M or a similar set: the method's main setting.

    harvest train --config harvest_b16 --workdir runs/b16 \
        --config.data.shards=shards/webvid --config.model.init_from=weights/clip_b16

Hardware: 8 GPUs with 40 GB or more, or a TPU slice of at least 8 chips (`launch/`). 10 passes over 10.7 M clips at
batch 1,024 are 104,000 steps; the paper reports less than a day on 8 GPUs. This code has not been measured at this
size yet. The values follow InternVideo's nearest public preset (docs/method.md). Where the paper's values are unknown
they are our choice: bfloat16 instead of float16, captions cut at 32 tokens, start and end tokens never masked.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """`base` with the changes for this setting."""
    config = base.get_config()
    config.model.size = "B/16"
    config.model.remat = "dots"  # a third of the memory for 1 % more arithmetic (docs/performance.md)
    config.data.workers = -1
    config.data.prefetch = 8
    config.train.steps = 104_000
    config.train.batch_size = 1024
    config.train.learning_rate = 1e-5
    config.train.warmup_steps = 4000
    config.train.log_every = 50
    config.train.save_every = 2000
    return config
