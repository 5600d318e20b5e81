"""Parameter trees of Scenic: its CLIP, which is ours to the last number, and its ViViT, which is refused.

CLIP: names and shapes as in `scenic/projects/baselines/clip/layers.py` and in what `model.py` there makes of OpenAI's
weights: Linen modules, so that matrices are [in, out], heads have an axis of their own and kernels of patches end in
[row, column, channel, width], all as ours; only query, key and value lie apart. Quick-GELU, epsilon 1e-5, CLIP's mean
and deviation. A tree is written with "/" between its levels; a block is one level, "resblocks.3", or "resblocks_3"
where Scenic was told `use_underscore_module_name`.

Scenic's text tower also hides positions whose token is 0. That is padding, which comes after the end token, so that
the causal end token does not see it anyway; but 0 is also the token of an exclamation mark with certain other signs
behind it ("!(", "!="): a caption that has one gets another embedding from Scenic than from OpenAI's CLIP and from us.

ViViT (`scenic/projects/vivit/model.py`): none of its published models is our tower, for the reasons that the refusal
gives; each of them changes the numbers, so nothing of it is imported half.
"""

import re
from collections.abc import Sequence

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.model.config import HarvestConfig
from harvest_jax.weights.families.architecture import TowerShape, activation_of, config_from_towers, shape_of
from harvest_jax.weights.families.table import SAME, Family, Form, Row, Shape
from harvest_jax.weights.files.tensors import Tensors

_VIVIT_BLOCK = re.compile(r"(?:^|/)(?:Spatial|Temporal)?Transformer/encoderblock_0/")


def _apart(array: np.ndarray) -> list[np.ndarray]:
    return [array[:, part] for part in range(3)]


