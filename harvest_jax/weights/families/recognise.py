"""Every family of checkpoints that can be imported or exported.

To add one: write a module with its table, and name its `Family` below.
"""

import dataclasses
import re
from collections.abc import Iterator

from harvest_jax.errors import DataError
from harvest_jax.model.config import harvest_config
from harvest_jax.terminal import printable
from harvest_jax.weights.families.eva import EVA02, from_eva_clip
from harvest_jax.weights.families.family import Family
from harvest_jax.weights.families.hf_video import HF_VIDEO
from harvest_jax.weights.families.hugging_face import HUGGING_FACE, from_flax
from harvest_jax.weights.families.native import NATIVE
from harvest_jax.weights.families.openai import LONG_CLIP, OPEN_CLIP_TEXT, OPENAI
from harvest_jax.weights.families.perception_encoder import PE_CORE
from harvest_jax.weights.families.scenic import SCENIC, SCENIC_UNDERSCORE, VIVIT
from harvest_jax.weights.families.siglip import BIG_VISION_SIGLIP, HUGGING_FACE_SIGLIP, unscanned
from harvest_jax.weights.families.viclip import VICLIP
from harvest_jax.weights.files.tensors import Tensors

FAMILIES: tuple[Family, ...] = (
    NATIVE,
    HF_VIDEO,
    OPENAI,
    OPEN_CLIP_TEXT,
    LONG_CLIP,
    PE_CORE,
    EVA02,
    HUGGING_FACE,
    HUGGING_FACE_SIGLIP,
    BIG_VISION_SIGLIP,
    VICLIP,
    SCENIC,
    SCENIC_UNDERSCORE,
    VIVIT,
)


# Where programs keep a CLIP beside tensors of their own: Lightning modules, CLIP4Clip, InternVideo's recognition.
PARTS = ("model.", "clip.", "clip_model.", "model.clip.", "module.clip.", "backbone.", "net.")


def recognised(tensors: Tensors) -> tuple[Family, Tensors]:
    """The family of a checkpoint, and the tensors that are the family's.

    These are all; or, where a program keeps a model of the family in a part of its own (PARTS), those of that part, and
    `details["notes"]` says what was left out.

    Raises:
      DataError: the family is not known; the message says which one it looks most like.
    """
    for candidate in (tensors, *_parts(tensors)):
        for arranged in (from_flax(candidate), unscanned(candidate), from_eva_clip(candidate), candidate):
            if arranged is not None and (family := _family_of(arranged)) is not None:
                return family, arranged
    some = ", ".join(printable(name, 120) for name in list(tensors.entries)[:3])
    raise DataError(
        f"{tensors.where} ({tensors.kind}, {len(tensors.entries)} tensors: {some}, ...): the family is not known; "
        f"{_most_like(tensors)}; known families: {', '.join(family.name for family in FAMILIES)}"
    )


def family_of(tensors: Tensors) -> Family:
    """The family that all these tensors belong to, as `recognised`."""
    return recognised(tensors)[0]


def _family_of(tensors: Tensors) -> Family | None:
    return next((family for family in FAMILIES if family.recognise(tensors)), None)


def _parts(tensors: Tensors) -> Iterator[Tensors]:
    """The tensors below each of PARTS alone, under their names there."""
    for part in PARTS:
        names = {name: name.removeprefix(part) for name in tensors.entries if name.startswith(part)}
        if names:
            left = [name for name in tensors.entries if name not in names]
            first = ", ".join(printable(name, 60) for name in left[:3])
            note = f"the model is what lies below {part}; {len(left)} other tensors were left out: {first}"
            notes = [*tensors.details.get("notes", []), note + (", ..." if len(left) > 3 else "")]
            yield dataclasses.replace(tensors.renamed(names), details=tensors.details | {"notes": notes})


def _most_like(tensors: Tensors) -> str:
    """Of which family most kinds of tensors are there, whatever stands before their names."""
    found = set()
    for name in tensors.entries:
        parts = re.split(r"(?<=[./])", re.sub(r"(?<![^./_])\d+(?![^./])", "{layer}", name))
        found |= {"".join(parts[start:]) for start in range(min(len(parts), 8))}
    best, there, kinds = FAMILIES[0], 0, 1
    for family in FAMILIES:
        table = {name for mapping in family.mappings(harvest_config("demo", 1, 0)) for name in mapping.their}
        if table and len(table & found) * kinds > there * len(table):
            best, there, kinds = family, len(table & found), len(table)
    return (
        f"it looks most like {best.name}, of whose {kinds} kinds of tensors {there} are there"
        if there
        else "none of its tensors has the name of any"
    )
