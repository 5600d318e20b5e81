"""Open-ended questions (MSRVTT-QA, MSVD-QA, TGIF-FrameQA), answered at a masked word by the model's decoder.

    harvest eval --config configs/eval/videoqa.py --model runs/demo/export \
        --config.data.manifest=qa.csv --config.answers=train_answers.txt --out videoqa.json

Rows need `video`, `question` and `answer`. acc_all, the headline, counts questions whose answer is no candidate as
wrong; acc_in_vocab leaves them out, as some papers do. Types are the column `type`, else what, who, how, where, when.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Fields of a question-answering evaluation."""
    config = ConfigDict()
    config.task = "videoqa"
    config.seed = 0  # written into the result; nothing here is random

    config.data = data = ConfigDict()
    data.manifest = ""  # table of videos, decoded on the way; or
    data.shards = ""  # folder written by `harvest shards`; or both: rows of the table, frames of the shards, by id
    data.root = ""  # folder the manifest's paths start from; empty: the manifest's own
    data.split = "test"  # of the shards, and of a manifest that has a column `split`; empty: all of the manifest
    data.workers = 0  # processes that decode videos; 0: one a CPU core

    config.frames = 0  # distinct frames of a clip that the model gets to see; 0: as many as it takes
    config.batch_size = 16  # questions a call of the model
    config.strict = False  # stop where a video is missing, or where ties leave acc_all open by more than 0.1 points
    config.prompt = "Question: {question} Answer: {mask}"  # the text; the answer is read at {mask}
    config.answers = ""  # file of candidate answers (one a line, or JSON); empty: all answers of the test set itself
    config.text_length = 0  # tokens of the text; 0: all that the model's text tower takes
    return config
