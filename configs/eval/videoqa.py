"""Open-ended questions (MSRVTT-QA, MSVD-QA, TGIF-FrameQA), answered at a masked word by the model's decoder.

    harvest eval --config eval/videoqa --model runs/demo/export \
        --config.data.manifest=qa.csv --config.answers=train_answers.txt --out videoqa.json

Rows need `video`, `question` and `answer`. The main score, acc_all, counts a question as wrong if its answer is not a
candidate; acc_in_vocab leaves such questions out, as some papers do. The type of a question is the column `type`, or
its first word: what, who, how, where, when.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The common fields and those of a question-answering evaluation."""
    config = base.get_config()
    config.task = "videoqa"
    config.prompt = "Question: {question} Answer: {mask}"  # the text; the answer is read at {mask}
    config.answers = (
        ""  # file of candidate answers (one in each line, or JSON); empty: all answers of the test set itself
    )
    config.text_length = 0  # tokens of the text; 0: as many as the model's text tower takes
    return config
