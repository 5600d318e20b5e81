"""A checkpoint's architecture, read from the names and shapes of its tensors and from the JSON files beside it.

Three things are in no shape: the number of heads, the activation, and how pictures are prepared. A config gives them,
where there is one. Without it the heads follow from the rule of all published CLIPs (`heads_of`); the others are known
of the family, or the user must say them.
"""

import dataclasses
import math
import re

from harvest_jax.config.run import SIZES
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.model.config import (
    ACTIVATIONS,
    GATED,
    HarvestConfig,
    Preprocessing,
    TextConfig,
    VideoConfig,
    harvest_config,
)
from harvest_jax.weights.families.family import Overrides
from harvest_jax.weights.files.tensors import Tensors

HEAD_WIDTH = 64  # of both towers: OpenAI's rule, heads = width // 64 (its `build_model`)
HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}  # by the width of image towers: OpenCLIP's ViT-H-14, g-14, bigG-14
GUESSED_HEADS = (
    "the file does not say how many attention heads its towers have: as many as the published models are assumed "
    "(width / 64; 16 in the image towers of H/14, g/14 and bigG/14); add its config.json if it has others"
)


def shape_of(tensors: Tensors, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor that the architecture is read from.

    Raises:
      DataError: it is missing, or has another number of axes, or an axis of length zero.
    """
    if name not in tensors.entries:
        raise DataError(f"{tensors.where} holds no {name}: its architecture cannot be determined")
    shape = tensors.entries[name].shape
    if len(shape) != axes or min(shape, default=1) < 1:
        raise DataError(f"{tensors.where}: {name} has the shape {list(shape)}, expected {axes} axes")
    return shape


def count_layers(tensors: Tensors, prefix: str, separator: str = ".") -> int:
    """How many different numbers follow `prefix` in the names. (Gaps are found later, when names are compared.)"""
    pattern = re.compile(re.escape(prefix) + r"(\d+)" + re.escape(separator))
    layers = len({found.group(1) for name in tensors.entries if (found := pattern.match(name))})
    if not layers:
        raise DataError(f"{tensors.where} holds no {prefix}0: its architecture cannot be determined")
    return layers


def heads_of(width: int, image: bool) -> int:
    """Heads of a tower whose checkpoint does not say their number."""
    return max(1, width // (HEAD_WIDTHS.get(width, HEAD_WIDTH) if image else HEAD_WIDTH))


def activation_of(overrides: Overrides, known: str | None, where: str) -> str:
    """The activation: what the user says, else what the checkpoint says (None: it does not).

    Raises:
      ConfigError: neither says anything, or the checkpoint's is not one of ACTIVATIONS.
    """
    if overrides.activation is not None:
        return overrides.activation
    if known is None:
        raise ConfigError(
            f"{where} does not say which activation its towers were trained with: give the folder with its config.json "
            "or open_clip_config.json, or give --activation quick_gelu (OpenAI's weights; MetaCLIP but for H/14 v1.2; "
            "DFN2B and DFN5B but for DFN2B's L/14-39B; LAION-400M's B/32; OpenCLIP's models named '-quickgelu') or "
            "--activation gelu (other OpenCLIP models, such as LAION-2B's)"
        )
    if known not in ACTIVATIONS:
        raise ConfigError(f"{where} has the activation {known!r}; the towers here have {' or '.join(ACTIVATIONS)}")
    return known


def preprocessing_of(overrides: Overrides, known: Preprocessing | None, where: str) -> Preprocessing:
    """How pictures are prepared: what the user says, else what the checkpoint says (None: it does not).

    Raises:
      ConfigError: neither says everything, or the user's mean or standard deviation is impossible.
    """
    mean, std, resize = overrides.mean, overrides.std, overrides.resize
    if mean and not all(math.isfinite(value) for value in mean):
        raise ConfigError(f"mean={mean}: expected three finite numbers")
    if std and not all(0 < value < math.inf for value in std):
        raise ConfigError(f"std={std}: a standard deviation must be above zero")
    if known is None and not (mean and std and resize):
        clip = Preprocessing()
        raise ConfigError(
            f"{where} does not say how its pictures were prepared: add its preprocessor_config.json or (transformers "
            "5) processor_config.json, which CLIPProcessor.save_pretrained writes, or give --resize, --mean and --std "
            f"(CLIP's: --resize {clip.resize} --mean {' '.join(map(str, clip.mean))} --std "
            f"{' '.join(map(str, clip.std))})"
        )
    known = known or Preprocessing()
    return Preprocessing(mean or known.mean, std or known.std, resize or known.resize)


@dataclasses.dataclass(frozen=True)
class TowerShape:
    """What towers of both kinds have, read from the tensors of one."""

    width: int
    layers: int
    heads: int
    hidden: int  # width inside the MLP
    table: int  # rows of its table of positions
    activation: str  # one of ACTIVATIONS


def read_tower(tensors: Tensors, blocks: str, mlp: str, positions: str, heads: int, activation: str) -> TowerShape:
    """The shape of one tower.

    Args:
      tensors: the checkpoint's.
      blocks: what stands before the number of a block, with the dot.
      mlp: name of the first matrix of a block's MLP, [hidden, width], behind the number of the block.
      positions: name of the table of positions, [rows, width].
      heads: number of attention heads.
      activation: one of ACTIVATIONS.

    Raises:
      DataError: a tensor is missing or has another number of axes.
    """
    table, width = shape_of(tensors, positions, 2)
    hidden = shape_of(tensors, f"{blocks}0.{mlp}", 2)[0]
    return TowerShape(width, count_layers(tensors, blocks), heads, hidden, table, activation)


def video_config(
    where: str, shape: TowerShape, patch_size: int, embed_dim: int, num_frames: int = 1, class_token: bool = True
) -> VideoConfig:
    """The checked config of an image or video tower.

    Args:
      where: the checkpoint, for messages.
      shape: of the tower.
      patch_size: pixels of a side.
      embed_dim: size of the space that both towers share.
      num_frames: 1 for an image model.
      class_token: whether the tower has one.

    Raises:
      DataError: the tower has sizes that this package does not support.
    """
    _check_tower(where, "image", shape)
    return VideoConfig(
        image_size=side_of(where, shape.table, class_token) * patch_size,
        patch_size=patch_size,
        num_frames=num_frames,
        width=shape.width,
        layers=shape.layers,
        heads=shape.heads,
        embed_dim=embed_dim,
        activation=shape.activation,
        mlp_width=mlp_width(shape),
        class_token=class_token,
    )


def side_of(where: str, rows: int, class_token: bool = False) -> int:
    """Patches of a side of the square picture, from the rows of the image tower's table of positions.

    Raises:
      DataError: the pictures are not square, or the table has no such rows.
    """
    side = math.isqrt(max(rows - class_token, 0))
    if side * side != rows - class_token or side < 1:
        expected = "one (the class token) and a square number" if class_token else "a square number"
        why = "the model has no class token, or its pictures are not square" if class_token else "they are not square"
        raise DataError(f"{where}: the image tower's table of positions has {rows} rows, expected {expected}: {why}")
    return side


def text_config(where: str, shape: TowerShape, vocab_size: int, embed_dim: int) -> TextConfig:
    """The checked config of a text tower; the arguments as for `video_config`.

    Raises:
      DataError: the tower has sizes that this package does not support.
    """
    _check_tower(where, "text", shape)
    return TextConfig(
        vocab_size=vocab_size,
        context_length=shape.table,
        width=shape.width,
        layers=shape.layers,
        heads=shape.heads,
        embed_dim=embed_dim,
        activation=shape.activation,
        mlp_width=mlp_width(shape),
    )


def clip_config(video: VideoConfig, text: TextConfig, preprocessing: Preprocessing) -> HarvestConfig:
    """Both towers as a model without decoder, named by its sizes."""
    config = HarvestConfig("", video, text, None, preprocessing)
    return dataclasses.replace(config, name=name_of(config))


def mlp_width(shape: TowerShape) -> int:
    """`mlp_width` of the tower's config."""
    return 0 if shape.hidden == 4 * shape.width else shape.hidden


def _check_tower(where: str, tower: str, shape: TowerShape) -> None:
    if shape.heads < 1 or shape.width % shape.heads:
        raise DataError(f"{where}: a {tower} tower of width {shape.width} cannot have {shape.heads} heads")


def name_of(config: HarvestConfig) -> str:
    """The named size of these towers; "B/16@256" at another resolution; else "ViT-WIDTHxLAYERS/PATCH".

    A tower without class token is a "SigLIP-..."; of those with rotary positions, one with a gated MLP is an "EVA-..."
    and another a "PE-...".

    Frames and activation do not count, nor does the length of the text table (ViCLIP's is cut).
    """
    video, text = config.video, config.text
    for size in SIZES:
        named = harvest_config(size)
        here = dataclasses.replace(
            video, num_frames=named.video.num_frames, activation=named.video.activation, image_size=0
        )
        words = dataclasses.replace(text, activation=named.text.activation, context_length=named.text.context_length)
        if here == dataclasses.replace(named.video, image_size=0) and words == named.text:
            plain = size.split("@")[0]
            usual = harvest_config(plain).video.image_size
            return plain if video.image_size == usual else f"{plain}@{video.image_size}"
    kind = "ViT" if video.class_token else "SigLIP"
    if video.rotary:
        kind = "EVA" if video.activation == GATED else "PE"
    return f"{kind}-{video.width}x{video.layers}/{video.patch_size}" + (
        f"@{video.image_size}" if video.image_size != 224 else ""
    )
