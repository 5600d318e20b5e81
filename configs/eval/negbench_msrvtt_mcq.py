"""NegBench MSR-VTT MCQ: MSR-VTT MCQ, rephrased by Llama 3.1.

    harvest eval --config eval/negbench_msrvtt_mcq --model runs/demo/export \
        --config.data.annotations=DIR --config.data.videos=DIR --out negbench_msrvtt_mcq.json

What it needs, where that comes from and its terms: `harvest eval --list`.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The config of the benchmark's task with the benchmark's settings."""
    return base.benchmark("negbench_msrvtt_mcq")
