"""Every family of checkpoints that can be read or written.

A family is a value of `tables.Family` (the class is there, not here, so that a family's module can import it while
this one imports the module). To add one: write a module with its table, and name its value below.
"""

from harvest_jax.errors import DataError
from harvest_jax.weights.families.clip import HUGGING_FACE, OPEN_CLIP_TEXT, OPENAI, OURS
from harvest_jax.weights.families.scenic import SCENIC, SCENIC_UNDERSCORE, VIVIT
from harvest_jax.weights.families.table import Family
from harvest_jax.weights.families.viclip import VICLIP
from harvest_jax.weights.files.limits import shown
from harvest_jax.weights.files.tensors import Tensors

FAMILIES: tuple[Family, ...] = (
    OURS,
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
      DataError: none, with the names of those that are known and of a few tensors.
    """
    for family in FAMILIES:
        if family.recognise(tensors):
            return family
    known = ", ".join(family.name for family in FAMILIES)
    some = ", ".join(map(shown, list(tensors.entries)[:3]))
    raise DataError(
        f"{tensors.where} ({tensors.kind}, {len(tensors.entries)} tensors: {some}, ...) is no checkpoint of a kind "
        f"that can be imported: {known}"
    )
