"""ActivityNet Captions, sentences in order of time: val_1.

    harvest eval --config eval/activitynet_time_order --model runs/demo/export \
        --config.data.annotations=DIR --config.data.videos=DIR --out activitynet_time_order.json

What it needs, where that comes from and its terms: `harvest eval --list`.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The config of the benchmark's task with the benchmark's settings."""
    return base.benchmark("activitynet_time_order")
