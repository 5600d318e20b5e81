"""UCF101, split 3: test of split 3.

    harvest eval --config eval/ucf101_3 --model runs/demo/export \
        --config.data.annotations=DIR --config.data.videos=DIR --out ucf101_3.json

What it needs, where that comes from and its terms: `harvest eval --list`.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The config of the benchmark's task with the benchmark's settings."""
    return base.benchmark("ucf101_3")
