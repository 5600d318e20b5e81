"""Classification by a linear classifier on the frozen model's embeddings, trained on a labelled training set.

    harvest eval --config eval/linear_probe --model runs/demo/export --store embeddings \
        --config.train.manifest=ucf101_train.csv --config.data.manifest=ucf101_test.csv --out probe.json

Rows of both sets need `video` and `label`. With --store, clips are embedded once, whatever is tried with them. An
attentive probe looks at tokens and not at embeddings: it is a fine-tuning with frozen towers (docs/training.md).
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The common fields and those of a linear probe."""
    config = base.get_config()
    config.task = "linear_probe"
    config.label_column = "label"  # column of the class names, in both sets; the training set's are the classes
    config.train = train = ConfigDict()
    train.manifest = ""  # table of the training videos
    train.root = ""  # folder that its paths start from; empty: the manifest's own folder
    train.shards = ""  # folder written by `harvest shards`, as in data.shards
    train.split = "train"  # of the shards, and of a manifest with a column `split`; empty: all rows of the manifest
    train.skip_missing = False  # train without the videos that cannot be read; False: they are an error
    # the one with the best accuracy on a fifth of the training videos is taken, and the classifier trained on all
    config.weight_decays = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    return config
