"""The model's config: frozen dataclasses, and the named sizes, which are those of CLIP's published models.

Sizes of B/32, B/16, L/14 and L/14@336 are those of OpenAI's CLIP (arXiv 2103.00020, table 20), H/14 is OpenCLIP's
(its `model_configs/ViT-H-14.json`); `demo` is ours.
"""

import dataclasses
import re
import sys
from typing import Any

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of RGB in 0..1, OpenAI CLIP's preprocessing
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
ACTIVATIONS = ("quick_gelu", "gelu", "gelu_tanh")  # OpenAI's; OpenCLIP's for what it trained itself; SigLIP's
GATED = "swiglu"  # of video towers, EVA-02's: a product through SiLU times another product
NORM_EPS = 1e-5  # CLIP's; SigLIP's is 1e-6
VIDEO_POOLINGS = ("class", "attention")
TEXT_POOLINGS = ("end", "last")
# Fields of the towers that version 0.1.0 did not have: true or false; numbers that may be zero; others.
FLAGS = {"class_token", "patch_bias", "pre_norm", "projection", "causal", "projection_bias", "inner_norms", "rotary"}
FROM_ZERO = {"mlp_width", "rotary_start", "rotary_grid", "pooling_heads", "pooling_mlp_width"}
YOUNGER = FLAGS | FROM_ZERO | {"norm_eps", "pooling", "tokenizer"}
HEADS = ("linear", "attentive", "answers")
RESIZES = ("crop", "squash")
IMAGE_MODEL_FRAMES = 8  # frames of a clip that an image model embeds, one by one


