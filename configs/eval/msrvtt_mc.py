"""MSRVTT-MC: test (the 2,990 videos of MSR-VTT's full test split).

    harvest eval --config eval/msrvtt_mc --model runs/demo/export \
        --config.data.annotations=DIR --config.data.videos=DIR --out msrvtt_mc.json

What it needs, where that comes from and its terms: `harvest eval --list`.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The config of the benchmark's task with the benchmark's settings."""
    return base.benchmark("msrvtt_mc")
