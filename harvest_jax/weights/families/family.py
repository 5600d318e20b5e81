"""What is known of a family of checkpoints: how to recognise it, its towers, and its table of names.

A table serves both directions, import and export. In names `{layer}` stands for the number of a block; parameters of
blocks have a leading axis over all layers in this package.
"""

import dataclasses
from collections.abc import Callable

from harvest_jax.model.config import HarvestConfig
from harvest_jax.weights.families.conversions import Conversion
from harvest_jax.weights.files.tensors import Tensors


@dataclasses.dataclass(frozen=True)
class KeyMapping:
    """One line of a table: a parameter of this package, and the tensors of a file that hold it."""

    our: str  # path in the parameter tree, such as "video/transformer/blocks/attn/qkv/kernel"
    their: tuple[str, ...]  # one name, or those of several tensors that are one array here
    conversion: Conversion

    @property
    def stacked(self) -> bool:
        """Whether it stands for one tensor per layer."""
        return "{layer}" in self.their[0]


@dataclasses.dataclass(frozen=True)
class Overrides:
    """What the user says of a checkpoint; it takes precedence over what the files say. None: not said."""

    activation: str | None = None  # of both towers, one of ACTIVATIONS
    resize: str | None = None  # how pictures were made square, one of RESIZES
    mean: tuple[float, float, float] | None = None  # of RGB in 0..1
    std: tuple[float, float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Family:
    """Checkpoints that share names.

    The values of this class stand in the modules of this folder, one module a family; `recognise.FAMILIES` lists them.
    """

    name: str  # for messages: "Hugging Face CLIP"
    recognise: Callable[[Tensors], bool]
    """Whether these are tensors of this family, from names and details alone. Families exclude each other."""

    architecture: Callable[[Tensors, Overrides], HarvestConfig]
    """The towers, from names, shapes and details; `decoder` None, `preprocessing` included.

    Raises DataError for towers that this package does not support, ConfigError where the user must give what is not in
    the files.
    """

    mappings: Callable[[HarvestConfig], tuple[KeyMapping, ...]]
    """The table. It depends on nothing but the config, so that it serves for export too."""

    ignored: tuple[str, ...] = ()
    """Names of tensors that hold nothing learnt (masks, position numbers); `{layer}` stands for any number."""

    zeros: tuple[str, ...] = ()
    """Our parameters that the family does not have and that are zero then (an image model's table of frames)."""

    own_tokenizer: bool = False
    """Whether its models are read with a tokenizer of their own, a `tokenizer.json`, instead of CLIP's."""

    notes: Callable[[Tensors, Overrides], list[str]] = lambda tensors, overrides: []
    """Sentences that the user should read after an import: what was assumed."""
