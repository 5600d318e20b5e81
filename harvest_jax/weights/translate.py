"""A family's tensors as this package's parameters, and the other way; tables of positions resized.

Each function gives a `Tensors` that reads from another one: only what is asked for at the moment is in memory.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.model.config import HarvestConfig
from harvest_jax.model.harvest import parameter_shapes
from harvest_jax.terminal import printable
from harvest_jax.weights.families.conversions import Shape
from harvest_jax.weights.families.family import Family, KeyMapping
from harvest_jax.weights.files.safetensors_writer import all_finite
from harvest_jax.weights.files.tensors import BFLOAT16, Tensors, TensorSpec
from harvest_jax.weights.resize import resize_spatial, resize_temporal

FLOATS = (np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64))
HALVES = {np.dtype(np.float16), BFLOAT16}
NAMES_IN_MESSAGE = 4  # of each kind of fault
FRAMES, POSITIONS = "video/temporal_embedding", "video/spatial_embedding"


def to_native(theirs: Tensors, family: Family, config: HarvestConfig) -> Tensors:
    """The tensors of a checkpoint as our parameters, each in the file's own dtype.

    Names and shapes are compared now, numbers are checked when they are read.

    Args:
      theirs: a checkpoint that `family` recognises.
      family: its names.
      config: from `family.architecture`.

    Raises:
      DataError: tensors are missing, left over, of another shape, or not floating-point; the message lists all of it.
    """
    shapes = parameter_shapes(config)
    mappings = {mapping.our: mapping for mapping in family.mappings(config)}
    layers = max((shapes[our][0] for our, mapping in mappings.items() if mapping.stacked), default=0)
    if layers > len(theirs.entries):  # checked before a name is made for each of them
        raise DataError(f"{theirs.where} has a config of {layers} layers and only {len(theirs.entries)} tensors")
    wanted: dict[str, Shape] = {}
    for our, mapping in mappings.items():
        for names in _names(mapping, shapes[our]):
            wanted |= dict(zip(names, _their_shapes(mapping, shapes[our]), strict=True))
    unfilled = [our for our in shapes if our not in mappings and our not in family.zeros]
    if unfilled:  # a fault of the table, not of the file
        raise DataError(f"{theirs.where}: {family.name} has no tensor for {_first(unfilled)}")
    _compare(theirs, family, wanted)

    def read(our: str) -> np.ndarray:
        shape = shapes[our]
        if our not in mappings:
            return np.zeros(shape, entries[our].dtype)
        mapping = mappings[our]
        parts = _names(mapping, shape)
        if not mapping.stacked:
            return mapping.conversion.ours(_arrays(theirs, parts[0]), shape)
        stacked = np.empty(shape, entries[our].dtype)
        for layer, names in enumerate(parts):
            stacked[layer] = mapping.conversion.ours(_arrays(theirs, names), shape[1:])
        return stacked

    entries: dict[str, TensorSpec] = {}
    for our, shape in shapes.items():
        if our in mappings:
            parts = [theirs.entries[name] for names in _names(mappings[our], shape) for name in names]
            entries[our] = TensorSpec(shape, _dtype_of_ours(mappings[our], shape, parts))
    for our in shapes.keys() - mappings.keys():
        entries[our] = TensorSpec(shapes[our], entries[POSITIONS].dtype)
    return dataclasses.replace(theirs, entries={our: entries[our] for our in shapes}, read=read)


def to_family(ours: Tensors, family: Family, config: HarvestConfig) -> Tensors:
    """Our parameters under a family's names and in its layout; those that the family does not have are left out."""
    source: dict[str, tuple[KeyMapping, int | None, int]] = {}  # their name: mapping, layer, number of the part
    entries: dict[str, TensorSpec] = {}
    for mapping in family.mappings(config):
        entry = ours.entries[mapping.our]
        shapes = _their_shapes(mapping, entry.shape)
        for layer, names in enumerate(_names(mapping, entry.shape)):
            for part, (name, shape) in enumerate(zip(names, shapes, strict=True)):
                source[name] = (mapping, layer if mapping.stacked else None, part)
                entries[name] = TensorSpec(shape, _dtype_of_theirs(mapping, entry))
    kept = functools.cache(ours.read)  # files are written in the order of names: a stacked array is asked for often

    def read(name: str) -> np.ndarray:
        mapping, layer, part = source[name]
        array = kept(mapping.our)
        return mapping.conversion.theirs(array if layer is None else array[layer])[part]

    return dataclasses.replace(ours, entries=entries, read=read)


def resized(ours: Tensors, before: HarvestConfig, num_frames: int | None, image_size: int | None) -> Tensors:
    """Our parameters with tables of positions for other frames or another resolution (`resize.py` has the rules).

    Raises:
      ConfigError: `num_frames` is below 1, or `image_size` is not a multiple of the patch size.
    """
    video = before.video
    after = resized_config(before, num_frames, image_size).video
    shapes = {FRAMES: (after.num_frames, video.width), POSITIONS: (after.positions, video.width)}
    entries = {
        name: dataclasses.replace(entry, shape=shapes.get(name, entry.shape)) for name, entry in ours.entries.items()
    }
    cells_before, cells_after = video.image_size // video.patch_size, after.image_size // after.patch_size

    def read(name: str) -> np.ndarray:
        array = ours.read(name)
        if name == FRAMES and after.num_frames != video.num_frames:
            return resize_temporal(array.astype(np.float32), after.num_frames)
        if name == POSITIONS and cells_before != cells_after:
            grids = (cells_before, cells_before), (cells_after, cells_after)
            return resize_spatial(array.astype(np.float32), *grids, video.tokens_beside)
        return array

    return dataclasses.replace(ours, entries=entries, read=read)


