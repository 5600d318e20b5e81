"""Parameter trees of Scenic: its CLIP, which computes the same as ours, and its ViViT, which is refused.

CLIP: names and shapes as in `scenic/projects/baselines/clip/layers.py` and in what `model.py` there makes of OpenAI's
weights: Linen modules, so that matrices are [in, out], heads have an axis of their own and the kernel of patches is
[row, column, channel, width], all as here; only query, key and value are separate. Quick-GELU, epsilon 1e-5, CLIP's
mean and deviation. A name has "/" between its levels; a block is one level, "resblocks.3", or "resblocks_3" with
Scenic's `use_underscore_module_name`.

Scenic's text tower also masks positions whose token is 0. That is padding: it comes after the end token, which does
not see it anyway. But 0 is also the token of an exclamation mark before certain other signs ("!(", "!="): the embedding
of such a caption differs between Scenic and OpenAI's CLIP, which this package follows.

ViViT (`scenic/projects/vivit/model.py`): none of its published models has our tower, for the reasons that the error
gives. Each of them changes the embeddings, so that nothing is imported.
"""

import re
from collections.abc import Sequence

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.model.config import HarvestConfig, Preprocessing
from harvest_jax.weights.families.architecture import (
    TowerShape,
    activation_of,
    clip_config,
    preprocessing_of,
    shape_of,
    text_config,
    video_config,
)
from harvest_jax.weights.families.conversions import UNCHANGED, Conversion, Shape
from harvest_jax.weights.families.family import Family, KeyMapping, Overrides
from harvest_jax.weights.files.tensors import Tensors

_VIVIT_BLOCK = re.compile(r"(?:^|/)(?:Spatial|Temporal)?Transformer/encoderblock_0/")


def _three_parts(array: np.ndarray) -> list[np.ndarray]:
    return [array[:, part] for part in range(3)]


