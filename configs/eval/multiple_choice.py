"""Which of a few sentences fits the video (MSRVTT-MC, LSMDC-MC, TGIF-QA action and transition, NExT-QA).

    harvest eval --config eval/multiple_choice --model runs/demo/export \
        --config.data.manifest=mc.csv --out multiple_choice.json

Rows need `video`; `options` (a JSON list) or columns option_0, option_1, ... (or a1, a2, ...); and `answer`, the number
of the right option, counted from 0 unless `answer_base` says otherwise. With a column `type` the accuracy of each type
is added, with a column `group` that of each group of types.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The common fields and those of a multiple-choice evaluation."""
    config = base.get_config()
    config.task = "multiple_choice"
    config.prompt = "{option}"  # text of an option; {question} is replaced by the column `question`
    config.answer_base = -1  # the first option's number in `answer`, 0 or 1; -1: 0, and an error if no answer is 0
    config.frame_average = False  # also the scores of the average of single frames; as many embeddings more as frames
    return config
