"""SigLIP and SigLIP 2 of a fixed picture size: transformers' `SiglipModel`, and big_vision's parameter trees.

The towers differ from CLIP's in what `model/config.py` names: no class token, a bias on the patches, no norm before the
first block, epsilon 1e-6, GELU by its tanh formula; the image is pooled by a learned query (big_vision's MAPHead), the
text is read whole, padding included, and pooled at its last position. SigLIP 2 has the same towers with another
vocabulary. Names and shapes: transformers' `modeling_siglip.py`; big_vision's `models/vit.py`,
`models/proj/image_text/text_transformer.py` and `two_towers.py`. big_vision's layers are one array each ("scan": a
leading axis over the layers) or an array for each layer, "encoderblock_3".
"""

import dataclasses
import functools
import re
from typing import Any

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.model.config import HarvestConfig, Preprocessing, TextConfig, VideoConfig
from harvest_jax.weights.families.architecture import (
    GUESSED_HEADS,
    HEAD_WIDTH,
    activation_of,
    clip_config,
    count_layers,
    preprocessing_of,
    shape_of,
    side_of,
)
from harvest_jax.weights.families.conversions import (
    ATTENTION_OUT,
    LINEAR,
    ONE_FIRST,
    PATCH_KERNEL,
    PROBE,
    QKV,
    QKV_BIAS,
    UNCHANGED,
)
from harvest_jax.weights.families.family import Family, KeyMapping, Overrides
from harvest_jax.weights.families.hugging_face import hugging_face_blocks
from harvest_jax.weights.families.hugging_face_config import (
    BILINEAR,
    activation,
    check_code,
    not_imported,
    read_preprocessing,
)
from harvest_jax.weights.families.json_fields import finite_number, json_object, positive_integer
from harvest_jax.weights.families.openai import FRAMES, norm
from harvest_jax.weights.families.scenic import PATCH_KERNEL as FLAX_PATCH_KERNEL
from harvest_jax.weights.families.scenic import SEPARATE_QKV as FLAX_QKV
from harvest_jax.weights.families.scenic import SEPARATE_QKV_BIAS as FLAX_QKV_BIAS
from harvest_jax.weights.files.tensors import Tensors

EPS = 1e-6
MOST_LAYERS = 1000  # of a tower, before a name is made for each
PICTURES = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash")  # of all published models
HEADS = {1152: 16, 1536: 16}  # of So400m and g-opt, by width; others have heads of 64


def _towers(
    where: str, image: dict[str, Any], text: dict[str, Any], overrides: Overrides, activations: tuple[str, str]
) -> tuple[VideoConfig, TextConfig]:
    """Both configs from what was read of each tower: its sizes by the names of the configs' fields."""
    for tower, sizes in (("image", image), ("text", text)):
        if sizes["width"] % sizes["heads"]:
            raise DataError(f"{where}: a {tower} tower of width {sizes['width']} cannot have {sizes['heads']} heads")
        if sizes["mlp_width"] == 4 * sizes["width"]:
            sizes["mlp_width"] = 0
    kinds = [activation_of(overrides, known, where) for known in activations]
    video = VideoConfig(
        **image,
        num_frames=1,
        embed_dim=image["width"],
        activation=kinds[0],
        norm_eps=EPS,
        class_token=False,
        patch_bias=True,
        pre_norm=False,
        pooling="attention",
        projection=False,
    )
    words = TextConfig(
        **text,
        activation=kinds[1],
        norm_eps=EPS,
        causal=False,
        pooling="last",
        projection_bias=True,
    )
    if words.embed_dim != video.width:
        raise DataError(
            f"{where}: its text embeddings have {words.embed_dim} numbers and its image embeddings {video.width}"
        )
    return video, words


def _model(video: VideoConfig, text: TextConfig, pictures: Preprocessing) -> HarvestConfig:
    return dataclasses.replace(clip_config(video, text, pictures), logit_bias=True)


# transformers