def _patch_kernel_theirs(array: np.ndarray) -> list[np.ndarray]:
    numbers, width = array.shape
    patch = round((numbers // 3) ** 0.5)
    return [array.reshape(patch, patch, 3, width)]


def _qkv_ours(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    return np.stack(arrays, axis=1).reshape(shape)


PATCH_KERNEL = Conversion(lambda arrays, shape: arrays[0].reshape(shape), _patch_kernel_theirs)
"""[patch, patch, 3, width] to our [patch * patch * 3, width]: the same order."""

SEPARATE_QKV = Conversion(_qkv_ours, _three_parts)
"""Query, key and value, each [width, heads, head_dim], to our [width, 3, heads, head_dim]."""

SEPARATE_QKV_BIAS = Conversion(lambda arrays, shape: np.stack(arrays).reshape(shape), list)
"""Each [heads, head_dim] to our [3, heads, head_dim]."""


def _blocks(tower: str, their: str) -> tuple[KeyMapping, ...]:
    """The blocks of one tower; `their` is the name of a block with `{layer}` in it."""
    our = f"{tower}/transformer/blocks"
    norms = ("ln_1/scale", "ln_1/bias", "ln_2/scale", "ln_2/bias")
    dense = (f"{layer}/{part}" for layer in ("attn/out", "mlp/c_fc", "mlp/c_proj") for part in ("kernel", "bias"))
    parts = ("query", "key", "value")
    return (
        *(KeyMapping(f"{our}/{name}", (f"{their}/{name}",), UNCHANGED) for name in (*norms, *dense)),
        KeyMapping(f"{our}/attn/qkv/kernel", tuple(f"{their}/attn/{p}/kernel" for p in parts), SEPARATE_QKV),
        KeyMapping(f"{our}/attn/qkv/bias", tuple(f"{their}/attn/{p}/bias" for p in parts), SEPARATE_QKV_BIAS),
    )


def _mappings(block: str) -> tuple[KeyMapping, ...]:
    return (
        KeyMapping("video/patch_embedding/kernel", ("visual/conv1/kernel",), PATCH_KERNEL),
        KeyMapping("video/class_embedding", ("visual/class_embedding",), UNCHANGED),
        KeyMapping("video/spatial_embedding", ("visual/positional_embedding",), UNCHANGED),
        KeyMapping("video/ln_pre/scale", ("visual/ln_pre/scale",), UNCHANGED),
        KeyMapping("video/ln_pre/bias", ("visual/ln_pre/bias",), UNCHANGED),
        *_blocks("video", f"visual/transformer/{block}"),
        KeyMapping("video/ln_post/scale", ("visual/ln_post/scale",), UNCHANGED),
        KeyMapping("video/ln_post/bias", ("visual/ln_post/bias",), UNCHANGED),
        KeyMapping("video/proj/kernel", ("visual/proj/kernel",), UNCHANGED),
        KeyMapping("text/token_embedding/embedding", ("text/token_embedding/embedding",), UNCHANGED),
        KeyMapping("text/positional_embedding", ("text/positional_embedding",), UNCHANGED),
        *_blocks("text", f"text/transformer/{block}"),
        KeyMapping("text/ln_final/scale", ("text/ln_final/scale",), UNCHANGED),
        KeyMapping("text/ln_final/bias", ("text/ln_final/bias",), UNCHANGED),
        KeyMapping("text/text_projection/kernel", ("text/text_projection/kernel",), UNCHANGED),
        KeyMapping("logit_scale", ("logit_scale",), UNCHANGED),
    )


def _tower(tensors: Tensors, tower: str, block: str, activation: str) -> TowerShape:
    table, width = shape_of(tensors, f"{tower}/positional_embedding", 2)
    _, heads, _ = shape_of(tensors, f"{tower}/transformer/{block.format(layer=0)}/attn/query/kernel", 3)
    _, hidden = shape_of(tensors, f"{tower}/transformer/{block.format(layer=0)}/mlp/c_fc/kernel", 2)
    pattern = re.compile(re.escape(f"{tower}/transformer/{block}").replace(r"\{layer\}", r"(\d+)") + "/")
    layers = len({found.group(1) for name in tensors.entries if (found := pattern.match(name))})
    return TowerShape(width, layers, heads, hidden, table, activation)


def _architecture(tensors: Tensors, block: str, overrides: Overrides) -> HarvestConfig:
    if "visual/class_embedding" not in tensors.entries and "visual/layer1/0/conv1/kernel" in tensors.entries:
        raise DataError(f"{tensors.where} is a CLIP of Scenic with a ResNet; only vision transformers can be imported")
    where, embed_dim = tensors.where, shape_of(tensors, "visual/proj/kernel", 2)[1]
    activation = activation_of(overrides, "quick_gelu", where)
    video, text = (_tower(tensors, tower, block, activation) for tower in ("visual", "text"))
    return clip_config(
        video_config(where, video, shape_of(tensors, "visual/conv1/kernel", 4)[0], embed_dim),
        text_config(where, text, shape_of(tensors, "text/token_embedding/embedding", 2)[0], embed_dim),
        preprocessing_of(overrides, Preprocessing(), where),
    )


def _family(name: str, block: str) -> Family:
    marks = (f"text/transformer/{block.format(layer=0)}/ln_1/scale", "visual/conv1/kernel")
    return Family(
        name,
        recognise=lambda tensors: all(mark in tensors.entries for mark in marks),
        architecture=lambda tensors, overrides: _architecture(tensors, block, overrides),
        mappings=lambda config: _mappings(block),
        zeros=("video/temporal_embedding",),
    )


SCENIC = _family("Scenic CLIP", "resblocks.{layer}")
SCENIC_UNDERSCORE = _family("Scenic CLIP (resblocks_N)", "resblocks_{layer}")


def _refuse_vivit(tensors: Tensors, overrides: Overrides) -> HarvestConfig:
    kernels = {name: entry.shape for name, entry in tensors.entries.items() if name.endswith("embedding/kernel")}
    tubelet = next((shape[0] for shape in kernels.values() if len(shape) == 5), 1)
    reasons = ["GELU by its tanh formula", "layer norms with epsilon 1e-6", "no norm before the first block"]
    reasons.append(f"patches of {tubelet} frames with a bias" if tubelet > 1 else "patches with a bias")
    if any("TemporalTransformer/" in name for name in tensors.entries):
        reasons.append("one transformer over space and another over time")
    else:
        reasons.append("one table of positions for all tokens instead of one for patches and one for frames")
    reasons.append("a classifier instead of a projection into the space of a text tower")
    raise DataError(
        f"{tensors.where} is a ViViT of Scenic, which cannot be imported because its tower is not a CLIP's: it "
        f"has {'; '.join(reasons)}"
    )


VIVIT = Family(
    "Scenic ViViT (recognised, not imported)",
    recognise=lambda tensors: (
        "img/MAPHead_0/probe" not in tensors.entries  # big_vision's SigLIP
        and any(_VIVIT_BLOCK.search(name) for name in tensors.entries)
    ),
    architecture=_refuse_vivit,
    mappings=lambda config: (),
)
