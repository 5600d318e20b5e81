"""LSMDC: test (1,000 clips of the 2016 retrieval challenge).

    harvest eval --config eval/lsmdc --model runs/demo/export \
        --config.data.annotations=DIR --config.data.videos=DIR --out lsmdc.json

What it needs, where that comes from and its terms: `harvest eval --list`.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The config of the benchmark's task with the benchmark's settings."""
    return base.benchmark("lsmdc")