_HUGGING_FACE = (
    KeyMapping("video/patch_embedding/kernel", ("vision_model.embeddings.patch_embedding.weight",), PATCH_KERNEL),
    KeyMapping("video/patch_embedding/bias", ("vision_model.embeddings.patch_embedding.bias",), UNCHANGED),
    KeyMapping("video/spatial_embedding", ("vision_model.embeddings.position_embedding.weight",), UNCHANGED),
    *hugging_face_blocks("video", "vision_model"),
    *norm("video/ln_post", "vision_model.post_layernorm"),
    KeyMapping("video/pooling/query_embedding", ("vision_model.head.probe",), PROBE),
    KeyMapping("video/pooling/qkv_kernel", ("vision_model.head.attention.in_proj_weight",), QKV),
    KeyMapping("video/pooling/qkv_bias", ("vision_model.head.attention.in_proj_bias",), QKV_BIAS),
    KeyMapping("video/pooling/out/kernel", ("vision_model.head.attention.out_proj.weight",), ATTENTION_OUT),
    KeyMapping("video/pooling/out/bias", ("vision_model.head.attention.out_proj.bias",), UNCHANGED),
    *norm("video/pooling/norm", "vision_model.head.layernorm"),
    KeyMapping("video/pooling/mlp/c_fc/kernel", ("vision_model.head.mlp.fc1.weight",), LINEAR),
    KeyMapping("video/pooling/mlp/c_fc/bias", ("vision_model.head.mlp.fc1.bias",), UNCHANGED),
    KeyMapping("video/pooling/mlp/c_proj/kernel", ("vision_model.head.mlp.fc2.weight",), LINEAR),
    KeyMapping("video/pooling/mlp/c_proj/bias", ("vision_model.head.mlp.fc2.bias",), UNCHANGED),
    KeyMapping("text/token_embedding/embedding", ("text_model.embeddings.token_embedding.weight",), UNCHANGED),
    KeyMapping("text/positional_embedding", ("text_model.embeddings.position_embedding.weight",), UNCHANGED),
    *hugging_face_blocks("text", "text_model"),
    *norm("text/ln_final", "text_model.final_layer_norm"),
    KeyMapping("text/text_projection/kernel", ("text_model.head.weight",), LINEAR),
    KeyMapping("text/text_projection/bias", ("text_model.head.bias",), UNCHANGED),
    KeyMapping("logit_scale", ("logit_scale",), ONE_FIRST),
    KeyMapping("logit_bias", ("logit_bias",), ONE_FIRST),
)


def _hugging_face_architecture(tensors: Tensors, overrides: Overrides) -> HarvestConfig:
    where = tensors.where
    width, _, patch, _ = shape_of(tensors, "vision_model.embeddings.patch_embedding.weight", 4)
    cells, _ = shape_of(tensors, "vision_model.embeddings.position_embedding.weight", 2)
    vocab_size, text_width = shape_of(tensors, "text_model.embeddings.token_embedding.weight", 2)
    config = json_object(tensors.details, "config", where)
    if config.get("model_type", "siglip") != "siglip":
        raise not_imported(config, where, "siglip")
    check_code(config, where)
    fields = json_object(config, "vision_config", where), json_object(config, "text_config", where)
    for tower in fields:
        if finite_number(tower, "layer_norm_eps", EPS, where) != EPS:
            raise DataError(f"{where}: its layer norms have an epsilon of {tower['layer_norm_eps']}; SigLIP's is {EPS}")
    given = ("heads", "layers", "mlp_width", "width")
    image, text = (
        dict(
            zip(
                given,
                (
                    positive_integer(tower, "num_attention_heads", heads_of(wide), where),
                    count_layers(tensors, f"{name}.encoder.layers."),
                    shape_of(tensors, f"{name}.encoder.layers.0.mlp.fc1.weight", 2)[0],
                    wide,
                ),
                strict=True,
            )
        )
        for name, tower, wide in (("vision_model", fields[0], width), ("text_model", fields[1], text_width))
    )
    side = side_of(where, cells) * patch
    image |= {"image_size": side, "patch_size": patch}
    text |= {
        "vocab_size": vocab_size,
        "context_length": shape_of(tensors, "text_model.embeddings.position_embedding.weight", 2)[0],
        "embed_dim": shape_of(tensors, "text_model.head.weight", 2)[0],
    }
    kinds = activation(fields[0], "gelu_pytorch_tanh"), activation(fields[1], "gelu_pytorch_tanh")
    pictures = read_preprocessing(tensors, side, crops=False)
    known = pictures or (None if "config" in tensors.details else PICTURES)
    return _model(*_towers(where, image, text, overrides, kinds), preprocessing_of(overrides, known, where))