def resized_config(config: HarvestConfig, num_frames: int | None, image_size: int | None) -> HarvestConfig:
    """The config of the parameters after `resized`.

    Raises:
      ConfigError: as for `resized`.
    """
    video = config.video
    if num_frames is not None and num_frames < 1:
        raise ConfigError(f"num_frames={num_frames}: must be 1 or more")
    if image_size is not None and (image_size < video.patch_size or image_size % video.patch_size):
        raise ConfigError(f"image_size={image_size}: must be a multiple of the patch size {video.patch_size}")
    video = dataclasses.replace(
        video, num_frames=num_frames or video.num_frames, image_size=image_size or video.image_size
    )
    return dataclasses.replace(config, video=video)


def one_frame(ours: Tensors) -> Tensors:
    """The image model in a video model: its table of frames, resized to one, is added to the table of patch positions.

    For one frame this computes what the video tower does. The row of the class token stays. A table of zeros changes
    nothing; another sum is kept in float32, because rounding it to a file's float16 moves embeddings by 1e-5.
    """
    frame = resize_temporal(ours.read(FRAMES).astype(np.float32), 1)
    frames, positions = ours.entries[FRAMES], ours.entries[POSITIONS]
    beside = int("video/class_embedding" in ours.entries)  # rows of the table that are no patches'
    entries = ours.entries | {FRAMES: dataclasses.replace(frames, shape=frame.shape)}
    if frame.any():
        entries[POSITIONS] = dataclasses.replace(positions, dtype=np.dtype(np.float32))

    def read(name: str) -> np.ndarray:
        array = ours.read(name)
        if name == FRAMES:
            return np.zeros(frame.shape, array.dtype)
        if name == POSITIONS and frame.any():
            array = array.astype(np.float32)
            array[beside:] += frame
        return array

    return dataclasses.replace(ours, entries=entries, read=read)


def common_dtype(dtypes: Iterable[np.dtype[Any]]) -> np.dtype[Any]:
    """The smallest of FLOATS that holds the numbers of all. (numpy has no rule for float16 with bfloat16.)"""
    return functools.reduce(lambda a, b: np.dtype(np.float32) if {a, b} == HALVES else np.promote_types(a, b), dtypes)


def _names(mapping: KeyMapping, shape: Shape) -> list[tuple[str, ...]]:
    """Their names: one tuple of parts for each layer, or a single tuple."""
    if not mapping.stacked:
        return [mapping.their]
    # not str.format: a name may have other braces
    return [tuple(name.replace("{layer}", str(layer)) for name in mapping.their) for layer in range(shape[0])]


def _their_shapes(mapping: KeyMapping, shape: Shape) -> list[Shape]:
    """The shapes of their arrays, from a view of our shape that holds one number."""
    like = np.broadcast_to(np.zeros((), np.bool_), shape[1:] if mapping.stacked else shape)
    return [array.shape for array in _probe(mapping, like)]


def _probe(mapping: KeyMapping, like: np.ndarray) -> list[np.ndarray]:
    with np.errstate(all="ignore"):
        return mapping.conversion.theirs(like)


def _dtype_of_ours(mapping: KeyMapping, shape: Shape, entries: Iterable[TensorSpec]) -> np.dtype[Any]:
    """The parts' common dtype; of a single number that of the conversion, which may compute (ViCLIP's temperature)."""
    dtype = common_dtype(entry.dtype for entry in entries)
    if math.prod(shape) > 1:
        return dtype
    return mapping.conversion.ours([np.ones(shape, dtype)], shape).dtype


def _dtype_of_theirs(mapping: KeyMapping, entry: TensorSpec) -> np.dtype[Any]:
    return entry.dtype if math.prod(entry.shape) > 1 else _probe(mapping, np.ones(entry.shape, entry.dtype))[0].dtype


def _arrays(theirs: Tensors, names: tuple[str, ...]) -> list[np.ndarray]:
    """The parts of one of our arrays, checked to be finite, in one dtype."""
    arrays = [theirs.read(name) for name in names]
    for name, array in zip(names, arrays, strict=True):
        if not all_finite(array):
            raise DataError(f"{theirs.where}: {name} holds numbers that are not finite")
    dtype = common_dtype(array.dtype for array in arrays)
    return [array.astype(dtype, copy=False) for array in arrays]


def _compare(theirs: Tensors, family: Family, wanted: dict[str, Shape]) -> None:
    """Raise DataError unless the tensors are those of the table (and those that it ignores)."""
    ignored = re.compile("|".join(re.escape(name).replace(r"\{layer\}", r"\d+") for name in family.ignored) or r"(?!)")
    found = {name: entry for name, entry in theirs.entries.items() if not ignored.fullmatch(name)}
    missing = [name for name in wanted if name not in found]
    left_over = [name for name in found if name not in wanted]
    both = [name for name in wanted if name in found]
    wrong = [
        f"{name} has {list(found[name].shape)}, expected {list(wanted[name])}"
        for name in both
        if found[name].shape != wanted[name] and (found[name].shape, wanted[name]) != ((1,), ())
    ]
    not_floats = [f"{name} ({found[name].dtype})" for name in both if found[name].dtype not in FLOATS]
    faults = [
        f"{len(names)} {what}: {_first(names)}"
        for what, names in (
            (f"of {len(wanted)} tensors missing", missing),
            ("that no part of the model uses", [printable(name, 120) for name in left_over]),
            ("of another shape", wrong),
            ("that are not floating-point numbers", not_floats),
        )
        if names
    ]
    if faults:
        raise DataError(f"{theirs.where}, read as {family.name}: {'; '.join(faults)}")


def _first(names: list[str]) -> str:
    return ", ".join(names[:NAMES_IN_MESSAGE]) + (", ..." if len(names) > NAMES_IN_MESSAGE else "")
