"""Chirality in Action, Something-Something V2: validation.

    harvest eval --config eval/chirality_ssv2 --model runs/demo/export \
        --config.data.annotations=DIR --config.data.videos=DIR --out chirality_ssv2.json

What it needs, where that comes from and its terms: `harvest eval --list`.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The config of the benchmark's task with the benchmark's settings."""
    return base.benchmark("chirality_ssv2")
