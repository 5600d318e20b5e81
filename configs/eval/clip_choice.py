"""Which of a few clips fits a sentence (EgoMCQ).

    harvest eval --config eval/clip_choice --model runs/demo/export \
        --config.data.manifest=clips.csv --out clip_choice.json

A question is several rows, one for each clip: they need `video`; `question_id`, the same for all clips of a question;
`text`, the sentence; and `answer`, 1 for the right clip and 0 for the others. With a column `type` the accuracy of each
type is added.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The common fields."""
    config = base.get_config()
    config.task = "clip_choice"
    return config
