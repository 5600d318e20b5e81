"""VELOCITI Subset: test, in_subset.

    harvest eval --config eval/velociti_subset --model runs/demo/export \
        --config.data.annotations=DIR --config.data.videos=DIR --out velociti_subset.json

What it needs, where that comes from and its terms: `harvest eval --list`.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The config of the benchmark's task with the benchmark's settings."""
    return base.benchmark("velociti_subset")
