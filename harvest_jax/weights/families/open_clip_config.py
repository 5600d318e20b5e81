"""`open_clip_config.json`, the config beside an OpenCLIP model, read and written.

It gives what no tensor's shape shows: heads, activation, preprocessing. A config that describes a model that
is not plain CLIP is refused, because the tensors may have the same names. Fields: OpenCLIP's `model_configs/` and
`push_to_hf_hub.py`.
"""

from collections.abc import Mapping
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.model.config import HarvestConfig, TextConfig, VideoConfig
from harvest_jax.terminal import printable
from harvest_jax.weights.families.architecture import HEAD_WIDTH
from harvest_jax.weights.families.json_fields import ClipFields, json_object, positive_integer, preprocessing
from harvest_jax.weights.files.tensors import Tensors

# The file is {"model_cfg": {..., "vision_cfg", "text_cfg"}, "preprocess_cfg"}. Known fields, with the values that our
# towers can have; () where any value will do (the shapes say it too, or it concerns training only).
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
    "mlp_ratio": (),
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


def _unsupported_fields(fields: Mapping[str, Any], known: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """Fields that ask for something our towers cannot be. An unknown field is allowed as long as it is off."""
    off: tuple[Any, ...] = (None, False, 0, "", [], {})
    return [
        printable(f"{name}={value!r}", 120)
        for name, value in fields.items()
        if (known[name] and value not in known[name] if name in known else value not in off)
    ]


def read_open_clip(tensors: Tensors, image_width: int, trunks: tuple[str, ...] = ()) -> ClipFields | None:
    """`open_clip_config.json` beside the tensors; None if it is missing.

    Args:
      tensors: with the file's content.
      image_width: of the image tower.
      trunks: names of timm's models that the image tower may be, projected by timm's own head; (): it is OpenCLIP's.

    Raises:
      DataError: it is malformed, or of a model that plain CLIP towers cannot be.
    """
    where = tensors.where
    if "open_clip_config" not in tensors.details:
        return None
    found = json_object(tensors.details, "open_clip_config", where)
    model = json_object(found, "model_cfg", where) or found
    image, text = json_object(model, "vision_cfg", where), json_object(model, "text_cfg", where)
    unsupported = _unsupported_fields({**model, "preprocess_cfg": None}, _MODEL)
    known = _IMAGE | {"timm_model_name": trunks, "timm_pool": ("token",), "timm_proj": (None, "")} if trunks else _IMAGE
    unsupported += _unsupported_fields(image, known) + _unsupported_fields(text, _TEXT)
    if unsupported:
        raise DataError(
            f"{where}: its open_clip_config.json describes a model that is not plain CLIP: {', '.join(unsupported)}"
        )
    pictures = json_object(found, "preprocess_cfg", where)
    interpolation, mode = pictures.get("interpolation", "bicubic"), pictures.get("resize_mode", "shortest")
    if interpolation != "bicubic" or mode not in ("shortest", "squash"):
        raise DataError(
            f"{where}: its pictures are resized with interpolation={interpolation!r}, resize_mode={mode!r}; the "
            "resizing here is bicubic, of the shorter side or of both (shortest, squash)"
        )
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"  # OpenCLIP's default is torch's own GELU
    return ClipFields(
        heads=(
            image_width // positive_integer(image, "head_width", HEAD_WIDTH, where),
            positive_integer(text, "heads", 8, where),
        ),
        activations=(activation, activation),
        preprocessing=preprocessing(pictures, "mean", "std", "squash" if mode == "squash" else "crop", where),
    )


def _mlp_ratio(tower: VideoConfig | TextConfig) -> dict[str, float]:
    """OpenCLIP multiplies the width by it and cuts off what is behind the point."""
    return {"mlp_ratio": (tower.mlp_width + 0.5) / tower.width} if tower.mlp_width else {}


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
                **_mlp_ratio(video),
            },
            "text_cfg": {
                "context_length": text.context_length,
                "vocab_size": text.vocab_size,
                "width": text.width,
                "heads": text.heads,
                "layers": text.layers,
                **_mlp_ratio(text),
            },
        },
        "preprocess_cfg": {
            "mean": list(pictures.mean),
            "std": list(pictures.std),
            "interpolation": "bicubic",
            "resize_mode": "squash" if pictures.resize == "squash" else "shortest",
        },
    }
