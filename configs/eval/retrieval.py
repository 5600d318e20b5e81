"""Text-to-video and video-to-text retrieval: R@1/5/10, MedR, MnR. Ties are scored by their expectation.

    harvest eval --config eval/retrieval --model runs/demo/export \
        --config.data.manifest=test.csv --out retrieval.json

Rows need `video` and a caption. Rows of the same video and span are one video with several captions. Then each caption
is a query; video to text, the caption that ranks best among all captions counts, and a second line has the rule of
CLIP4Clip, which ranks videos by the highest score of their captions.
"""

from ml_collections import ConfigDict

from configs.eval import base


def get_config() -> ConfigDict:
    """The common fields and those of a retrieval evaluation."""
    config = base.get_config()
    config.task = "retrieval"
    config.captions = (
        ""  # "one", "several" (each a query), "paragraph" (those of a clip joined); empty: as the rows say
    )
    config.frame_average = False  # also the scores of the average of single frames; as many embeddings more as frames
    config.positives = "own"  # right videos of a caption: "own"; those of all captions with its text: "same_text"
    # (each caption a query), "distinct_text" (each text one query). The last two add mAP and nDCG.

    # Extra columns, which use all queries at once or a bank of other captions: not to be compared with plain scores.
    config.dual_softmax_scale = 0.0  # above 0, or a list of scales: adds a block for each; CLIP's scale is 100
    config.querybank = ""  # file of training captions, one in a line: adds QB-Norm, text to video
    config.querybank_beta = 20.0  # its scale
    config.compat = ()  # adds the figures as other programs print them: "clip4clip", "clip4clip_multi_sentence",
    # "collaborative_experts", "frozen", "open_clip", "perception_models", "unmasked_teacher"
    return config
