"""This package's video model as a Hugging Face folder: the names of `hf_video/modeling_harvest.py`, and its JSON files.

The same files are written and read here. The code in the folder is not run when it is read.
"""

import json
from pathlib import Path
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.model.config import IMAGE_MODEL_FRAMES, HarvestConfig
from harvest_jax.terminal import printable
from harvest_jax.weights.families.conversions import ATTENTION_OUT, LINEAR, QKV, QKV_BIAS, UNCHANGED
from harvest_jax.weights.families.family import Family, KeyMapping, Overrides
from harvest_jax.weights.families.native import config_of, overridden
from harvest_jax.weights.families.openai import norm
from harvest_jax.weights.files.open_checkpoint import read_json
from harvest_jax.weights.files.tensors import Tensors

TOKENIZER = "tokenizer.json"
MODEL_TYPE = "harvest_video"
AUTO_MAP = {
    "AutoConfig": "modeling_harvest.HarvestVideoConfig",
    "AutoModel": "modeling_harvest.HarvestVideoModel",
    "AutoProcessor": "processing_harvest.HarvestVideoProcessor",
    "AutoTokenizer": [None, "processing_harvest.HarvestVideoTokenizer"],  # no slow one, a fast one
}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers_harvest.HarvestVideoEncoder"},
]


def _blocks(tower: str) -> tuple[KeyMapping, ...]:
    our, their = f"{tower}/transformer/blocks", f"{tower}.blocks.{{layer}}"
    return (
        *norm(f"{our}/ln_1", f"{their}.norm_1"),
        KeyMapping(f"{our}/attn/qkv/kernel", (f"{their}.attention.qkv.weight",), QKV),
        KeyMapping(f"{our}/attn/qkv/bias", (f"{their}.attention.qkv.bias",), QKV_BIAS),
        KeyMapping(f"{our}/attn/out/kernel", (f"{their}.attention.out.weight",), ATTENTION_OUT),
        KeyMapping(f"{our}/attn/out/bias", (f"{their}.attention.out.bias",), UNCHANGED),
        *norm(f"{our}/ln_2", f"{their}.norm_2"),
        KeyMapping(f"{our}/mlp/c_fc/kernel", (f"{their}.mlp.wide.weight",), LINEAR),
        KeyMapping(f"{our}/mlp/c_fc/bias", (f"{their}.mlp.wide.bias",), UNCHANGED),
        KeyMapping(f"{our}/mlp/c_proj/kernel", (f"{their}.mlp.back.weight",), LINEAR),
        KeyMapping(f"{our}/mlp/c_proj/bias", (f"{their}.mlp.back.bias",), UNCHANGED),
    )


_MAPPINGS = (
    KeyMapping("video/patch_embedding/kernel", ("video.patch_embedding.weight",), LINEAR),
    KeyMapping("video/class_embedding", ("video.class_embedding",), UNCHANGED),
    KeyMapping("video/spatial_embedding", ("video.spatial_embedding",), UNCHANGED),
    KeyMapping("video/temporal_embedding", ("video.temporal_embedding",), UNCHANGED),
    *norm("video/ln_pre", "video.norm_pre"),
    *_blocks("video"),
    *norm("video/ln_post", "video.norm_post"),
    KeyMapping("video/proj/kernel", ("video.projection.weight",), LINEAR),
    KeyMapping("text/token_embedding/embedding", ("text.token_embedding.weight",), UNCHANGED),
    KeyMapping("text/positional_embedding", ("text.positional_embedding",), UNCHANGED),
    *_blocks("text"),
    *norm("text/ln_final", "text.norm_final"),
    KeyMapping("text/text_projection/kernel", ("text.projection.weight",), LINEAR),
    KeyMapping("logit_scale", ("logit_scale",), UNCHANGED),
)


