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
    # File of candidate answers (one in each line, JSON, or a file of training questions); must be set. test_set: all
    # answers of the test set itself, which makes the task easier.
    config.answers = ""
    config.max_answers = 0  # only the first so many of the file, of training questions the most frequent ones; 0: all
    config.text_length = 0  # tokens of the text; 0: as many as the model's text tower takes
    config.answer_from = "mask"  # head: by the classifier of a model that was fine-tuned (configs/finetune/), which
    # knows its answers; then answers and max_answers have no use
    return config
