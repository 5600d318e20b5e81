"""The JSON files beside an image CLIP, read and written: Hugging Face's and OpenCLIP's.

What is in no tensor's shape stands here: heads, activations, how pictures are prepared. What asks for a model that is
not plain CLIP is refused, because its tensors may have the same names. Fields: transformers' `configuration_clip.py`
and `image_processing_clip.py`, OpenCLIP's `model_configs/` and `push_to_hf_hub.py`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.model.config import HarvestConfig, Preprocessing, is_number
from harvest_jax.weights.families.architecture import HEAD_WIDTH
from harvest_jax.weights.files.limits import shown
from harvest_jax.weights.files.tensors import Tensors

BICUBIC = 3  # PIL's number, in Hugging Face's files


@dataclasses.dataclass(frozen=True)
class ClipFields:
    """What a config says beyond the shapes; a pair is the image tower's and the text tower's."""

    heads: tuple[int, int]
    activations: tuple[str, str]
    preprocessing: Preprocessing


# OpenCLIP's open_clip_config.json: {"model_cfg": {..., "vision_cfg", "text_cfg"}, "preprocess_cfg"}. Fields that are
# understood, with the values that are ours; () where any will do (it says what the shapes say, or concerns training).
_MODEL: dict[str, tuple[Any, ...]] = {
    "embed_dim": (),
    "vision_cfg": (),
    "text_cfg": (),
    "quick_gelu": (),
    "custom_text": (),
    "init_logit_scale": (),
    "output_dict": (),
}
_TOWER: dict[str, tuple[Any, ...]] = {
    "layers": (),
    "width": (),
    "mlp_ratio": (4,),
    "output_tokens": (),
    "act_kwargs": (None, {}),
    "norm_kwargs": (None, {}, {"eps": 1e-5}),
}
_IMAGE: dict[str, tuple[Any, ...]] = _TOWER | {
    "image_size": (),
    "patch_size": (),
    "head_width": (),
    "patch_dropout": (),
    "pool_type": ("tok",),
    "pos_embed_type": ("learnable",),
    "attn_pooler_queries": (),
    "attn_pooler_heads": (),
    "timm_pool": (),
    "timm_proj": (),
}
_TEXT: dict[str, tuple[Any, ...]] = _TOWER | {
    "context_length": (),
    "vocab_size": (),
    "heads": (),
    "pool_type": ("argmax",),
    "proj_type": ("linear",),
    "pad_id": (),
    "eos_id": (),
    "hf_model_pretrained": (),
}


def strange_fields(fields: Mapping[str, Any], usual: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """Fields that ask for something our towers are not; one that nobody knows is no matter as long as it is off."""
    off: tuple[Any, ...] = (None, False, 0, "", [], {})
    return [
        shown(f"{name}={value!r}")
        for name, value in fields.items()
        if (usual[name] and value not in usual[name] if name in usual else value not in off)
    ]


def read_open_clip(tensors: Tensors, image_width: int) -> ClipFields | None:
    """`open_clip_config.json` beside the tensors; None where there is none.

    Raises:
      DataError: it is malformed, or of a model that plain CLIP towers cannot be.
    """
    where = tensors.where
    if "open_clip_config" not in tensors.details:
        return None
    found = _object(tensors.details, "open_clip_config", where)
    model = _object(found, "model_cfg", where) or found
    image, text = _object(model, "vision_cfg", where), _object(model, "text_cfg", where)
    strange = strange_fields({**model, "preprocess_cfg": None}, _MODEL)
    strange += strange_fields(image, _IMAGE) + strange_fields(text, _TEXT)
    if strange:
        raise DataError(f"{where}: its open_clip_config.json asks for what plain CLIP is not: {', '.join(strange)}")
    pictures = _object(found, "preprocess_cfg", where)
    interpolation, mode = pictures.get("interpolation", "bicubic"), pictures.get("resize_mode", "shortest")
    if interpolation != "bicubic" or mode not in ("shortest", "squash"):
        raise DataError(
            f"{where}: its pictures are resized with interpolation={interpolation!r}, resize_mode={mode!r}; the "
            "resizing here is bicubic, of the shorter side or of both (shortest, squash)"
        )
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"  # OpenCLIP's default is torch's own GELU
    return ClipFields(
        heads=(image_width // _count(image, "head_width", HEAD_WIDTH, where), _count(text, "heads", 8, where)),
        activations=(activation, activation),
        preprocessing=_preprocessing(pictures, "mean", "std", mode == "squash", where),
    )


def open_clip_config(config: HarvestConfig) -> dict[str, Any]:
    """`open_clip_config.json` of the towers at one frame, as OpenCLIP's `push_to_hf_hub` writes it."""
    video, text, pictures = config.video, config.text, config.preprocessing
    return {
        "model_cfg": {
            "embed_dim": video.embed_dim,
            "quick_gelu": video.activation == "quick_gelu",
            "vision_cfg": {
                "image_size": video.image_size,
                "layers": video.layers,
                "width": video.width,
                "head_width": video.width // video.heads,
                "patch_size": video.patch_size,
            },
            "text_cfg": {
                "context_length": text.context_length,
                "vocab_size": text.vocab_size,
                "width": text.width,
                "heads": text.heads,
                "layers": text.layers,
            },
        },
        "preprocess_cfg": {
            "mean": list(pictures.mean),
            "std": list(pictures.std),
            "interpolation": "bicubic",
            "resize_mode": "squash" if pictures.resize == "squash" else "shortest",
        },
    }


