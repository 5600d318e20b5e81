"""Classification by class names in sentences, without training on the classes (Kinetics, UCF-101, ...).

    harvest eval --config configs/eval/zero_shot.py --model runs/demo/export \
        --config.data.manifest=k400_val.csv --config.classes=k400_classes.txt --out zero_shot.json

Rows need `video` and `label`, a class name. Scores: top-1, top-5, and AVG, their mean (what some papers print alone).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Fields of a zero-shot classification."""
    config = ConfigDict()
    config.task = "zero_shot"
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
    config.label_column = "label"  # column of the class names
    config.classes = ""  # file of all class names (one a line, or CSV with `name`); empty: the labels that are found
    config.prompts = "action_16"  # action_16, kinetics_28, video_of, name, or a sentence with {} for the class name
    config.ensemble = "mean_vector"  # of the sentences: mean_vector, mean_cosine, mean_probability
    return config
