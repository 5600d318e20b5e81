r"""Questions about videos: a classifier over the answers of the training set.

    harvest train --config finetune/videoqa --workdir runs/msrvtt_qa \
        --config.data.shards=shards/msrvtt_qa --config.model.init_from=runs/b16/export
    harvest eval --config eval/msrvtt_qa --model runs/msrvtt_qa/export --config.answer_from=head ...

Shards need the columns `question` and `answer`; a clip with several questions has lists of equal length in them, and
each time one of them is drawn. The classifier reads the decoder's feature at the
mask, the video and the question. Answers that are not among `max_classes` are left out of the loss; the log says which
share has one. objective.answer_from=mask trains the decoder's own word at the mask instead, without a classifier; such
a model is evaluated as before, with `answer_from=mask`.

InternVideo's values, the best known start (docs/method.md; the paper's own are unknown): the 1,500 most frequent
answers of MSRVTT-QA (MSVD-QA 1,000, TGIF-QA's frame questions 1,540), 8 frames, batch 512, 20 epochs (6,190 steps if
the training set has 158,581 questions; its file was not seen), learning rate 1e-5, 10 times that for the classifier,
weight decay 0.01, warm-up over a tenth, then a linear fall to 0. Not measured at this size yet.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """`base` with the changes for this task."""
    config = base.get_config()
    config.objective.name = "videoqa"
    config.objective.max_classes = 1500
    config.model.keep_ratio = 1.0  # lower values train faster, as in post-pretraining
    config.data.workers = -1
    config.data.prefetch = 8
    config.train.steps = 6190
    config.train.batch_size = 512
    config.train.learning_rate = 1e-5
    config.train.warmup_steps = 619
    config.train.decay = "linear"
    config.train.weight_decay = 0.01
    config.train.lr_multipliers = (
        ("head/.*", 10.0),
        # These have no part in the loss of a head: weight decay alone would change them. With answer_from=mask the
        # decoder's own head trains: (("(video/proj|text/text_projection|logit_scale).*", 0.0), (".*", 1.0))
        ("(video/proj|text/text_projection|decoder/head_dense|decoder/ln_head|decoder/head_vocab|logit_scale).*", 0.0),
        (".*", 1.0),
    )
    return config
