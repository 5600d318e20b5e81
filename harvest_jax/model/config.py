"""The model's config: frozen dataclasses, and the named sizes, which are those of CLIP's published models.

Sizes of B/32, B/16, L/14 and L/14@336 are those of OpenAI's CLIP (arXiv 2103.00020, table 20), H/14 is OpenCLIP's
(its `model_configs/ViT-H-14.json`); `demo` is ours.
"""

import dataclasses
import sys
from typing import Any

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of RGB in 0..1, OpenAI CLIP's preprocessing
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
ACTIVATIONS = ("quick_gelu", "gelu")  # OpenAI's; OpenCLIP's for what it trained itself
HEADS = ("linear", "attentive", "answers")
RESIZES = ("crop", "squash")
IMAGE_MODEL_FRAMES = 8  # frames of a clip that an image model embeds, one by one


@dataclasses.dataclass(frozen=True)
class VideoConfig:
    """A CLIP vision transformer over the patches of `num_frames` frames."""

    image_size: int  # pixels, square
    patch_size: int
    num_frames: int
    width: int
    layers: int
    heads: int
    embed_dim: int  # of the space shared with the text
    activation: str = "quick_gelu"  # one of ACTIVATIONS

    @property
    def cells_per_frame(self) -> int:
        """Patches of one frame."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def patch_dim(self) -> int:
        """Numbers in one patch (RGB)."""
        return self.patch_size * self.patch_size * 3


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """CLIP's causal text transformer."""

    vocab_size: int
    context_length: int
    width: int
    layers: int
    heads: int
    embed_dim: int
    activation: str = "quick_gelu"  # one of ACTIVATIONS


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How pictures are prepared for the video tower; resizing is always bicubic with antialiasing."""

    mean: tuple[float, float, float] = CLIP_MEAN  # of RGB in 0..1
    std: tuple[float, float, float] = CLIP_STD
    resize: str = "crop"  # "crop": the shorter side to image_size, then the centre square; "squash": both sides


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Cross-attention blocks that predict masked words from the video tokens; as wide as the text tower."""

    layers: int
    width: int
    heads: int
    memory_width: int  # of the video tokens
    vocab_size: int


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """A classifier that was fine-tuned; see `heads.py` for what each kind reads."""

    kind: str  # one of HEADS
    classes: tuple[str, ...]  # names of its outputs, in their order, each once


@dataclasses.dataclass(frozen=True)
class HarvestConfig:
    """The whole model; `decoder` is None if no words are predicted (an imported CLIP), `head` without fine-tuning."""

    name: str
    video: VideoConfig
    text: TextConfig
    decoder: DecoderConfig | None
    preprocessing: Preprocessing = Preprocessing()
    head: HeadConfig | None = None

    def for_clips(self, num_frames: int, decoder_layers: int) -> "HarvestConfig":
        """These towers with another number of frames, a decoder of `decoder_layers` layers (0: none), and no head."""
        video, text = dataclasses.replace(self.video, num_frames=num_frames), self.text
        decoder = DecoderConfig(decoder_layers, text.width, text.heads, video.width, text.vocab_size)
        return dataclasses.replace(self, video=video, decoder=decoder if decoder_layers else None, head=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, for config.json of a model folder; `head` is there only if there is one."""
        values = dataclasses.asdict(self)
        if self.head is None:
            del values["head"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "HarvestConfig":
        """Inverse of `to_dict`; the values may come from any file and are all checked.

        Raises:
          TypeError, KeyError, ValueError, AttributeError: fields are missing, unknown or impossible.
        """
        decoder, preprocessing = values["decoder"], values.get("preprocessing", {})
        fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in preprocessing.items()}
        pictures = Preprocessing(**fields)
        numbers = all(len(row) == 3 and all(map(is_number, row)) for row in (pictures.mean, pictures.std))
        if pictures.resize not in RESIZES or not numbers or min(pictures.std) <= 0:
            raise ValueError(f"impossible preprocessing {preprocessing}")
        for tower in ("video", "text"):
            if values[tower].get("activation", "quick_gelu") not in ACTIVATIONS:
                raise ValueError(f"unknown activation {values[tower]['activation']!r}")
        config = cls(
            name=str(values["name"]),
            video=VideoConfig(**values["video"]),
            text=TextConfig(**values["text"]),
            decoder=None if decoder is None else DecoderConfig(**decoder),
            preprocessing=pictures,
            head=_head(values.get("head")),
        )
        if not config.name.isprintable() or len(config.name) > 200:
            raise ValueError("the name is too long or cannot be printed")
        for part in (config.video, config.text, config.decoder):
            for name, value in () if part is None else vars(part).items():
                if name != "activation" and (type(value) is not int or not 0 < value < 1 << 31):
                    raise ValueError(f"{name} is not a positive whole number")
            if part is not None and part.width % part.heads:
                raise ValueError(f"{part.heads} heads do not divide a width of {part.width}")
        return config


def _head(values: Any) -> HeadConfig | None:
    if values is None:
        return None
    head = HeadConfig(values["kind"], tuple(values["classes"]))
    names = all(isinstance(name, str) and name for name in head.classes)
    if head.kind not in HEADS or not names or not head.classes or len(set(head.classes)) < len(head.classes):
        raise ValueError("impossible head")
    return head


def is_number(value: object) -> bool:
    """Whether it is a finite number in the range of a float: JSON has infinities, NaN, and integers of any length."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


# (image, patch, video width, layers, heads), (vocabulary, context, text width, layers, heads), shared dim., activation
_SIZES = {
    "demo": ((64, 8, 64, 3, 4), (4096, 32, 64, 3, 4), 64, "quick_gelu"),
    "world": ((64, 8, 64, 3, 4), (4096, 48, 64, 3, 4), 64, "quick_gelu"),  # docs/world.md: its captions are longer
    "B/32": ((224, 32, 768, 12, 12), (49408, 77, 512, 12, 8), 512, "quick_gelu"),
    "B/16": ((224, 16, 768, 12, 12), (49408, 77, 512, 12, 8), 512, "quick_gelu"),
    "L/14": ((224, 14, 1024, 24, 16), (49408, 77, 768, 12, 12), 768, "quick_gelu"),
    "L/14@336": ((336, 14, 1024, 24, 16), (49408, 77, 768, 12, 12), 768, "quick_gelu"),
    "H/14": ((224, 14, 1280, 32, 16), (49408, 77, 1024, 24, 16), 1024, "gelu"),
}


def harvest_config(size: str, num_frames: int = 8, decoder_layers: int = 4) -> HarvestConfig:
    """A named size; `num_frames=1, decoder_layers=0` is CLIP itself."""
    (image_size, patch_size, width, layers, heads), text, embed_dim, activation = _SIZES[size]
    vocab_size, context_length, text_width, text_layers, text_heads = text
    return HarvestConfig(
        name=size,
        video=VideoConfig(image_size, patch_size, num_frames, width, layers, heads, embed_dim, activation),
        text=TextConfig(vocab_size, context_length, text_width, text_layers, text_heads, embed_dim, activation),
        decoder=DecoderConfig(decoder_layers, text_width, text_heads, width, vocab_size) if decoder_layers else None,
    )