def heads_of(width: int) -> int:
    """Heads of a tower whose checkpoint does not say their number."""
    return HEADS.get(width, max(1, width // HEAD_WIDTH))


def _hugging_face_notes(tensors: Tensors, overrides: Overrides) -> list[str]:
    notes = [] if "config" in tensors.details else [GUESSED_HEADS, _ASSUMED_PICTURES]
    pictures = json_object(tensors.details, "preprocessor_config", tensors.where)
    nested = json_object(json_object(tensors.details, "processor_config", tensors.where), "image_processor", "")
    if BILINEAR in (pictures.get("resample"), nested.get("resample")):
        notes.append(
            "its pictures were resized with a bilinear filter in training; here they are resized bicubically, so that "
            "embeddings of pictures of other sizes differ a little"
        )
    return notes


_ASSUMED_PICTURES = "the file does not say how its pictures were prepared: SigLIP's preprocessing is assumed"

HUGGING_FACE_SIGLIP = Family(
    name="Hugging Face SigLIP",
    recognise=lambda tensors: (
        {"vision_model.head.probe", "text_model.embeddings.token_embedding.weight"} <= set(tensors.entries)
    ),
    architecture=_hugging_face_architecture,
    mappings=lambda config: _HUGGING_FACE,
    ignored=("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"),
    zeros=(FRAMES,),
    own_tokenizer=True,
    notes=_hugging_face_notes,
)


# big_vision


def _attention(our: str, their: str, qkv: tuple[str, str], out: str) -> tuple[KeyMapping, ...]:
    their = f"{their}/MultiHeadDotProductAttention_0"
    parts = ("query", "key", "value")
    return (
        KeyMapping(f"{our}/{qkv[0]}", tuple(f"{their}/{part}/kernel" for part in parts), FLAX_QKV),
        KeyMapping(f"{our}/{qkv[1]}", tuple(f"{their}/{part}/bias" for part in parts), FLAX_QKV_BIAS),
        KeyMapping(f"{our}/{out}/kernel", (f"{their}/out/kernel",), UNCHANGED),
        KeyMapping(f"{our}/{out}/bias", (f"{their}/out/bias",), UNCHANGED),
    )


def _leaves(our: str, their: str, leaves: tuple[str, str]) -> tuple[KeyMapping, ...]:
    return tuple(KeyMapping(f"{our}/{leaf}", (f"{their}/{leaf}",), UNCHANGED) for leaf in leaves)


def _mlp(our: str, their: str) -> tuple[KeyMapping, ...]:
    return (
        *_leaves(f"{our}/c_fc", f"{their}/MlpBlock_0/Dense_0", ("kernel", "bias")),
        *_leaves(f"{our}/c_proj", f"{their}/MlpBlock_0/Dense_1", ("kernel", "bias")),
    )


def _blocks(our: str, their: str) -> tuple[KeyMapping, ...]:
    our, their = f"{our}/transformer/blocks", f"{their}/encoderblock_{{layer}}"
    return (
        *_leaves(f"{our}/ln_1", f"{their}/LayerNorm_0", ("scale", "bias")),
        *_attention(our, their, ("attn/qkv/kernel", "attn/qkv/bias"), "attn/out"),
        *_leaves(f"{our}/ln_2", f"{their}/LayerNorm_1", ("scale", "bias")),
        *_mlp(f"{our}/mlp", their),
    )


_POOL = "img/MAPHead_0"
_BIG_VISION = (
    KeyMapping("video/patch_embedding/kernel", ("img/embedding/kernel",), FLAX_PATCH_KERNEL),
    KeyMapping("video/patch_embedding/bias", ("img/embedding/bias",), UNCHANGED),
    KeyMapping("video/spatial_embedding", ("img/pos_embedding",), ONE_FIRST),
    *_blocks("video", "img/Transformer"),
    *_leaves("video/ln_post", "img/Transformer/encoder_norm", ("scale", "bias")),
    KeyMapping("video/pooling/query_embedding", (f"{_POOL}/probe",), PROBE),
    *_attention("video/pooling", _POOL, ("qkv_kernel", "qkv_bias"), "out"),
    *_leaves("video/pooling/norm", f"{_POOL}/LayerNorm_0", ("scale", "bias")),
    *_mlp("video/pooling/mlp", _POOL),
    KeyMapping("text/token_embedding/embedding", ("txt/Embed_0/embedding",), UNCHANGED),
    KeyMapping("text/positional_embedding", ("txt/pos_embedding",), ONE_FIRST),
    *_blocks("text", "txt/Encoder_0"),
    *_leaves("text/ln_final", "txt/Encoder_0/encoder_norm", ("scale", "bias")),
    *_leaves("text/text_projection", "txt/head", ("kernel", "bias")),
    KeyMapping("logit_scale", ("t",), ONE_FIRST),
    KeyMapping("logit_bias", ("b",), ONE_FIRST),
)
_SCANNED = re.compile(r"^(img/Transformer|txt/Encoder_0)/encoderblock/")


def _big_vision_architecture(tensors: Tensors, overrides: Overrides) -> HarvestConfig:
    where = tensors.where
    if "txt/head/kernel" not in tensors.entries:
        raise DataError(
            f"{where} has no projection of its text tower (txt/head), as SigLIP's multilingual B/16@256: get it in "
            "transformers' form, which has one"
        )
    patch, _, _, width = shape_of(tensors, "img/embedding/kernel", 4)
    _, cells, _ = shape_of(tensors, "img/pos_embedding", 3)
    vocab_size, text_width = shape_of(tensors, "txt/Embed_0/embedding", 2)
    image, text = (
        {
            "width": wide,
            "layers": count_layers(tensors, f"{blocks}/encoderblock_", "/"),
            "heads": shape_of(tensors, f"{blocks}/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel", 3)[1],
            "mlp_width": shape_of(tensors, f"{blocks}/encoderblock_0/MlpBlock_0/Dense_0/kernel", 2)[1],
        }
        for blocks, wide in (("img/Transformer", width), ("txt/Encoder_0", text_width))
    )
    image |= {"image_size": side_of(where, cells) * patch, "patch_size": patch}
    text |= {
        "vocab_size": vocab_size,
        "context_length": shape_of(tensors, "txt/pos_embedding", 3)[1],
        "embed_dim": shape_of(tensors, "txt/head/kernel", 2)[1],
    }
    towers = _towers(where, image, text, overrides, ("gelu_tanh", "gelu_tanh"))
    return _model(*towers, preprocessing_of(overrides, PICTURES, where))


BIG_VISION_SIGLIP = Family(
    name="big_vision SigLIP",
    recognise=lambda tensors: {"img/MAPHead_0/probe", "txt/Embed_0/embedding"} <= set(tensors.entries),
    architecture=_big_vision_architecture,
    mappings=lambda config: _BIG_VISION,
    zeros=(FRAMES,),
    own_tokenizer=True,
    notes=lambda tensors, overrides: [_ASSUMED_PICTURES],
)


def unscanned(tensors: Tensors) -> Tensors | None:
    """big_vision's tensors with a name for each layer, where one array holds all layers; None for others."""
    stacked = {name: entry.shape[0] for name, entry in tensors.entries.items() if _SCANNED.match(name) and entry.shape}
    if not stacked or max(stacked.values()) > MOST_LAYERS:
        return None
    place: dict[str, tuple[str, int | None]] = {name: (name, None) for name in tensors.entries if name not in stacked}
    for name, layers in stacked.items():
        for layer in range(layers):
            place[name.replace("/encoderblock/", f"/encoderblock_{layer}/")] = name, layer
    entries = {
        new: dataclasses.replace(tensors.entries[old], shape=tensors.entries[old].shape[0 if layer is None else 1 :])
        for new, (old, layer) in place.items()
    }
    kept = functools.lru_cache(maxsize=1)(tensors.read)  # a layer is asked for after the other

    def read(name: str) -> np.ndarray:
        old, layer = place[name]
        return tensors.read(old) if layer is None else kept(old)[layer]

    return dataclasses.replace(tensors, entries=entries, read=read)
