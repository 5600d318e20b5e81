"""Classification by class names in sentences, without training on the classes (Kinetics, UCF-101, ...).

    harvest eval --config eval/zero_shot --model runs/demo/export \
        --config.data.manifest=k400_val.csv --config.classes=k400_classes.txt --out zero_shot.json

Rows need `video` and `label`, a class name. Scores: top-1, top-5, and AVG, the mean of the two (some papers report only
AVG).
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The common fields and those of a zero-shot classification."""
    config = base.get_config()
    config.task = "zero_shot"
    config.label_column = "label"  # column of the class names
    config.classes = (
        ""  # file of all class names (one in each line, or CSV with a column `name`); empty: the labels found
    )
    config.prompts = "action_16"  # action_16, kinetics_28, video_of, name, or a sentence with {} for the class name
    config.ensemble = "mean_vector"  # of the sentences: mean_vector, mean_cosine, mean_probability
    config.answer_from = "prompts"  # head: by the classifier of a model that was fine-tuned (configs/finetune/), which
    # knows its classes; then classes, prompts and ensemble have no use
    config.half_of_classes = -1  # a seed (0, 1, ...): among a random half of the classes, and their clips; -1: all
    return config
