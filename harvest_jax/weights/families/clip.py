"""The key tables of image CLIPs: OpenAI's names (which OpenCLIP kept), Hugging Face's, and our own.

OpenAI's names are those of the modules in its `clip/model.py`; OpenCLIP's `CustomTextCLIP` has those of the text tower
under `text.`. Hugging Face's are those of transformers' `CLIPModel`.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from harvest_jax.errors import DataError
from harvest_jax.model.config import HarvestConfig, Preprocessing
from harvest_jax.weights.families.architecture import (
    TowerShape,
    activation_of,
    config_from_towers,
    count_layers,
    heads_of,
    shape_of,
)
from harvest_jax.weights.families.clip_configs import read_hugging_face, read_open_clip
from harvest_jax.weights.families.table import (
    ATTENTION_OUT,
    CONV,
    LINEAR,
    QKV,
    QKV_BIAS,
    SAME,
    THREE_BIASES,
    THREE_KERNELS,
    Family,
    Row,
    parameter_shapes,
)
from harvest_jax.weights.files.tensors import Tensors

FRAMES = "video/temporal_embedding"  # image models have no such table: zeros


def norm(our: str, their: str) -> tuple[Row, Row]:
    """Both parameters of a layer norm."""
    return Row(f"{our}/scale", (f"{their}.weight",), SAME), Row(f"{our}/bias", (f"{their}.bias",), SAME)


# OpenAI and OpenCLIP


def openai_blocks(our: str, their: str) -> tuple[Row, ...]:
    """The blocks of one tower: `our` the tower, `their` what stands before `transformer`."""
    our, their = f"{our}/transformer/blocks", f"{their}transformer.resblocks.{{layer}}"
    return (
        *norm(f"{our}/ln_1", f"{their}.ln_1"),
        Row(f"{our}/attn/qkv/kernel", (f"{their}.attn.in_proj_weight",), QKV),
        Row(f"{our}/attn/qkv/bias", (f"{their}.attn.in_proj_bias",), QKV_BIAS),
        Row(f"{our}/attn/out/kernel", (f"{their}.attn.out_proj.weight",), ATTENTION_OUT),
        Row(f"{our}/attn/out/bias", (f"{their}.attn.out_proj.bias",), SAME),
        *norm(f"{our}/ln_2", f"{their}.ln_2"),
        Row(f"{our}/mlp/c_fc/kernel", (f"{their}.mlp.c_fc.weight",), LINEAR),
        Row(f"{our}/mlp/c_fc/bias", (f"{their}.mlp.c_fc.bias",), SAME),
        Row(f"{our}/mlp/c_proj/kernel", (f"{their}.mlp.c_proj.weight",), LINEAR),
        Row(f"{our}/mlp/c_proj/bias", (f"{their}.mlp.c_proj.bias",), SAME),
    )


def _openai_rows(text: str) -> tuple[Row, ...]:
    """OpenAI's names; `text` stands before those of the text tower."""
    return (
        Row("video/patch_embedding/kernel", ("visual.conv1.weight",), CONV),
        Row("video/class_embedding", ("visual.class_embedding",), SAME),
        Row("video/spatial_embedding", ("visual.positional_embedding",), SAME),
        *norm("video/ln_pre", "visual.ln_pre"),
        *openai_blocks("video", "visual."),
        *norm("video/ln_post", "visual.ln_post"),
        Row("video/proj/kernel", ("visual.proj",), SAME),  # already [in, out]
        Row("text/token_embedding/embedding", (f"{text}token_embedding.weight",), SAME),
        Row("text/positional_embedding", (f"{text}positional_embedding",), SAME),
        *openai_blocks("text", text),
        *norm("text/ln_final", f"{text}ln_final"),
        Row("text/text_projection/kernel", (f"{text}text_projection",), SAME),
        Row("logit_scale", ("logit_scale",), SAME),
    )


_OPENAI_ROWS, _CUSTOM_TEXT_ROWS = _openai_rows(""), _openai_rows("text.")


