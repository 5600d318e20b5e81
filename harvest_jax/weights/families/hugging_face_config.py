"""`config.json` and the image processor's settings beside a Hugging Face CLIP, read and written.

They give what no tensor's shape shows: heads, activations, preprocessing. A config that describes a model that
is not plain CLIP is refused, because the tensors may have the same names. Fields: transformers' `configuration_clip.py`
and `image_processing_clip.py`.

The image processor's settings stand in `preprocessor_config.json`; transformers 5 writes them into
`processor_config.json`, under "image_processor", and reads either file.
"""

import math
from collections.abc import Mapping
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.model.config import HarvestConfig, Preprocessing
from harvest_jax.terminal import printable
from harvest_jax.weights.families.json_fields import (
    LIMIT,
    ClipFields,
    finite_number,
    json_object,
    positive_integer,
    preprocessing,
)
from harvest_jax.weights.files.tensors import Tensors

BICUBIC, BILINEAR = 3, 2  # PIL's numbers for them
_GELU_TANH = "gelu_pytorch_tanh"  # transformers' name of "gelu_tanh"
# Models of transformers whose text is read by another tokenizer or tower than those that are here.
_OTHERS = {
    "chinese_clip": "its text tower is a BERT with a Chinese vocabulary",
    "metaclip_2": "its texts are read with the vocabulary of XLM-V (901,629 entries)",
    "altclip": "its text tower is an XLM-RoBERTa",
    "siglip2": "a NaFlex model, whose pictures have any shape; SigLIP 2 of a fixed size can be imported",
}


def read_hugging_face(tensors: Tensors, vocab_size: int) -> ClipFields | None:
    """The contents of the JSON files beside the tensors; None where there is no config.json.

    A field that a config does not have gets transformers' default, which is B/32's. `preprocessing` is None where
    there are no settings of an image processor.

    Raises:
      DataError: a file is malformed, describes a model that is not plain CLIP, or two files disagree.
    """
    where = tensors.where
    if "config" not in tensors.details:
        return None
    config = json_object(tensors.details, "config", where)
    if config.get("model_type", "clip") != "clip":
        raise not_imported(config, where, "clip")
    check_code(config, where)
    image, text = (
        # an old config has the fields that were set in *_config_dict
        json_object(config, tower, where) | json_object(config, f"{tower}_dict", where)
        for tower in ("vision_config", "text_config")
    )
    for fields in (image, text):
        if not math.isclose(finite_number(fields, "layer_norm_eps", 1e-5, where), 1e-5):
            raise DataError(f"{where}: its layer norms have an epsilon of {fields['layer_norm_eps']}; CLIP's is 1e-5")
    end = text.get("eos_token_id", vocab_size - 1)
    if end != 2 and isinstance(end, int) and end < vocab_size - 1:  # 2: an old mistake that transformers works around
        raise DataError(f"{where}: its captions end with token {end}; CLIP's end with the last one of the vocabulary")
    return ClipFields(
        heads=(
            positive_integer(image, "num_attention_heads", 12, where),
            positive_integer(text, "num_attention_heads", 8, where),
        ),
        activations=(activation(image, "quick_gelu"), activation(text, "quick_gelu")),
        preprocessing=read_preprocessing(tensors, positive_integer(image, "image_size", 224, where)),
    )


def check_code(config: Mapping[str, Any], where: str) -> None:
    """Raise DataError if a config names code of its own, in which the same tensors may mean something else."""
    if config.get("auto_map"):
        named = printable(repr(config["auto_map"]), LIMIT)
        raise DataError(
            f"{where}: its config.json names code of its own (auto_map {named}), which is not run here; if the towers "
            "are plain ones all the same, take auto_map out of it"
        )


def not_imported(config: Mapping[str, Any], where: str, wanted: str) -> DataError:
    """The error for a model of transformers of another type than its tensors' names say."""
    kind = printable(repr(config.get("model_type")), LIMIT)
    why = _OTHERS.get(str(config.get("model_type")))
    return DataError(f"{where} is a {kind} model by its config.json, not {wanted!r}{f': {why}' if why else ''}")


def activation(fields: Mapping[str, Any], default: str) -> str:
    """The activation of a tower's config, under this package's name where it has one."""
    found = str(fields.get("hidden_act", default))
    return "gelu_tanh" if found == _GELU_TANH else found


def _hidden_act(name: str) -> str:
    return _GELU_TANH if name == "gelu_tanh" else name


