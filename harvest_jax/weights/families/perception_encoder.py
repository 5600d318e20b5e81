"""Perception Encoder, PE-Core: the files of facebook/PE-Core-*.

OpenAI's names, of a text tower that is CLIP's with fewer positions. The image tower has rotary positions, which are
counted from 1 where there is a class token, and turn the first half of a head with the column; a learned query with 8
heads pools all tokens. PE-Core-G14 has no class token. Names and shapes: `core/vision_encoder/pe.py`, `rope.py` and
`config.py` of facebookresearch/perception_models.
"""

import dataclasses

from harvest_jax.errors import DataError
from harvest_jax.model.config import HarvestConfig, Preprocessing
from harvest_jax.weights.families.architecture import (
    clip_config,
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
    PATCH_KERNEL,
    PROBE,
    QKV,
    QKV_BIAS,
    UNCHANGED,
    rotary,
)
from harvest_jax.weights.families.family import Family, KeyMapping, Overrides
from harvest_jax.weights.families.openai import (
    FRAMES,
    PROBE_NAME,
    has_openai_names,
    norm,
    openai_blocks,
    text_mappings,
)
from harvest_jax.weights.files.tensors import Tensors

POOLING_HEADS = 8
HEADS = {1536: 16}  # of G/14's image tower, by width; others have heads of 64
PICTURES = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash")
_ASSUMED = (
    "the file says neither heads nor how its pictures were prepared: those of PE-Core are assumed; its pictures were "
    "resized with a bilinear filter in training, here they are resized bicubically, so that embeddings of pictures of "
    "other sizes differ a little"
)

_POOL = "visual.attn_pool"
_ROTARY = {"attn/qkv/kernel": rotary(QKV, columns_first=True), "attn/qkv/bias": rotary(QKV_BIAS, columns_first=True)}
_BLOCKS = tuple(
    dataclasses.replace(mapping, conversion=_ROTARY.get(mapping.our.partition("blocks/")[2], mapping.conversion))
    for mapping in openai_blocks("video", "visual.")
)
_CLASS = KeyMapping("video/class_embedding", ("visual.class_embedding",), UNCHANGED)
_MAPPINGS = (
    KeyMapping("video/patch_embedding/kernel", ("visual.conv1.weight",), PATCH_KERNEL),
    KeyMapping("video/spatial_embedding", ("visual.positional_embedding",), UNCHANGED),
    *norm("video/ln_pre", "visual.ln_pre"),
    *_BLOCKS,
    *norm("video/ln_post", "visual.ln_post"),
    KeyMapping("video/pooling/query_embedding", (PROBE_NAME,), PROBE),
    KeyMapping("video/pooling/qkv_kernel", (f"{_POOL}.attn.in_proj_weight",), QKV),
    KeyMapping("video/pooling/qkv_bias", (f"{_POOL}.attn.in_proj_bias",), QKV_BIAS),
    KeyMapping("video/pooling/out/kernel", (f"{_POOL}.attn.out_proj.weight",), ATTENTION_OUT),
    KeyMapping("video/pooling/out/bias", (f"{_POOL}.attn.out_proj.bias",), UNCHANGED),
    *norm("video/pooling/norm", f"{_POOL}.layernorm"),
    KeyMapping("video/pooling/mlp/c_fc/kernel", (f"{_POOL}.mlp.c_fc.weight",), LINEAR),
    KeyMapping("video/pooling/mlp/c_fc/bias", (f"{_POOL}.mlp.c_fc.bias",), UNCHANGED),
    KeyMapping("video/pooling/mlp/c_proj/kernel", (f"{_POOL}.mlp.c_proj.weight",), LINEAR),
    KeyMapping("video/pooling/mlp/c_proj/bias", (f"{_POOL}.mlp.c_proj.bias",), UNCHANGED),
    KeyMapping("video/proj/kernel", ("visual.proj",), UNCHANGED),  # already [in, out]
    *text_mappings(""),
)


def _architecture(tensors: Tensors, overrides: Overrides) -> HarvestConfig:
    where, activation = tensors.where, overrides.activation or "gelu"
    width, _, patch, _ = shape_of(tensors, "visual.conv1.weight", 4)
    vocab_size, text_width = shape_of(tensors, "token_embedding.weight", 2)
    embed_dim = shape_of(tensors, "visual.proj", 2)[1]
    mlp, token = "mlp.c_fc.weight", _CLASS.their[0] in tensors.entries
    heads = HEADS.get(width, heads_of(width, image=False)), heads_of(text_width, image=False)
    shape, words = (
        read_tower(tensors, f"{tower}transformer.resblocks.", mlp, f"{tower}positional_embedding", count, activation)
        for tower, count in zip(("visual.", ""), heads, strict=True)
    )
    video = video_config(where, shape, patch, embed_dim, class_token=token)
    inside = shape_of(tensors, f"{_POOL}.{mlp}", 2)[0]
    if width % POOLING_HEADS or width // video.heads % 4:
        raise DataError(f"{where}: an image tower of width {width} is no PE-Core's")
    video = dataclasses.replace(
        video,
        rotary=True,
        rotary_start=int(token),
        pooling="attention",
        pooling_heads=POOLING_HEADS,
        pooling_mlp_width=0 if inside == shape.hidden else inside,
    )
    text = text_config(where, words, vocab_size, embed_dim)
    return clip_config(video, text, preprocessing_of(overrides, PICTURES, where))


PE_CORE = Family(
    name="Perception Encoder (PE-Core)",
    recognise=lambda tensors: has_openai_names(tensors, "") and PROBE_NAME in tensors.entries,
    architecture=_architecture,
    mappings=lambda config: (_CLASS, *_MAPPINGS) if config.video.class_token else _MAPPINGS,
    ignored=("attn_mask",),
    zeros=(FRAMES,),
    notes=lambda tensors, overrides: [_ASSUMED],
)
