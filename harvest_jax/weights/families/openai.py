"""OpenAI's names of an image CLIP, which OpenCLIP kept.

They are those of the modules in OpenAI's `clip/model.py`; OpenCLIP's `CustomTextCLIP` has those of the text tower under
`text.`. Long-CLIP (its `model/model_longclip.py`) has two tables of 248 text positions, of which the first gives the
first 20 rows and the second the others: here they are one.
"""

from collections.abc import Sequence

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.model.config import HarvestConfig, Preprocessing
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
    QKV,
    QKV_BIAS,
    UNCHANGED,
    Conversion,
    Shape,
)
from harvest_jax.weights.families.family import Family, KeyMapping, Overrides
from harvest_jax.weights.families.open_clip_config import read_open_clip
from harvest_jax.weights.files.tensors import Tensors

FRAMES = "video/temporal_embedding"  # an image model has no such table: zeros
KEPT_ROWS = 20  # of Long-CLIP's first table
# By these tensors two families with OpenAI's text tower are known: Perception Encoder and EVA-02-CLIP.
PROBE_NAME, GATE_NAME = "visual.attn_pool.probe", "visual.trunk.blocks.0.mlp.fc1_g.weight"
_SECOND_TABLE = "positional_embedding_res"


def norm(our: str, their: str) -> tuple[KeyMapping, KeyMapping]:
    """Both parameters of a layer norm."""
    return KeyMapping(f"{our}/scale", (f"{their}.weight",), UNCHANGED), KeyMapping(
        f"{our}/bias", (f"{their}.bias",), UNCHANGED
    )


def openai_blocks(our: str, their: str) -> tuple[KeyMapping, ...]:
    """The blocks of one tower: `our` the tower, `their` what stands before `transformer`."""
    our, their = f"{our}/transformer/blocks", f"{their}transformer.resblocks.{{layer}}"
    return (
        *norm(f"{our}/ln_1", f"{their}.ln_1"),
        KeyMapping(f"{our}/attn/qkv/kernel", (f"{their}.attn.in_proj_weight",), QKV),
        KeyMapping(f"{our}/attn/qkv/bias", (f"{their}.attn.in_proj_bias",), QKV_BIAS),
        KeyMapping(f"{our}/attn/out/kernel", (f"{their}.attn.out_proj.weight",), ATTENTION_OUT),
        KeyMapping(f"{our}/attn/out/bias", (f"{their}.attn.out_proj.bias",), UNCHANGED),
        *norm(f"{our}/ln_2", f"{their}.ln_2"),
        KeyMapping(f"{our}/mlp/c_fc/kernel", (f"{their}.mlp.c_fc.weight",), LINEAR),
        KeyMapping(f"{our}/mlp/c_fc/bias", (f"{their}.mlp.c_fc.bias",), UNCHANGED),
        KeyMapping(f"{our}/mlp/c_proj/kernel", (f"{their}.mlp.c_proj.weight",), LINEAR),
        KeyMapping(f"{our}/mlp/c_proj/bias", (f"{their}.mlp.c_proj.bias",), UNCHANGED),
    )


def _openai_mappings(text: str) -> tuple[KeyMapping, ...]:
    """OpenAI's names; `text` stands before those of the text tower."""
    return (
        KeyMapping("video/patch_embedding/kernel", ("visual.conv1.weight",), PATCH_KERNEL),
        KeyMapping("video/class_embedding", ("visual.class_embedding",), UNCHANGED),
        KeyMapping("video/spatial_embedding", ("visual.positional_embedding",), UNCHANGED),
        *norm("video/ln_pre", "visual.ln_pre"),
        *openai_blocks("video", "visual."),
        *norm("video/ln_post", "visual.ln_post"),
        KeyMapping("video/proj/kernel", ("visual.proj",), UNCHANGED),  # already [in, out]
        *text_mappings(text),
    )


def text_mappings(text: str) -> tuple[KeyMapping, ...]:
    """The text tower and the scale; `text` stands before the names of the tower."""
    return (
        KeyMapping("text/token_embedding/embedding", (f"{text}token_embedding.weight",), UNCHANGED),
        KeyMapping("text/positional_embedding", (f"{text}positional_embedding",), UNCHANGED),
        *openai_blocks("text", text),
        *norm("text/ln_final", f"{text}ln_final"),
        KeyMapping("text/text_projection/kernel", (f"{text}text_projection",), UNCHANGED),
        KeyMapping("logit_scale", ("logit_scale",), UNCHANGED),
    )