def read_hugging_face(tensors: Tensors, vocab_size: int) -> ClipFields | None:
    """`config.json` and `preprocessor_config.json` beside the tensors; None where there is no config.json.

    What a config does not mention has transformers' default, which is B/32's; CLIP's preprocessing where the second
    file is missing.

    Raises:
      DataError: malformed, or of a model that plain CLIP towers cannot be.
    """
    where = tensors.where
    if "config" not in tensors.details:
        return None
    config = _object(tensors.details, "config", where)
    if config.get("model_type", "clip") != "clip":
        raise DataError(f"{where} is a {config['model_type']!r} model by its config.json, not 'clip'")
    image, text = (
        # an old config has the fields that were set in *_config_dict
        _object(config, tower, where) | _object(config, f"{tower}_dict", where)
        for tower in ("vision_config", "text_config")
    )
    for fields in (image, text):
        if not math.isclose(_float(fields, "layer_norm_eps", 1e-5, where), 1e-5):
            raise DataError(f"{where}: its norms have an epsilon of {fields['layer_norm_eps']}; CLIP's is 1e-5")
    end = text.get("eos_token_id", vocab_size - 1)
    if end != 2 and isinstance(end, int) and end < vocab_size - 1:  # 2: an old mistake that transformers works around
        raise DataError(f"{where}: its captions end with token {end}, not with the vocabulary's last as CLIP's do")
    pictures = _object(tensors.details, "preprocessor_config", where)
    if pictures.get("resample", BICUBIC) != BICUBIC:
        raise DataError(
            f"{where}: resample is {pictures['resample']!r} in its preprocessor_config.json; the resizing here is "
            f"bicubic ({BICUBIC})"
        )
    return ClipFields(
        heads=(_count(image, "num_attention_heads", 12, where), _count(text, "num_attention_heads", 8, where)),
        activations=(str(image.get("hidden_act", "quick_gelu")), str(text.get("hidden_act", "quick_gelu"))),
        preprocessing=_preprocessing(
            pictures,
            "image_mean",
            "image_std",
            _squashes(pictures, _count(image, "image_size", 224, where), where),
            where,
        ),
    )


def _squashes(pictures: Mapping[str, Any], side: int, where: str) -> bool:
    """Whether a `preprocessor_config.json` makes both sides `side` at once, or else the shorter one and then crops.

    Raises:
      DataError: it does something else, which no `Preprocessing` can say.
    """
    where = f"{where}: its preprocessor_config.json"
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if pictures.get(step, True) is not True:
            raise DataError(f"{where} has {step}={pictures[step]!r}; pictures are always resized and normalised here")
    factor = _float(pictures, "rescale_factor", 1 / 255, where)
    if not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise DataError(f"{where} has rescale_factor={factor}, not 1/255")
    size, crop = (_sides(pictures, name, side) for name in ("size", "crop_size"))
    crops = pictures.get("do_center_crop", True) is not False
    if size == (side, side) and (not crops or crop == (side, side)):
        return True
    if size == side and crops and crop in (side, (side, side)):
        return False
    raise DataError(
        f"{where} makes pictures of size {pictures.get('size')!r} with crop_size {pictures.get('crop_size')!r} "
        f"(do_center_crop {crops}); the tower sees {side} x {side}, the shorter side resized to it and the middle "
        "cropped, or both sides resized to it"
    )


