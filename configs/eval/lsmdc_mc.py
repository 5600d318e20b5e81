"""LSMDC-MC: public test (10,053 questions of the 2016 challenge).

    harvest eval --config eval/lsmdc_mc --model runs/demo/export \
        --config.data.annotations=DIR --config.data.videos=DIR --out lsmdc_mc.json

What it needs, where that comes from and its terms: `harvest eval --list`.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The config of the benchmark's task with the benchmark's settings."""
    return base.benchmark("lsmdc_mc")
