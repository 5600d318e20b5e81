r"""Action recognition: a classifier on the video tower, which is fine-tuned with it or stays as it is (a probe).

    harvest train --config finetune/classification --workdir runs/k400 \
        --config.data.shards=shards/k400 --config.model.init_from=runs/b16/export
    harvest eval --config eval/zero_shot --model runs/k400/export --config.answer_from=head \
        --config.data.shards=shards/k400 --config.data.split=val

A probe on frozen features, linear or attentive:

    --config.objective.head=attentive --config.train.learning_rate=1e-3 \
    --config.train.lr_multipliers='(("head/.*",1.0),(".*",0.0))'

Shards need a column `label`. All values but those of the data are our choice: the paper has no fine-tuned action
recognition. Not measured at this size yet.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """`base` with the changes for this task."""
    config = base.get_config()
    config.objective.name = "classification"
    config.objective.head = "linear"
    config.model.keep_ratio = 1.0  # lower values train faster, as in post-pretraining
    config.model.decoder_layers = 0  # nothing is predicted with it, and the exported model has none
    config.data.workers = -1
    config.data.prefetch = 8
    config.train.steps = 20_000
    config.train.batch_size = 128
    config.train.learning_rate = 1e-5
    config.train.warmup_steps = 2000
    config.train.weight_decay = 0.05
    config.train.lr_multipliers = (  # the rest has no part in the loss: weight decay alone would change it
        ("head/.*", 10.0),
        ("video/proj/.*", 0.0),
        ("video/.*", 1.0),
        (".*", 0.0),
    )
    return config
