"""How often something happens (TGIF-QA's repetition counts): a number at a masked word, by mean squared error.

    harvest eval --config eval/counting --model runs/demo/export \
        --config.data.manifest=count.csv --out counting.json

Rows need `video`, `question` and `answer`, a number from 0 to 10. The main score, MSE, is that of the likeliest number;
MSE_expectation that of the expected one; constant_MSE is what the best single number reaches without any video. A video
that cannot be read has the largest possible error.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The common fields and those of a counting evaluation."""
    config = base.get_config()
    config.task = "counting"
    config.prompt = "Question: {question} Answer: {mask}"  # the text; the number is read at {mask}
    # tgif_qa: the numbers 1..10, and an answer of 0 counts as 1, as in TGIF-QA's own program; as_written: 0..10. The
    # scores by both rules are in the result.
    config.rule = "tgif_qa"
    config.text_length = 0  # tokens of the text; 0: as many as the model's text tower takes
    return config
