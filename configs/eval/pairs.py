"""Two captions and two videos that differ in the order of events (Vinoground, Winoground): text, video, group score.

    harvest eval --config eval/pairs --model runs/demo/export \
        --config.data.manifest=pairs.csv --out pairs.json

Rows need `video`, one caption, and `group`: the two rows with the same `group` are one question. With a column `type`
the scores of each type are added; a row may have several, separated by `;`. A tie is wrong in the three scores. Beside
them stand chance (25, 25, 16.67 percent) and the scores of the average of single frames.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The common fields."""
    config = base.get_config()
    config.task = "pairs"
    return config
