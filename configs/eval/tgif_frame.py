"""TGIF-QA frame: test (of the later, larger version with 165,000 questions, not of CVPR 2017's).

    harvest eval --config eval/tgif_frame --model runs/demo/export \
        --config.data.annotations=DIR --config.data.videos=DIR --out tgif_frame.json

What it needs, where that comes from and its terms: `harvest eval --list`.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The config of the benchmark's task with the benchmark's settings."""
    return base.benchmark("tgif_frame")