def read_preprocessing(tensors: Tensors, side: int, crops: bool = True) -> Preprocessing | None:
    """How pictures are prepared, from the files that say it; None where there are none.

    Args:
      tensors: with the files' contents.
      side: pixels that the tower sees.
      crops: whether the model's image processor crops the centre where its settings do not say.
    """
    found: dict[str, Preprocessing] = {}
    nested = json_object(tensors.details, "processor_config", tensors.where).get("image_processor")
    for file, settings in (
        ("processor_config.json", {"image_processor": nested}),
        ("preprocessor_config.json", {"image_processor": tensors.details.get("preprocessor_config")}),
    ):
        where = f"{tensors.where}/{file}"
        if settings["image_processor"] is not None:
            pictures = json_object(settings, "image_processor", where)
            found[file] = preprocessing(
                pictures, "image_mean", "image_std", _resize(pictures, side, where, crops), where
            )
    if len(set(found.values())) > 1:
        first, second = found.items()
        raise DataError(
            f"{tensors.where}: {first[0]} says {_words(first[1])}, {second[0]} says {_words(second[1])}: remove the "
            "file that is wrong"
        )
    return next(iter(found.values()), None)


def _words(pictures: Preprocessing) -> str:
    return f"resize {pictures.resize}, mean {pictures.mean}, std {pictures.std}"


def _resize(pictures: Mapping[str, Any], side: int, where: str, crops: bool) -> str:
    """How an image processor makes pictures square, one of RESIZES.

    Raises:
      DataError: it does something that `Preprocessing` cannot express.
    """
    if pictures.get("resample", BICUBIC) != BICUBIC and (crops or pictures["resample"] != BILINEAR):
        raise DataError(f"{where} has resample={pictures['resample']!r}; the resizing here is bicubic ({BICUBIC})")
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if pictures.get(step, True) is not True:
            raise DataError(f"{where} has {step}={pictures[step]!r}; pictures are always resized and normalised here")
    factor = finite_number(pictures, "rescale_factor", 1 / 255, where)
    if not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise DataError(f"{where} has rescale_factor={factor}, not 1/255")
    size, crop = (_sides(pictures, name, side) for name in ("size", "crop_size"))
    crops = crops if pictures.get("do_center_crop") is None else pictures["do_center_crop"] is not False
    if size == (side, side) and (not crops or crop == (side, side)):
        return "squash"
    if size == side and crops and crop in (side, (side, side)):
        return "crop"
    raise DataError(
        f"{where} has size={pictures.get('size')!r}, crop_size={pictures.get('crop_size')!r}, do_center_crop={crops}; "
        f"the tower sees {side} x {side} pixels: the shorter side must be resized to {side} and the centre cropped, or "
        "both sides resized to it"
    )


def _sides(pictures: Mapping[str, Any], name: str, default: int) -> Any:
    """An int if the shorter side alone is given, (height, width) if both are; any other value as it is."""
    found = pictures.get(name, default)
    if isinstance(found, dict) and set(found) == {"shortest_edge"}:
        return found["shortest_edge"]
    return (found["height"], found["width"]) if isinstance(found, dict) and set(found) == {"height", "width"} else found


def hugging_face_config(config: HarvestConfig, dtype: str) -> dict[str, Any]:
    """`config.json` of the towers at one frame, for transformers' `CLIPModel`.

    Args:
      config: of the model.
      dtype: in which the tensors are stored, the widest if they differ; without it transformers takes the first one's.
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
            "intermediate_size": video.mlp_width or 4 * video.width,
            "num_hidden_layers": video.layers,
            "num_attention_heads": video.heads,
            "hidden_act": _hidden_act(video.activation),
            "layer_norm_eps": 1e-5,
            "projection_dim": video.embed_dim,
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "hidden_size": text.width,
            "intermediate_size": text.mlp_width or 4 * text.width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "hidden_act": _hidden_act(text.activation),
            "layer_norm_eps": 1e-5,
            "projection_dim": text.embed_dim,
            "bos_token_id": text.vocab_size - 2,
            "eos_token_id": text.vocab_size - 1,
            # Its tokenizer pads with the end token; no position attends to tokens after it.
            "pad_token_id": text.vocab_size - 1,
        },
    }


def hugging_face_preprocessor(config: HarvestConfig) -> dict[str, Any]:
    """`preprocessor_config.json` for transformers' `CLIPImageProcessor`.

    transformers 4 and 5 both read this file. `processor_config.json` is not written: where it has an "image_processor",
    `CLIPProcessor.from_pretrained` of some releases of transformers 4 fails.
    """
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