def _patches_theirs(array: np.ndarray) -> list[np.ndarray]:
    numbers, width = array.shape
    patch = round((numbers // 3) ** 0.5)
    return [array.reshape(patch, patch, 3, width)]


def _kernels_ours(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    return np.stack(arrays, axis=1).reshape(shape)


PATCHES = Form(lambda arrays, shape: arrays[0].reshape(shape), _patches_theirs)
"""[patch, patch, 3, width] to our [patch * patch * 3, width]: the same order."""

KERNELS = Form(_kernels_ours, _apart)
"""Query, key and value, each [width, heads, head_dim], to our [width, 3, heads, head_dim]."""

BIASES = Form(lambda arrays, shape: np.stack(arrays).reshape(shape), list)
"""Each [heads, head_dim] to our [3, heads, head_dim]."""


def _blocks(our: str, their: str) -> tuple[Row, ...]:
    """The blocks of one tower; `their` is the name of a block with `{layer}` in it."""
    norms = ("ln_1/scale", "ln_1/bias", "ln_2/scale", "ln_2/bias")
    dense = (f"{layer}/{part}" for layer in ("attn/out", "mlp/c_fc", "mlp/c_proj") for part in ("kernel", "bias"))
    parts = ("query", "key", "value")
    return (
        *(Row(f"{our}/transformer/blocks/{name}", (f"{their}/{name}",), SAME) for name in (*norms, *dense)),
        Row(f"{our}/transformer/blocks/attn/qkv/kernel", tuple(f"{their}/attn/{p}/kernel" for p in parts), KERNELS),
        Row(f"{our}/transformer/blocks/attn/qkv/bias", tuple(f"{their}/attn/{p}/bias" for p in parts), BIASES),
    )


def _rows(block: str) -> tuple[Row, ...]:
    return (
        Row("video/patch_embedding/kernel", ("visual/conv1/kernel",), PATCHES),
        Row("video/class_embedding", ("visual/class_embedding",), SAME),
        Row("video/spatial_embedding", ("visual/positional_embedding",), SAME),
        Row("video/ln_pre/scale", ("visual/ln_pre/scale",), SAME),
        Row("video/ln_pre/bias", ("visual/ln_pre/bias",), SAME),
        *_blocks("video", f"visual/transformer/{block}"),
        Row("video/ln_post/scale", ("visual/ln_post/scale",), SAME),
        Row("video/ln_post/bias", ("visual/ln_post/bias",), SAME),
        Row("video/proj/kernel", ("visual/proj/kernel",), SAME),
        Row("text/token_embedding/embedding", ("text/token_embedding/embedding",), SAME),
        Row("text/positional_embedding", ("text/positional_embedding",), SAME),
        *_blocks("text", f"text/transformer/{block}"),
        Row("text/ln_final/scale", ("text/ln_final/scale",), SAME),
        Row("text/ln_final/bias", ("text/ln_final/bias",), SAME),
        Row("text/text_projection/kernel", ("text/text_projection/kernel",), SAME),
        Row("logit_scale", ("logit_scale",), SAME),
    )


def _tower(tensors: Tensors, tower: str, block: str) -> TowerShape:
    table, width = shape_of(tensors, f"{tower}/positional_embedding", 2)
    _, heads, _ = shape_of(tensors, f"{tower}/transformer/{block.format(layer=0)}/attn/query/kernel", 3)
    _, hidden = shape_of(tensors, f"{tower}/transformer/{block.format(layer=0)}/mlp/c_fc/kernel", 2)
    pattern = re.compile(re.escape(f"{tower}/transformer/{block}").replace(r"\{layer\}", r"(\d+)") + "/")
    layers = len({found.group(1) for name in tensors.entries if (found := pattern.match(name))})
    return TowerShape(width, layers, heads, hidden, table)


def _architecture(tensors: Tensors, block: str, activation: str | None) -> HarvestConfig:
    if "visual/class_embedding" not in tensors.entries and "visual/layer1/0/conv1/kernel" in tensors.entries:
        raise DataError(f"{tensors.where} is a CLIP of Scenic with a ResNet; only vision transformers can be imported")
    acting = activation_of(activation, "quick_gelu", tensors.where)
    return config_from_towers(
        tensors.where,
        _tower(tensors, "visual", block),
        _tower(tensors, "text", block),
        patch_size=shape_of(tensors, "visual/conv1/kernel", 4)[0],
        embed_dim=shape_of(tensors, "visual/proj/kernel", 2)[1],
        vocab_size=shape_of(tensors, "text/token_embedding/embedding", 2)[0],
        activations=(acting, acting),
    )


def _family(name: str, block: str) -> Family:
    marks = (f"text/transformer/{block.format(layer=0)}/ln_1/scale", "visual/conv1/kernel")
    return Family(
        name,
        recognise=lambda tensors: all(mark in tensors.entries for mark in marks),
        architecture=lambda tensors, activation: _architecture(tensors, block, activation),
        rows=lambda config: _rows(block),
        zeros=("video/temporal_embedding",),
    )


SCENIC = _family("Scenic CLIP", "resblocks.{layer}")
SCENIC_UNDERSCORE = _family("Scenic CLIP (resblocks_N)", "resblocks_{layer}")


def _refuse_vivit(tensors: Tensors, activation: str | None) -> HarvestConfig:
    kernels = {name: entry.shape for name, entry in tensors.entries.items() if name.endswith("embedding/kernel")}
    tubelet = next((shape[0] for shape in kernels.values() if len(shape) == 5), 1)
    reasons = ["GELU by its tanh formula", "layer norms with epsilon 1e-6", "no norm before the first block"]
    reasons.append(f"patches of {tubelet} frames with a bias" if tubelet > 1 else "patches with a bias")
    if any("TemporalTransformer/" in name for name in tensors.entries):
        reasons.append("one transformer over space and another over time")
    else:
        reasons.append("one table of positions for all tokens instead of one of places and one of frames")
    reasons.append("a classifier instead of a projection into the space of a text tower")
    raise DataError(
        f"{tensors.where} is a ViViT of Scenic, which cannot be imported because its tower computes something else "
        f"than a CLIP's: it has {'; '.join(reasons)}"
    )


VIVIT = Family(
    "Scenic ViViT (recognised, not imported)",
    recognise=lambda tensors: any(_VIVIT_BLOCK.search(name) for name in tensors.entries),
    architecture=_refuse_vivit,
    rows=lambda config: (),
)
