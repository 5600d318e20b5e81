"""ViCLIP, InternVideo's video CLIP: the only other family with a whole video tower.

Names, shapes and preprocessing are those of InternVideo's `Data/InternVid/viclip/{viclip,viclip_vision,viclip_text}.py`
(and of `InternVideo1/Pretrain/ViCLIP`, which trained it): a Conv3d over single frames, CLIP's spatial table, a table of
frames [1, T, width], one class token, quick-GELU, norms with torch's epsilon of 1e-5, a text tower whose table of
positions was cut to 32. Its blocks have CLIP's own names.

ViCLIP keeps the temperature, this package CLIP's logarithm of its inverse. It is the only number of all tables that is
computed, in float64, and rounded once to float32. Ours to theirs and back is exact for temperatures from 0.0004 to
0.13; theirs to ours and back may differ by 3e-7 of the value (five units in the last place): float32 has no finer
logarithm near ln 100. Embeddings do not depend on it; logits may differ by as much.
"""

import math
from collections.abc import Sequence

import numpy as np

from harvest_jax.errors import DataError
from harvest_jax.model.config import HarvestConfig, Preprocessing
from harvest_jax.weights.families.architecture import (
    TowerShape,
    activation_of,
    clip_config,
    heads_of,
    preprocessing_of,
    read_tower,
    shape_of,
    text_config,
    video_config,
)
from harvest_jax.weights.families.conversions import UNCHANGED, Conversion, Shape
from harvest_jax.weights.families.family import Family, KeyMapping, Overrides
from harvest_jax.weights.families.openai import norm, openai_blocks
from harvest_jax.weights.files.tensors import Tensors

CONTEXT_LENGTH, NUM_FRAMES = 32, 8  # of the published models
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESSING = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "squash")
"""Both sides resized to the image size, then ImageNet's mean and deviation, as in ViCLIP's demo and evaluation.

The demo (its `__init__.py`) resizes with OpenCV's bilinear filter, the evaluation bicubically; here it is bicubic with
antialiasing."""

_CONV = "vision_encoder.conv1.weight"
_TOKENS = "text_encoder.token_embedding.weight"
_FRAMES = "vision_encoder.temporal_positional_embedding"


def _conv3d_ours(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    kernel = arrays[0]  # width, channel, frame (one), row, column
    return kernel.transpose(2, 3, 4, 1, 0).reshape(shape)


def _conv3d_theirs(array: np.ndarray) -> list[np.ndarray]:
    numbers, width = array.shape
    patch = math.isqrt(numbers // 3)
    return [array.reshape(1, patch, patch, 3, width).transpose(4, 3, 0, 1, 2)]


def _negative_log(arrays: Sequence[np.ndarray], shape: Shape) -> np.ndarray:
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # of a temperature that is not positive: the writer refuses the result
        logarithm = np.log(np.asarray(arrays[0], np.float64))
    return np.asarray(-logarithm, np.float32).reshape(shape)


def _exp_of_negative(array: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(np.exp(-np.asarray(array, np.float64)), np.float32)]


CONV3D = Conversion(_conv3d_ours, _conv3d_theirs)
"""torch's Conv3d kernel over one frame [width, 3, 1, patch, patch] to our [patch * patch * 3, width]."""

FRAME_TABLE = Conversion(lambda arrays, shape: arrays[0].reshape(shape), lambda array: [array[None]])
"""[1, T, width] to [T, width]."""

TEMPERATURE = Conversion(_negative_log, _exp_of_negative)
"""temp to logit_scale = -log(temp), always float32: float16 would be wrong in the third digit."""


MAPPINGS = (
    KeyMapping("video/patch_embedding/kernel", (_CONV,), CONV3D),
    KeyMapping("video/class_embedding", ("vision_encoder.class_embedding",), UNCHANGED),
    KeyMapping("video/spatial_embedding", ("vision_encoder.positional_embedding",), UNCHANGED),
    KeyMapping("video/temporal_embedding", (_FRAMES,), FRAME_TABLE),
    *norm("video/ln_pre", "vision_encoder.ln_pre"),
    *openai_blocks("video", "vision_encoder."),
    *norm("video/ln_post", "vision_encoder.ln_post"),
    KeyMapping("video/proj/kernel", ("vision_encoder.proj",), UNCHANGED),  # already [in, out]
    KeyMapping("text/token_embedding/embedding", (_TOKENS,), UNCHANGED),
    KeyMapping("text/positional_embedding", ("text_encoder.positional_embedding",), UNCHANGED),
    *openai_blocks("text", "text_encoder."),
    *norm("text/ln_final", "text_encoder.ln_final"),
    KeyMapping("text/text_projection/kernel", ("text_encoder.text_projection",), UNCHANGED),
    KeyMapping("logit_scale", ("temp",), TEMPERATURE),
)


def _recognise(tensors: Tensors) -> bool:
    return any(name in tensors.entries for name in (_CONV, _TOKENS, _FRAMES))


def _tower(tensors: Tensors, tower: str, image: bool, activation: str) -> TowerShape:
    positions = f"{tower}.positional_embedding"
    heads = heads_of(shape_of(tensors, positions, 2)[1], image)
    return read_tower(tensors, f"{tower}.transformer.resblocks.", "mlp.c_fc.weight", positions, heads, activation)


def _architecture(tensors: Tensors, overrides: Overrides) -> HarvestConfig:
    width, _, tubelet, patch, _ = shape_of(tensors, _CONV, 5)
    if tubelet != 1:
        raise DataError(
            f"{tensors.where}: this ViCLIP embeds {tubelet} frames at a time ({_CONV} is {width} x 3 x {tubelet} x "
            f"{patch} x {patch}); only models that embed frame by frame can be imported, as the published ones do"
        )
    where, embed_dim = tensors.where, shape_of(tensors, "vision_encoder.proj", 2)[1]
    activation = activation_of(overrides, "quick_gelu", where)  # its code has no other
    video = _tower(tensors, "vision_encoder", image=True, activation=activation)
    text = _tower(tensors, "text_encoder", image=False, activation=activation)
    return clip_config(
        video_config(where, video, patch, embed_dim, num_frames=shape_of(tensors, _FRAMES, 3)[1]),
        text_config(where, text, shape_of(tensors, _TOKENS, 2)[0], embed_dim),
        preprocessing_of(overrides, PREPROCESSING, where),
    )


VICLIP = Family("ViCLIP", _recognise, _architecture, lambda config: MAPPINGS)
