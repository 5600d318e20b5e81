"""`open_clip_config.json` beside the tensors."""

import pytest

from harvest_jax.errors import DataError
from harvest_jax.model.config import Preprocessing
from harvest_jax.weights.families.openai import OPEN_CLIP_TEXT, OPENAI
from tests.helpers.checkpoint_tensors import architecture, changed

OPEN_CLIP = {
    "model_cfg": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 12, "layers": 3, "width": 128, "patch_size": 4},
        "text_cfg": {"context_length": 10, "vocab_size": 600, "width": 64, "heads": 4, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]},
}


def test_open_clip_config_is_read():
    found = architecture(OPENAI, {"open_clip_config": OPEN_CLIP})
    assert (found.video.activation, found.text.activation) == ("gelu", "gelu")
    assert (found.video.heads, found.text.heads) == (2, 4)
    assert found.preprocessing == Preprocessing((0.5, 0.4, 0.3), (0.2, 0.2, 0.1), "crop")
    quick = changed(changed(OPEN_CLIP, "model_cfg.quick_gelu", True), "model_cfg.vision_cfg.head_width", 32)
    quick = changed(quick, "preprocess_cfg.resize_mode", "squash")
    found = architecture(OPEN_CLIP_TEXT, {"open_clip_config": quick})
    assert (found.video.activation, found.video.heads, found.preprocessing.resize) == ("quick_gelu", 4, "squash")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_cfg.vision_cfg.pool_type", "avg", "pool_type='avg'"),
        ("model_cfg.vision_cfg.no_ln_pre", True, "no_ln_pre=True"),
        ("model_cfg.vision_cfg.act_kwargs", {"approximate": "tanh"}, "act_kwargs"),
        ("model_cfg.text_cfg.no_causal_mask", True, "no_causal_mask=True"),
        ("model_cfg.text_cfg.hf_tokenizer_name", "bert-base-uncased", "hf_tokenizer_name"),
        ("model_cfg.text_cfg.norm_kwargs", {"eps": 1e-6}, "norm_kwargs"),
        ("model_cfg.text_cfg.heads", "8", "heads: expected a positive whole number"),
        ("model_cfg.text_cfg.heads", 7, "width 64 cannot have 7 heads"),
        ("model_cfg.vision_cfg.head_width", 1000, "cannot have 0 heads"),
        ("model_cfg.text_cfg", [1], "text_cfg: expected a JSON object"),
        ("preprocess_cfg.mean", [1, 2], "mean: expected three numbers"),
        ("preprocess_cfg.mean", [10**400, 0, 0], "mean: expected three numbers"),
        ("model_cfg.vision_cfg.a\n\x1b[2J", "b" * 1000, "a\\n\\x1b[2J="),
        ("preprocess_cfg.std", [0, 1, 1], "above zero"),
        ("preprocess_cfg.interpolation", "bilinear", "interpolation='bilinear'"),
        ("preprocess_cfg.resize_mode", "longest", "resize_mode='longest'"),
    ],
)
def test_open_clip_models_that_are_no_plain_clip_are_refused(path, value, message):
    with pytest.raises(DataError) as caught:
        architecture(OPENAI, {"open_clip_config": changed(OPEN_CLIP, path, value)})
    assert message in str(caught.value)
