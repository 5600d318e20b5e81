"""Which of a few sentences fits the video (MSRVTT-MC, LSMDC-MC, TGIF-QA action and transition, NExT-QA).

    harvest eval --config configs/eval/multiple_choice.py --model runs/demo/export \
        --config.data.manifest=mc.csv --out multiple_choice.json

Rows need `video`; `options` (a JSON list) or columns option_0, option_1, ... (or a1, a2, ...); and `answer`, the place
of the right option **counted from 0**. A column `type` adds the accuracy of each type.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Fields of a multiple-choice evaluation."""
    config = ConfigDict()
    config.task = "multiple_choice"
    config.seed = 0  # written into the result; nothing here is random

    config.data = data = ConfigDict()
    data.manifest = ""  # table of videos, decoded on the way; or
    data.shards = ""  # folder written by `harvest shards`; or both: rows of the table, frames of the shards, by id
    data.root = ""  # folder the manifest's paths start from; empty: the manifest's own
    data.split = "test"  # of the shards, and of a manifest that has a column `split`; empty: all of the manifest
    data.workers = 0  # processes that decode videos; 0: one a CPU core

    config.frames = 0  # distinct frames of a clip that the model gets to see; 0: as many as it takes
    config.batch_size = 16  # clips or texts a call of the model
    config.strict = False  # stop where a video is missing, or where ties leave the accuracy open by over 0.1 points
    config.prompt = "{option}"  # text of an option; {question} puts the column `question` there
    return config
