"""EVA-02-CLIP, B/16 and L/14: OpenCLIP's `CustomTextCLIP` with timm's `eva02_*_clip`, and EVA-CLIP's own files.

The image tower has rotary positions, which are those of a grid of 16 x 16 whatever the picture's size, a gated MLP, a
norm before the last matrix of attention and of the MLP, no bias of the keys, and a bias of the projection. Names and
shapes: timm's `models/eva.py`; `eva_clip/eva_vit_model.py` of baaivision/EVA, whose names are changed to timm's first.
E/14 is another tower, which is refused.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.model.config import GATED, HarvestConfig, Preprocessing
from harvest_jax.weights.families.architecture import (
    GUESSED_HEADS,
    TowerShape,
    clip_config,
    count_layers,
    heads_of,
    preprocessing_of,
    read_tower,
    shape_of,
    text_config,
    video_config,
)
from harvest_jax.weights.families.conversions import (
    ATTENTION_OUT,
    LINEAR,
    ONE_FIRST,
    PATCH_KERNEL,
    PROBE,
    SEPARATE_QKV,
    UNCHANGED,
    Conversion,
    Shape,
    rotary,
)
from harvest_jax.weights.families.family import Family, KeyMapping, Overrides
from harvest_jax.weights.families.open_clip_config import read_open_clip
from harvest_jax.weights.families.openai import FRAMES, GATE_NAME, has_openai_names, norm, text_mappings
from harvest_jax.weights.files.tensors import Tensors

EPS = 1e-6  # of the image tower; the text tower has CLIP's
GRID = 16  # patches of a side of the pictures that the rotary positions count
TRUNKS = ("eva02_base_patch16_clip_224", "eva02_large_patch14_clip_224", "eva02_large_patch14_clip_336")


def _query_and_value(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    query, value = arrays
    return np.stack([query, np.zeros_like(query), value]).reshape(shape)


QUERY_AND_VALUE_BIAS = Conversion(_query_and_value, lambda array: [array[part].reshape(-1) for part in (0, 2)])
"""Biases of queries and values, each [width], to our [3, heads, head_dim]; keys have none, which is zeros here."""

_TRUNK, _BLOCK, _OURS = "visual.trunk", "visual.trunk.blocks.{layer}", "video/transformer/blocks"


def _linear(our: str, their: str) -> tuple[KeyMapping, KeyMapping]:
    return KeyMapping(f"{our}/kernel", (f"{their}.weight",), LINEAR), KeyMapping(
        f"{our}/bias", (f"{their}.bias",), UNCHANGED
    )


_MAPPINGS = (
    KeyMapping("video/patch_embedding/kernel", (f"{_TRUNK}.patch_embed.proj.weight",), PATCH_KERNEL),
    KeyMapping("video/patch_embedding/bias", (f"{_TRUNK}.patch_embed.proj.bias",), UNCHANGED),
    KeyMapping("video/class_embedding", (f"{_TRUNK}.cls_token",), PROBE),
    KeyMapping("video/spatial_embedding", (f"{_TRUNK}.pos_embed",), ONE_FIRST),
    *norm(f"{_OURS}/ln_1", f"{_BLOCK}.norm1"),
    KeyMapping(
        f"{_OURS}/attn/qkv/kernel",
        tuple(f"{_BLOCK}.attn.{part}_proj.weight" for part in "qkv"),
        rotary(SEPARATE_QKV, columns_first=False),
    ),
    KeyMapping(
        f"{_OURS}/attn/qkv/bias",
        tuple(f"{_BLOCK}.attn.{part}_proj.bias" for part in "qv"),
        rotary(QUERY_AND_VALUE_BIAS, columns_first=False),
    ),
    *norm(f"{_OURS}/attn/norm", f"{_BLOCK}.attn.norm"),
    KeyMapping(f"{_OURS}/attn/out/kernel", (f"{_BLOCK}.attn.proj.weight",), ATTENTION_OUT),
    KeyMapping(f"{_OURS}/attn/out/bias", (f"{_BLOCK}.attn.proj.bias",), UNCHANGED),
    *norm(f"{_OURS}/ln_2", f"{_BLOCK}.norm2"),
    *_linear(f"{_OURS}/mlp/c_gate", f"{_BLOCK}.mlp.fc1_g"),
    *_linear(f"{_OURS}/mlp/c_fc", f"{_BLOCK}.mlp.fc1_x"),
    *norm(f"{_OURS}/mlp/norm", f"{_BLOCK}.mlp.norm"),
    *_linear(f"{_OURS}/mlp/c_proj", f"{_BLOCK}.mlp.fc2"),
    *norm("video/ln_post", f"{_TRUNK}.norm"),
    *_linear("video/proj", f"{_TRUNK}.head"),
    *text_mappings("text."),
)


def _architecture(tensors: Tensors, overrides: Overrides) -> HarvestConfig:
    where = tensors.where
    width, _, patch, _ = shape_of(tensors, f"{_TRUNK}.patch_embed.proj.weight", 4)
    vocab_size, text_width = shape_of(tensors, "text.token_embedding.weight", 2)
    fields = read_open_clip(tensors, width, TRUNKS)
    heads = fields.heads if fields else (heads_of(width, image=True), heads_of(text_width, image=False))
    embed_dim = shape_of(tensors, f"{_TRUNK}.head.weight", 2)[0]
    shape = TowerShape(
        width=width,
        layers=count_layers(tensors, f"{_TRUNK}.blocks."),
        heads=heads[0],
        hidden=shape_of(tensors, GATE_NAME, 2)[0],
        table=shape_of(tensors, f"{_TRUNK}.pos_embed", 3)[1],
        activation=GATED,
    )
    video = video_config(where, shape, patch, embed_dim)
    if width // video.heads % 4:
        raise DataError(f"{where}: an image tower of width {width} with {video.heads} heads is no EVA-02's")
    video = dataclasses.replace(
        video,
        norm_eps=EPS,
        inner_norms=True,
        rotary=True,
        rotary_grid=GRID,
        patch_bias=True,
        pre_norm=False,
        projection_bias=True,
    )
    words = read_tower(
        tensors,
        "text.transformer.resblocks.",
        "mlp.c_fc.weight",
        "text.positional_embedding",
        heads[1],
        overrides.activation or (fields.activations[1] if fields else "gelu"),
    )
    known = (fields and fields.preprocessing) or Preprocessing()
    return clip_config(
        video, text_config(where, words, vocab_size, embed_dim), preprocessing_of(overrides, known, where)
    )


EVA02 = Family(
    name="EVA-02-CLIP",
    recognise=lambda tensors: has_openai_names(tensors, "text.") and GATE_NAME in tensors.entries,
    architecture=_architecture,
    mappings=lambda config: _MAPPINGS,
    ignored=("text.attn_mask",),
    zeros=(FRAMES,),
    notes=lambda tensors, overrides: (
        [] if "open_clip_config" in tensors.details else [GUESSED_HEADS, _ASSUMED_PICTURES]
    ),
)
_ASSUMED_PICTURES = "the file does not say how its pictures were prepared: OpenAI's preprocessing is assumed"

# The EVA-CLIP project's names of what has another one in timm.
_RENAMED = {
    ".attn.inner_attn_ln.": ".attn.norm.",
    ".attn.q_bias": ".attn.q_proj.bias",
    ".attn.v_bias": ".attn.v_proj.bias",
    ".mlp.w1.": ".mlp.fc1_g.",
    ".mlp.w2.": ".mlp.fc1_x.",
    ".mlp.ffn_ln.": ".mlp.norm.",
    ".mlp.w3.": ".mlp.fc2.",
}


def from_eva_clip(tensors: Tensors) -> Tensors | None:
    """The tensors of an EVA-02 of the EVA-CLIP project under timm's names, without the tables of angles."""
    if "visual.blocks.0.mlp.w1.weight" not in tensors.entries:
        return None
    names = {}
    for name in tensors.entries:
        if name.startswith("visual.") and ".freqs_" not in name:
            new = name.replace("visual.", f"{_TRUNK}.", 1)
            for theirs, timms in _RENAMED.items():
                new = new.replace(theirs, timms)
            names[name] = new
        elif not name.startswith("visual."):
            names[name] = name
    return tensors.renamed(names)