@dataclasses.dataclass(frozen=True)
class VideoConfig:
    """A vision transformer over the patches of `num_frames` frames; with the defaults, CLIP's.

    SigLIP's has no class token, a bias on the patches instead of a norm before the first block, attention pooling, and
    no projection. EVA-02-CLIP's and Perception Encoder's turn queries and keys by the row and column of their patch in
    its frame (`rotary`). `to_dict` leaves out what is as in CLIP.
    """

    image_size: int  # pixels, square
    patch_size: int
    num_frames: int
    width: int
    layers: int
    heads: int
    embed_dim: int  # of the space shared with the text
    activation: str = "quick_gelu"  # one of ACTIVATIONS, or GATED
    mlp_width: int = 0  # inside the blocks' MLP; 0: four times `width`
    norm_eps: float = NORM_EPS
    inner_norms: bool = False  # in each block, before the last matrix of attention and of the MLP
    rotary: bool = False  # rotary positions of the patches, beside their table
    rotary_start: int = 0  # the number of a frame's first row and column
    rotary_grid: int = 0  # a side is counted as if it had so many patches; 0: as many as it has
    class_token: bool = True
    patch_bias: bool = False
    pre_norm: bool = True  # a norm before the first block
    pooling: str = "class"  # one of VIDEO_POOLINGS: the class token, or a learned query's attention to all tokens
    pooling_heads: int = 0  # of a learned query; 0: as many as the blocks have
    pooling_mlp_width: int = 0  # behind a learned query; 0: as in the blocks
    projection: bool = True  # False: what is pooled is the embedding
    projection_bias: bool = False

    @property
    def tokens_beside(self) -> int:
        """Tokens of a clip that are no patches."""
        return int(self.class_token)

    @property
    def positions(self) -> int:
        """Rows of the spatial table: one of the class token, and one of each patch of a frame."""
        return self.tokens_beside + self.cells_per_frame

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
    """A text transformer; with the defaults, CLIP's, which is causal.

    SigLIP's sees the whole text, padding included, and pools the last position: its texts have exactly
    `context_length` tokens. `to_dict` leaves out what is as in CLIP.
    """

    vocab_size: int
    context_length: int
    width: int
    layers: int
    heads: int
    embed_dim: int
    activation: str = "quick_gelu"  # one of ACTIVATIONS
    mlp_width: int = 0  # inside the blocks' MLP; 0: four times `width`
    norm_eps: float = NORM_EPS
    causal: bool = True
    pooling: str = "end"  # one of TEXT_POOLINGS: the end token, or the last position
    projection_bias: bool = False
    tokenizer: str = ""  # "": CLIP's; else the SHA-256 of the tokenizer.json in the model's folder

    @property
    def fixed_length(self) -> bool:
        """Whether every text must have `context_length` tokens, because padding changes what the tower computes."""
        return self.pooling == "last" or not self.causal


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
    logit_bias: bool = False  # whether it was trained with the sigmoid loss, whose bias is a parameter

    def for_clips(self, num_frames: int, decoder_layers: int) -> "HarvestConfig":
        """These towers with another number of frames, a decoder of `decoder_layers` layers (0: none), and no head."""
        video, text = dataclasses.replace(self.video, num_frames=num_frames), self.text
        decoder = DecoderConfig(decoder_layers, text.width, text.heads, video.width, text.vocab_size)
        return dataclasses.replace(self, video=video, decoder=decoder if decoder_layers else None, head=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, for config.json of a model folder.

        Fields that are younger than version 0.1.0 are left out where they say the same as older versions did.
        """
        values = dataclasses.asdict(self)
        if self.head is None:
            del values["head"]
        if not self.logit_bias:
            del values["logit_bias"]
        for name, tower in (("video", self.video), ("text", self.text)):
            for field in dataclasses.fields(tower):
                if field.name in YOUNGER and getattr(tower, field.name) == field.default:
                    del values[name][field.name]
        return values

    @property
    def unlike_clip(self) -> list[str]:
        """In what the towers are no CLIP's, as "text.causal=False"; the width of the MLP does not count."""
        return [
            f"{name}.{field.name}={getattr(tower, field.name)!r}"
            for name, tower in (("video", self.video), ("text", self.text))
            for field in dataclasses.fields(tower)
            if field.name in YOUNGER - {"mlp_width"} and getattr(tower, field.name) != field.default
        ]

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
        video_kinds = (*ACTIVATIONS, GATED)
        for tower, kinds, poolings in (("video", video_kinds, VIDEO_POOLINGS), ("text", ACTIVATIONS, TEXT_POOLINGS)):
            for name, known in (("activation", kinds), ("pooling", poolings)):
                if values[tower].get(name, known[0]) not in known:
                    raise ValueError(f"unknown {name} {values[tower][name]!r}")
        config = cls(
            name=str(values["name"]),
            video=VideoConfig(**values["video"]),
            text=TextConfig(**values["text"]),
            decoder=None if decoder is None else DecoderConfig(**decoder),
            preprocessing=pictures,
            head=_head(values.get("head")),
            logit_bias=values.get("logit_bias", False),
        )
        if not config.name.isprintable() or len(config.name) > 200:
            raise ValueError("the name is too long or cannot be printed")
        for part in (config.video, config.text, config.decoder):
            for name, value in () if part is None else vars(part).items():
                _check_field(name, value)
            if part is not None and part.width % part.heads:
                raise ValueError(f"{part.heads} heads do not divide a width of {part.width}")
        if type(config.logit_bias) is not bool:
            raise ValueError("logit_bias is neither true nor false")
        if not config.video.class_token and config.video.pooling == "class":
            raise ValueError("a video tower without a class token cannot pool it")
        if config.video.rotary and config.video.width // config.video.heads % 4:
            raise ValueError("rotary positions need heads whose width is a multiple of four")
        if config.video.width % (config.video.pooling_heads or 1):
            raise ValueError(f"{config.video.pooling_heads} heads do not divide a width of {config.video.width}")
        if not config.video.projection and config.video.embed_dim != config.video.width:
            raise ValueError("a video tower without a projection has embeddings of its own width")
        return config


def _check_field(name: str, value: Any) -> None:
    """Raise ValueError unless a tower or decoder may have this field with this value."""
    if name in ("activation", "pooling"):
        return
    if name == "tokenizer":
        if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}|", value):
            raise ValueError("tokenizer is not the SHA-256 of a file")
    elif name in FLAGS:
        if type(value) is not bool:
            raise ValueError(f"{name} is neither true nor false")
    elif name == "norm_eps":
        if not is_number(value) or not 0 < value < 1:
            raise ValueError("norm_eps is not a number between 0 and 1")
    elif type(value) is not int or not 0 <= value < 1 << 31 or (value == 0 and name not in FROM_ZERO):
        raise ValueError(f"{name} is not a positive whole number")


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
