"""Text-to-video and video-to-text retrieval: R@1/5/10, MedR, MnR. Ties are scored by their expectation.

    harvest eval --config eval/retrieval --model runs/demo/export \
        --config.data.manifest=test.csv --out retrieval.json

Rows need `video` and a caption. Rows of the same video and span are one video with several captions.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The common fields and those of a retrieval evaluation."""
    config = base.get_config()
    config.task = "retrieval"
    config.dual_softmax_scale = (
        0.0  # above 0: adds a block "dual_softmax" (it uses all queries at once); CLIP's scale is 100
    )
    config.frame_average = False  # also the scores of the average of single frames; as many embeddings more as frames
    return config
