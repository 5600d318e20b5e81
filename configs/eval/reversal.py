"""Does the model see the order of frames? Each clip forwards and backwards; its caption chooses one of the two.

    harvest eval --config eval/reversal --model runs/demo/export \
        --config.data.manifest=test.csv --out reversal.json

Rows need `video` and a caption, as for retrieval. Chance is 50 percent, and a model that averages frames is exactly
there. With a column `reversed_caption`, the caption of the clip played backwards, two scores are added: the choice
between both in both directions, and retrieval among all clips forwards and backwards. A column `type` adds the accuracy
of each type.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The common fields."""
    config = base.get_config()
    config.task = "reversal"
    return config