def _sides(pictures: Mapping[str, Any], name: str, usual: int) -> Any:
    """What is asked for: an int for the shorter side alone, (height, width) for both, as it stands if it is neither."""
    found = pictures.get(name, usual)
    if isinstance(found, dict) and set(found) == {"shortest_edge"}:
        return found["shortest_edge"]
    return (found["height"], found["width"]) if isinstance(found, dict) and set(found) == {"height", "width"} else found


def hugging_face_config(config: HarvestConfig, dtype: str) -> dict[str, Any]:
    """`config.json` of the towers at one frame, for transformers' `CLIPModel`.

    `dtype` is that in which the tensors are stored, the widest if they differ: without it transformers takes one of
    them for all.
    """
    video, text = config.video, config.text
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "torch_dtype": dtype,
        "projection_dim": video.embed_dim,
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": video.image_size,
            "patch_size": video.patch_size,
            "hidden_size": video.width,
            "intermediate_size": 4 * video.width,
            "num_hidden_layers": video.layers,
            "num_attention_heads": video.heads,
            "hidden_act": video.activation,
            "layer_norm_eps": 1e-5,
            "projection_dim": video.embed_dim,
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "hidden_act": text.activation,
            "layer_norm_eps": 1e-5,
            "projection_dim": text.embed_dim,
            "bos_token_id": text.vocab_size - 2,
            "eos_token_id": text.vocab_size - 1,
            "pad_token_id": text.vocab_size - 1,  # its tokenizer pads with the end token; nothing sees what follows it
        },
    }


def hugging_face_preprocessor(config: HarvestConfig) -> dict[str, Any]:
    """`preprocessor_config.json` for transformers' `CLIPImageProcessor`."""
    side, pictures = config.video.image_size, config.preprocessing
    crop = pictures.resize == "crop"
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side} if crop else {"height": side, "width": side},
        "resample": BICUBIC,
        "do_center_crop": crop,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(pictures.mean),
        "image_std": list(pictures.std),
    }


# Values of strangers' files, each checked where it is taken


def _object(fields: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """A JSON object; empty where it is missing or null."""
    found = fields.get(name)
    if found is not None and not isinstance(found, dict):
        raise DataError(f"{where}: {name} should be a JSON object and is {str(found)[:60]!r}")
    return found or {}


def _count(fields: Mapping[str, Any], name: str, usual: int, where: str) -> int:
    found = fields.get(name, usual)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise DataError(f"{where}: {name} of its config should be a positive whole number and is {str(found)[:60]!r}")
    return found


def _float(fields: Mapping[str, Any], name: str, usual: float, where: str) -> float:
    found = fields.get(name, usual)
    if not is_number(found):
        raise DataError(f"{where}: {name} of its config should be a number and is {str(found)[:60]!r}")
    return float(found)


def _preprocessing(fields: Mapping[str, Any], mean: str, std: str, squash: bool, where: str) -> Preprocessing:
    usual = Preprocessing()
    values = []
    for name, known in ((mean, usual.mean), (std, usual.std)):
        found = fields.get(name) or known
        if not isinstance(found, list | tuple) or len(found) != 3 or not all(map(is_number, found)):
            raise DataError(f"{where}: {name} of its config should be three numbers and is {str(found)[:60]!r}")
        values.append((float(found[0]), float(found[1]), float(found[2])))
    if min(values[1]) <= 0:
        raise DataError(f"{where}: {std} of its config is {values[1]}; a deviation is above zero")
    return Preprocessing(values[0], values[1], "squash" if squash else "crop")