def _two_tables(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    return np.concatenate([arrays[0][:KEPT_ROWS], arrays[1][KEPT_ROWS:]]).reshape(shape)


TWO_TABLES = Conversion(_two_tables, lambda array: [array, array])
"""Long-CLIP's two tables to ours; back, both are the same: the rows that its model does not read are not kept."""

_OPENAI_MAPPINGS, _CUSTOM_TEXT_MAPPINGS = _openai_mappings(""), _openai_mappings("text.")
_LONG_CLIP_MAPPINGS = tuple(
    KeyMapping(mapping.our, (*mapping.their, _SECOND_TABLE), TWO_TABLES)
    if mapping.our == "text/positional_embedding"
    else mapping
    for mapping in _OPENAI_MAPPINGS
)

# Image towers under OpenAI's names that are no CLIP's: what begins a name, and what the tower is.
_OTHER_TOWERS = {
    "visual.layer1.": "a ResNet",
    "visual.trunk.": (
        "a model of timm that is no EVA-02 of B/16 or L/14; get SigLIP in transformers' form, PE-Core as its .pt file"
    ),
    "visual.blocks.": "EVA-CLIP's g/14, or EVA-02's E/14, whose blocks are others than those of B/16 and L/14",
    "visual.attn_pool.": "attention pooling of another kind than PE-Core's",
    "visual.transformer.resblocks.0.ls_1.": "scaled residuals",
}


def _openai_architecture(
    tensors: Tensors, overrides: Overrides, text: str, activation: str | None = None
) -> HarvestConfig:
    for prefix, what in _OTHER_TOWERS.items():
        if any(name.startswith(prefix) for name in tensors.entries):
            raise DataError(
                f"{tensors.where} has an image tower that is not CLIP's vision transformer ({what}): only ViT models "
                "can be imported"
            )
    width, _, patch, _ = shape_of(tensors, "visual.conv1.weight", 4)
    vocab_size, text_width = shape_of(tensors, f"{text}token_embedding.weight", 2)
    fields = read_open_clip(tensors, width)
    heads = fields.heads if fields else (heads_of(width, image=True), heads_of(text_width, image=False))
    known = fields.activations[0] if fields else activation
    if _is_openai_archive(tensors):
        known = "quick_gelu"
    where, embed_dim = tensors.where, shape_of(tensors, "visual.proj", 2)[1]
    activation = activation_of(overrides, known, where)
    mlp = "mlp.c_fc.weight"
    video = read_tower(
        tensors, "visual.transformer.resblocks.", mlp, "visual.positional_embedding", heads[0], activation
    )
    words = read_tower(
        tensors, f"{text}transformer.resblocks.", mlp, f"{text}positional_embedding", heads[1], activation
    )
    return clip_config(
        video_config(where, video, patch, embed_dim),
        text_config(where, words, vocab_size, embed_dim),
        preprocessing_of(overrides, (fields and fields.preprocessing) or Preprocessing(), where),
    )


def _is_openai_archive(tensors: Tensors) -> bool:
    """The format in which OpenAI published its models, with a number that only its archives keep as a tensor."""
    return "TorchScript" in tensors.kind and "input_resolution" in tensors.details


def _notes(tensors: Tensors, overrides: Overrides) -> list[str]:
    if "open_clip_config" in tensors.details or _is_openai_archive(tensors):
        return []
    if overrides.resize and overrides.mean and overrides.std:
        return [GUESSED_HEADS]
    return [
        "the file does not say how its pictures were prepared: OpenAI's preprocessing is assumed; if the model was "
        "trained with another, give --resize, --mean and --std",
        GUESSED_HEADS,
    ]


def has_openai_names(tensors: Tensors, text: str) -> bool:
    """Whether the text tower has OpenAI's names after `text`, and there is an image tower."""
    return f"{text}token_embedding.weight" in tensors.entries and any(
        name.startswith("visual.") for name in tensors.entries
    )


def _is_long_clip(tensors: Tensors) -> bool:
    return has_openai_names(tensors, "") and _SECOND_TABLE in tensors.entries


OPENAI = Family(
    name="OpenAI CLIP or OpenCLIP",
    recognise=lambda tensors: (
        has_openai_names(tensors, "") and not _is_long_clip(tensors) and PROBE_NAME not in tensors.entries
    ),
    architecture=lambda tensors, overrides: _openai_architecture(tensors, overrides, ""),
    mappings=lambda config: _OPENAI_MAPPINGS,
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
    notes=_notes,
)

OPEN_CLIP_TEXT = Family(
    name="OpenCLIP (CustomTextCLIP)",
    recognise=lambda tensors: has_openai_names(tensors, "text.") and GATE_NAME not in tensors.entries,
    architecture=lambda tensors, overrides: _openai_architecture(tensors, overrides, "text."),
    mappings=lambda config: _CUSTOM_TEXT_MAPPINGS,
    ignored=("text.attn_mask", "text.transformer.resblocks.{layer}.attn_mask"),
    zeros=(FRAMES,),
    notes=_notes,
)

LONG_CLIP = Family(
    name="Long-CLIP",
    recognise=_is_long_clip,
    # its code has no other activation than quick-GELU
    architecture=lambda tensors, overrides: _openai_architecture(tensors, overrides, "", "quick_gelu"),
    mappings=lambda config: _LONG_CLIP_MAPPINGS,
    ignored=OPENAI.ignored,
    zeros=(FRAMES,),
    notes=_notes,
)
