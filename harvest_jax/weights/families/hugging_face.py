"""Hugging Face's names of an image CLIP, those of transformers' `CLIPModel`, and of `FlaxCLIPModel` up to version 4."""

import dataclasses

import numpy as np

from harvest_jax.model.config import HarvestConfig
from harvest_jax.weights.families.architecture import (
    GUESSED_HEADS,
    activation_of,
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
    SEPARATE_QKV,
    SEPARATE_QKV_BIAS,
    UNCHANGED,
)
from harvest_jax.weights.families.family import Family, KeyMapping, Overrides
from harvest_jax.weights.families.hugging_face_config import read_hugging_face
from harvest_jax.weights.families.openai import FRAMES, norm
from harvest_jax.weights.files.tensors import Tensors, TensorSpec


def hugging_face_blocks(our: str, their: str) -> tuple[KeyMapping, ...]:
    """The blocks of one tower, `their` its name; SigLIP's have the same names."""
    our, their = f"{our}/transformer/blocks", f"{their}.encoder.layers.{{layer}}"
    parts = tuple(f"{their}.self_attn.{part}_proj" for part in "qkv")
    return (
        *norm(f"{our}/ln_1", f"{their}.layer_norm1"),
        KeyMapping(f"{our}/attn/qkv/kernel", tuple(f"{part}.weight" for part in parts), SEPARATE_QKV),
        KeyMapping(f"{our}/attn/qkv/bias", tuple(f"{part}.bias" for part in parts), SEPARATE_QKV_BIAS),
        KeyMapping(f"{our}/attn/out/kernel", (f"{their}.self_attn.out_proj.weight",), ATTENTION_OUT),
        KeyMapping(f"{our}/attn/out/bias", (f"{their}.self_attn.out_proj.bias",), UNCHANGED),
        *norm(f"{our}/ln_2", f"{their}.layer_norm2"),
        KeyMapping(f"{our}/mlp/c_fc/kernel", (f"{their}.mlp.fc1.weight",), LINEAR),
        KeyMapping(f"{our}/mlp/c_fc/bias", (f"{their}.mlp.fc1.bias",), UNCHANGED),
        KeyMapping(f"{our}/mlp/c_proj/kernel", (f"{their}.mlp.fc2.weight",), LINEAR),
        KeyMapping(f"{our}/mlp/c_proj/bias", (f"{their}.mlp.fc2.bias",), UNCHANGED),
    )


_HUGGING_FACE_MAPPINGS = (
    KeyMapping("video/patch_embedding/kernel", ("vision_model.embeddings.patch_embedding.weight",), PATCH_KERNEL),
    KeyMapping("video/class_embedding", ("vision_model.embeddings.class_embedding",), UNCHANGED),
    KeyMapping("video/spatial_embedding", ("vision_model.embeddings.position_embedding.weight",), UNCHANGED),
    *norm("video/ln_pre", "vision_model.pre_layrnorm"),  # its own spelling
    *hugging_face_blocks("video", "vision_model"),
    *norm("video/ln_post", "vision_model.post_layernorm"),
    KeyMapping("video/proj/kernel", ("visual_projection.weight",), LINEAR),
    KeyMapping("text/token_embedding/embedding", ("text_model.embeddings.token_embedding.weight",), UNCHANGED),
    KeyMapping("text/positional_embedding", ("text_model.embeddings.position_embedding.weight",), UNCHANGED),
    *hugging_face_blocks("text", "text_model"),
    *norm("text/ln_final", "text_model.final_layer_norm"),
    KeyMapping("text/text_projection/kernel", ("text_projection.weight",), LINEAR),
    KeyMapping("logit_scale", ("logit_scale",), UNCHANGED),
)


def _hugging_face_architecture(tensors: Tensors, overrides: Overrides) -> HarvestConfig:
    width, _, patch, _ = shape_of(tensors, "vision_model.embeddings.patch_embedding.weight", 4)
    vocab_size, text_width = shape_of(tensors, "text_model.embeddings.token_embedding.weight", 2)
    fields = read_hugging_face(tensors, vocab_size)
    heads = fields.heads if fields else (heads_of(width, image=True), heads_of(text_width, image=False))
    known = fields.activations if fields else (None, None)
    where, embed_dim = tensors.where, shape_of(tensors, "visual_projection.weight", 2)[0]
    video, text = (
        read_tower(
            tensors,
            f"{tower}.encoder.layers.",
            "mlp.fc1.weight",
            f"{tower}.embeddings.position_embedding.weight",
            heads[number],
            activation_of(overrides, known[number], where),
        )
        for number, tower in enumerate(("vision_model", "text_model"))
    )
    return clip_config(
        video_config(where, video, patch, embed_dim),
        text_config(where, text, vocab_size, embed_dim),
        preprocessing_of(overrides, fields.preprocessing if fields else None, where),
    )


HUGGING_FACE = Family(
    name="Hugging Face CLIP",
    recognise=lambda tensors: (
        {"text_model.embeddings.token_embedding.weight", "vision_model.embeddings.patch_embedding.weight"}
        <= set(tensors.entries)
        and "vision_model.head.probe" not in tensors.entries  # SigLIP's
    ),
    architecture=_hugging_face_architecture,
    mappings=lambda config: _HUGGING_FACE_MAPPINGS,
    ignored=("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"),
    zeros=(FRAMES,),
    notes=lambda tensors, overrides: [] if "config" in tensors.details else [GUESSED_HEADS],
)

# Flax's names of a parameter, and the order of its axes in torch: matrices are [out, in], kernels of patches [out,
# channel, row, column].
_FLAX_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
_AXES: dict[int, tuple[int, ...]] = {2: (1, 0), 4: (3, 2, 0, 1)}


def from_flax(tensors: Tensors) -> Tensors | None:
    """A Flax checkpoint of transformers under torch's names and in torch's layout; None if these are no such tensors.

    Only axes change their places.
    """
    if "vision_model/embeddings/patch_embedding/kernel" not in tensors.entries:
        return None
    old: dict[str, tuple[str, tuple[int, ...] | None]] = {}  # torch's name: Flax's, and the order of its axes
    entries: dict[str, TensorSpec] = {}
    for name, entry in tensors.entries.items():
        *way, leaf = name.split("/")
        axes = _AXES.get(len(entry.shape)) if leaf == "kernel" else None
        new = ".".join((*way, _FLAX_LEAVES.get(leaf, leaf)))
        if new in entries:
            return None
        old[new] = name, axes
        entries[new] = dataclasses.replace(
            entry, shape=tuple(entry.shape[axis] for axis in axes) if axes else entry.shape
        )

    def read(name: str) -> np.ndarray:
        theirs, axes = old[name]
        array = tensors.read(theirs)
        return array.transpose(axes) if axes else array

    return dataclasses.replace(tensors, kind=f"{tensors.kind}, of Flax", entries=entries, read=read)
