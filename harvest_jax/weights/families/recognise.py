"""Every family of checkpoints that can be imported or exported.

To add one: write a module with its table, and name its `Family` below.
"""

from harvest_jax.errors import DataError
from harvest_jax.terminal import printable
from harvest_jax.weights.families.family import Family
from harvest_jax.weights.families.hf_video import HF_VIDEO
from harvest_jax.weights.families.hugging_face import HUGGING_FACE
from harvest_jax.weights.families.native import NATIVE
from harvest_jax.weights.families.openai import OPEN_CLIP_TEXT, OPENAI
from harvest_jax.weights.families.scenic import SCENIC, SCENIC_UNDERSCORE, VIVIT
from harvest_jax.weights.families.viclip import VICLIP
from harvest_jax.weights.files.tensors import Tensors

FAMILIES: tuple[Family, ...] = (
    NATIVE,
    HF_VIDEO,
    OPENAI,
    OPEN_CLIP_TEXT,
    HUGGING_FACE,
    VICLIP,
    SCENIC,
    SCENIC_UNDERSCORE,
    VIVIT,
)


def family_of(tensors: Tensors) -> Family:
    """The family that these tensors belong to.

    Raises:
      DataError: none; the message names the known families and a few of the tensors.
    """
    for family in FAMILIES:
        if family.recognise(tensors):
            return family
    known = ", ".join(family.name for family in FAMILIES)
    some = ", ".join(printable(name, 120) for name in list(tensors.entries)[:3])
    raise DataError(
        f"{tensors.where} ({tensors.kind}, {len(tensors.entries)} tensors: {some}, ...): the family is not known; "
        f"known families: {known}"
    )
