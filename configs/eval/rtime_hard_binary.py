"""RTime-Hard and RTime-Binary: test, original and reversed videos.

    harvest eval --config eval/rtime_hard_binary --model runs/demo/export \
        --config.data.annotations=DIR --config.data.videos=DIR --out rtime_hard_binary.json

What it needs, where that comes from and its terms: `harvest eval --list`.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The config of the benchmark's task with the benchmark's settings."""
    return base.benchmark("rtime_hard_binary")