def hf_video_files(config: HarvestConfig, dtype: str) -> dict[str, Any]:
    """The JSON files beside the tensors, by name.

    Args:
      config: of the model.
      dtype: in which the tensors are stored, the widest if they differ.
    """
    values, pictures = config.to_dict(), config.preprocessing
    end, start = "<|endoftext|>", "<|startoftext|>"
    return {
        "config.json": {
            "architectures": ["HarvestVideoModel"],
            "model_type": MODEL_TYPE,
            "auto_map": AUTO_MAP,
            "dtype": dtype,
            "size": config.name,
            "video_tower": values["video"],
            "text_tower": values["text"],
            "preprocessing": values["preprocessing"],
        },
        "processor_config.json": {
            "processor_class": "HarvestVideoProcessor",
            "auto_map": {"AutoProcessor": AUTO_MAP["AutoProcessor"]},
            "num_frames": config.video.num_frames if config.video.num_frames > 1 else IMAGE_MODEL_FRAMES,
            "image_size": config.video.image_size,
            "resize": pictures.resize,
            "image_mean": pictures.mean,
            "image_std": pictures.std,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "HarvestVideoTokenizer",
            "auto_map": {"AutoTokenizer": AUTO_MAP["AutoTokenizer"]},
            "model_max_length": config.text.context_length,
            "bos_token": start,
            "eos_token": end,
            "unk_token": end,
            "pad_token": end,
        },
        TOKENIZER: Tokenizer(config.text.vocab_size).hugging_face(),
        "modules.json": MODULES,
    }


def _architecture(tensors: Tensors, overrides: Overrides) -> HarvestConfig:
    where, details = tensors.where, tensors.details
    found = details.get("config", {})
    if found.get("model_type") != MODEL_TYPE:
        raise DataError(
            f"{where} has the tensors of an hf_video folder of this package, but no config.json of one beside it: give "
            "the whole folder"
        )
    _check_code(where, found.get("auto_map"))
    values = {
        "name": found.get("size", MODEL_TYPE),
        "video": found.get("video_tower"),
        "text": found.get("text_tower"),
        "decoder": None,
        "preprocessing": found.get("preprocessing", {}),
    }
    config = overridden(config_of(lambda: values, where), overrides)
    if "processor_config" in details:
        _check_processor(where, details["processor_config"], values, config, overrides)
    if (Path(where) / TOKENIZER).is_file():
        _check_tokenizer(where, read_json(Path(where) / TOKENIZER), config.text.vocab_size)
    return config


def _check_code(where: str, auto_map: Any) -> None:
    """Refuse a folder whose config names other code than ours: its tensors may mean something else there."""
    other = auto_map if not isinstance(auto_map, dict) else {n: c for n, c in auto_map.items() if AUTO_MAP.get(n) != c}
    if other or other is None:
        raise DataError(
            f"{where}: the auto_map of its config.json names other code than this package's "
            f"({printable(json.dumps(other), 200)}), which is neither read nor run here; if its tensors are meant for "
            f"modeling_harvest.py, set auto_map to {json.dumps(AUTO_MAP)}"
        )


def _check_processor(
    where: str, processor: dict[str, Any], values: dict[str, Any], config: HarvestConfig, overrides: Overrides
) -> None:
    """Refuse a processor that prepares pictures in another way than the model's config says."""
    pictures = {
        "mean": processor.get("image_mean"),
        "std": processor.get("image_std"),
        "resize": processor.get("resize"),
    }
    theirs = overridden(config_of(lambda: values | {"preprocessing": pictures}, where), overrides).preprocessing
    if theirs != config.preprocessing:
        ours = config.preprocessing
        raise DataError(
            f"{where}: processor_config.json prepares pictures with resize {theirs.resize}, mean {theirs.mean}, std "
            f"{theirs.std}; config.json says that the model was trained with resize {ours.resize}, mean {ours.mean}, "
            f"std {ours.std}: correct the file that is wrong, or give --resize, --mean and --std"
        )
    if processor.get("image_size") != config.video.image_size:
        raise DataError(
            f"{where}: processor_config.json makes squares of {printable(processor.get('image_size'), 60)} pixels; "
            f"the model's have {config.video.image_size}"
        )


def _check_tokenizer(where: str, found: dict[str, Any], vocab_size: int) -> None:
    """Refuse a tokenizer whose words have other numbers than the model learnt."""
    wanted = Tokenizer(vocab_size).hugging_face()["model"] if 514 <= vocab_size <= 49408 else {}
    model = found.get("model")
    if not isinstance(model, dict) or any(model.get(part) != wanted.get(part) for part in ("vocab", "merges")):
        raise DataError(
            f"{where}: {TOKENIZER} is not the model's tokenizer, which is CLIP's with the first {vocab_size} entries: "
            "the ids of its words would mean other words"
        )


HF_VIDEO = Family(
    name="harvest_jax for transformers",
    recognise=lambda tensors: {"video.patch_embedding.weight", "text.token_embedding.weight"} <= set(tensors.entries),
    architecture=_architecture,
    mappings=lambda config: _MAPPINGS,
)
