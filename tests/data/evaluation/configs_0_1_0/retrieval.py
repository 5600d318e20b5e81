"""Text-to-video and video-to-text retrieval: R@1/5/10, MedR, MnR, exact under ties.

    harvest eval --config configs/eval/retrieval.py --model runs/demo/export \
        --config.data.manifest=test.csv --out retrieval.json

Rows need `video` and a caption. Rows of the same video and span are one video with several captions.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Fields of a retrieval evaluation."""
    config = ConfigDict()
    config.task = "retrieval"
    config.seed = 0  # written into the result; nothing here is random

    config.data = data = ConfigDict()
    data.manifest = ""  # table of videos, decoded on the way; or
    data.shards = ""  # folder written by `harvest shards`; or both: rows of the table, frames of the shards, by id
    data.root = ""  # folder the manifest's paths start from; empty: the manifest's own
    data.split = "test"  # of the shards, and of a manifest that has a column `split`; empty: all of the manifest
    data.workers = 0  # processes that decode videos; 0: one a CPU core

    config.frames = 0  # distinct frames of a clip that the model gets to see; 0: as many as it takes
    config.batch_size = 16  # clips or texts a call of the model
    config.strict = False  # stop where a video is missing, or where ties leave R@k open by more than 0.1 points
    config.dual_softmax_scale = 0.0  # not 0: adds a block "dual_softmax" (sees all queries at once; CLIP's is 100)
    return config