def _openai_architecture(tensors: Tensors, activation: str | None, text: str) -> HarvestConfig:
    if any(name.startswith(("visual.layer1.", "visual.trunk.")) for name in tensors.entries):
        raise DataError(
            f"{tensors.where} has an image tower that is not CLIP's vision transformer (a ResNet, or a timm model): "
            "only ViT models can be imported"
        )
    width, _, patch, _ = shape_of(tensors, "visual.conv1.weight", 4)
    vocab_size, text_width = shape_of(tensors, f"{text}token_embedding.weight", 2)
    fields = read_open_clip(tensors, width)
    heads = fields.heads if fields else (heads_of(width, image=True), heads_of(text_width, image=False))
    known = fields.activations[0] if fields else None
    # The form in which OpenAI published its own models, and a number that its archives alone keep as a tensor.
    if "TorchScript" in tensors.kind and "input_resolution" in tensors.details:
        known = "quick_gelu"
    acting = activation_of(activation, known, tensors.where)
    return config_from_towers(
        tensors.where,
        TowerShape(
            width=width,
            layers=count_layers(tensors, "visual.transformer.resblocks."),
            heads=heads[0],
            hidden=shape_of(tensors, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
            table=shape_of(tensors, "visual.positional_embedding", 2)[0],
        ),
        TowerShape(
            width=text_width,
            layers=count_layers(tensors, f"{text}transformer.resblocks."),
            heads=heads[1],
            hidden=shape_of(tensors, f"{text}transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
            table=shape_of(tensors, f"{text}positional_embedding", 2)[0],
        ),
        patch_size=patch,
        embed_dim=shape_of(tensors, "visual.proj", 2)[1],
        vocab_size=vocab_size,
        activations=(acting, acting),
        preprocessing=fields.preprocessing if fields else Preprocessing(),
    )


def _has_openai_names(tensors: Tensors, text: str) -> bool:
    return f"{text}token_embedding.weight" in tensors.entries and any(
        name.startswith("visual.") for name in tensors.entries
    )


OPENAI = Family(
    name="OpenAI CLIP or OpenCLIP",
    recognise=lambda tensors: _has_openai_names(tensors, ""),
    architecture=lambda tensors, activation: _openai_architecture(tensors, activation, ""),
    rows=lambda config: _OPENAI_ROWS,
    # numbers that OpenAI's archives keep as tensors, and the causal mask (a buffer, or a constant of each block)
    ignored=(
        "input_resolution",
        "context_length",
        "vocab_size",
        "attn_mask",
        "transformer.attn_mask",
        "transformer.resblocks.{layer}.attn_mask",
    ),
    zeros=(FRAMES,),
)

OPEN_CLIP_TEXT = Family(
    name="OpenCLIP with its text tower apart (CustomTextCLIP)",
    recognise=lambda tensors: _has_openai_names(tensors, "text."),
    architecture=lambda tensors, activation: _openai_architecture(tensors, activation, "text."),
    rows=lambda config: _CUSTOM_TEXT_ROWS,
    ignored=("text.attn_mask", "text.transformer.resblocks.{layer}.attn_mask"),
    zeros=(FRAMES,),
)


# Hugging Face


def _hugging_face_blocks(our: str, their: str) -> tuple[Row, ...]:
    our, their = f"{our}/transformer/blocks", f"{their}.encoder.layers.{{layer}}"
    parts = tuple(f"{their}.self_attn.{part}_proj" for part in "qkv")
    return (
        *norm(f"{our}/ln_1", f"{their}.layer_norm1"),
        Row(f"{our}/attn/qkv/kernel", tuple(f"{part}.weight" for part in parts), THREE_KERNELS),
        Row(f"{our}/attn/qkv/bias", tuple(f"{part}.bias" for part in parts), THREE_BIASES),
        Row(f"{our}/attn/out/kernel", (f"{their}.self_attn.out_proj.weight",), ATTENTION_OUT),
        Row(f"{our}/attn/out/bias", (f"{their}.self_attn.out_proj.bias",), SAME),
        *norm(f"{our}/ln_2", f"{their}.layer_norm2"),
        Row(f"{our}/mlp/c_fc/kernel", (f"{their}.mlp.fc1.weight",), LINEAR),
        Row(f"{our}/mlp/c_fc/bias", (f"{their}.mlp.fc1.bias",), SAME),
        Row(f"{our}/mlp/c_proj/kernel", (f"{their}.mlp.fc2.weight",), LINEAR),
        Row(f"{our}/mlp/c_proj/bias", (f"{their}.mlp.fc2.bias",), SAME),
    )


_HUGGING_FACE_ROWS = (
    Row("video/patch_embedding/kernel", ("vision_model.embeddings.patch_embedding.weight",), CONV),
    Row("video/class_embedding", ("vision_model.embeddings.class_embedding",), SAME),
    Row("video/spatial_embedding", ("vision_model.embeddings.position_embedding.weight",), SAME),
    *norm("video/ln_pre", "vision_model.pre_layrnorm"),  # its own spelling
    *_hugging_face_blocks("video", "vision_model"),
    *norm("video/ln_post", "vision_model.post_layernorm"),
    Row("video/proj/kernel", ("visual_projection.weight",), LINEAR),
    Row("text/token_embedding/embedding", ("text_model.embeddings.token_embedding.weight",), SAME),
    Row("text/positional_embedding", ("text_model.embeddings.position_embedding.weight",), SAME),
    *_hugging_face_blocks("text", "text_model"),
    *norm("text/ln_final", "text_model.final_layer_norm"),
    Row("text/text_projection/kernel", ("text_projection.weight",), LINEAR),
    Row("logit_scale", ("logit_scale",), SAME),
)


def _hugging_face_architecture(tensors: Tensors, activation: str | None) -> HarvestConfig:
    width, _, patch, _ = shape_of(tensors, "vision_model.embeddings.patch_embedding.weight", 4)
    vocab_size, text_width = shape_of(tensors, "text_model.embeddings.token_embedding.weight", 2)
    fields = read_hugging_face(tensors, vocab_size)
    heads = fields.heads if fields else (heads_of(width, image=True), heads_of(text_width, image=False))
    known = fields.activations if fields else (None, None)
    return config_from_towers(
        tensors.where,
        TowerShape(
            width=width,
            layers=count_layers(tensors, "vision_model.encoder.layers."),
            heads=heads[0],
            hidden=shape_of(tensors, "vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
            table=shape_of(tensors, "vision_model.embeddings.position_embedding.weight", 2)[0],
        ),
        TowerShape(
            width=text_width,
            layers=count_layers(tensors, "text_model.encoder.layers."),
            heads=heads[1],
            hidden=shape_of(tensors, "text_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
            table=shape_of(tensors, "text_model.embeddings.position_embedding.weight", 2)[0],
        ),
        patch_size=patch,
        embed_dim=shape_of(tensors, "visual_projection.weight", 2)[0],
        vocab_size=vocab_size,
        activations=(
            activation_of(activation, known[0], tensors.where),
            activation_of(activation, known[1], tensors.where),
        ),
        preprocessing=fields.preprocessing if fields else Preprocessing(),
    )


HUGGING_FACE = Family(
    name="Hugging Face CLIP",
    recognise=lambda tensors: (
        {"text_model.embeddings.token_embedding.weight", "vision_model.embeddings.patch_embedding.weight"}
        <= set(tensors.entries)
    ),
    architecture=_hugging_face_architecture,
    rows=lambda config: _HUGGING_FACE_ROWS,
    ignored=("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"),
    zeros=(FRAMES,),
)


# Our own


HEADER = "harvest_jax_config"  # key of a safetensors header under which an exported file says what its towers are


def header_config(tensors: Tensors) -> HarvestConfig | None:
    """What an exported file says of its towers, whatever names its tensors have; None where it says nothing.

    Raises:
      DataError: it says something else than a config of this package.
    """
    text = tensors.details.get("metadata", {}).get(HEADER)
    return None if text is None else _config_of(lambda: json.loads(text), tensors.where)


def _config_of(values: Callable[[], Any], where: str) -> HarvestConfig:
    try:
        return HarvestConfig.from_dict(values())
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{where} is of this package by its names, but neither its header nor a config.json beside it says what "
            f"the towers are: {error!r:.200}"
        ) from error


def with_activation(config: HarvestConfig, activation: str | None) -> HarvestConfig:
    """The towers with the activation that the user named, or as they are."""
    if activation is None:
        return config
    video = dataclasses.replace(config.video, activation=activation)
    return dataclasses.replace(config, video=video, text=dataclasses.replace(config.text, activation=activation))


def _our_architecture(tensors: Tensors, activation: str | None) -> HarvestConfig:
    config = header_config(tensors) or _config_of(lambda: tensors.details["config"]["model"], tensors.where)
    return with_activation(config, activation)


OURS = Family(
    name="harvest_jax",
    recognise=lambda tensors: {"video/spatial_embedding", "text/positional_embedding"} <= set(tensors.entries),
    architecture=_our_architecture,
    rows=lambda config: tuple(Row(name, (name,), SAME) for name in parameter_shapes(config)),
)
