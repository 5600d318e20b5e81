"""A checkpoint under other names: theirs as ours by a family's table, ours as theirs, tables of positions resized.

Everything is a `Tensors` that reads from another one: nothing is held but what is asked for at the moment.
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
from harvest_jax.weights.families.table import Family, Row, Shape, parameter_shapes
from harvest_jax.weights.files.limits import shown
from harvest_jax.weights.files.safetensors_writer import all_finite
from harvest_jax.weights.files.tensors import BFLOAT16, Entry, Tensors
from harvest_jax.weights.resize import resize_spatial, resize_temporal

FLOATS = (np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64))
HALVES = {np.dtype(np.float16), BFLOAT16}
SHOWN = 4  # names of each fault that a message lists
FRAMES, PLACES = "video/temporal_embedding", "video/spatial_embedding"


def as_ours(theirs: Tensors, family: Family, config: HarvestConfig) -> Tensors:
    """The tensors of a checkpoint as our parameters, each in the file's own dtype.

    Names and shapes are compared at once, numbers when they are read.

    Args:
      theirs: a checkpoint that `family` recognises.
      family: its names.
      config: what `family.architecture` made of it.

    Raises:
      DataError: tensors are missing, left over, of another shape, or no floating-point numbers; it lists all kinds.
    """
    shapes = parameter_shapes(config)
    rows = {row.our: row for row in family.rows(config)}
    layers = max((shapes[our][0] for our, row in rows.items() if row.stacked), default=0)
    if layers > len(theirs.entries):  # said before so many names are made
        raise DataError(f"{theirs.where} tells of {layers} layers and holds {len(theirs.entries)} tensors")
    wanted: dict[str, Shape] = {}
    for our, row in rows.items():
        for names in _names(row, shapes[our]):
            wanted |= dict(zip(names, _their_shapes(row, shapes[our]), strict=True))
    unfilled = [our for our in shapes if our not in rows and our not in family.zeros]
    if unfilled:  # a fault of the table, not of the file
        raise DataError(f"{theirs.where}: {family.name} has nothing for {_some(unfilled)}")
    _compare(theirs, family, wanted)

    def read(our: str) -> np.ndarray:
        shape = shapes[our]
        if our not in rows:
            return np.zeros(shape, entries[our].dtype)
        row = rows[our]
        parts = _names(row, shape)
        if not row.stacked:
            return row.form.ours(_arrays(theirs, parts[0]), shape)
        stacked = np.empty(shape, entries[our].dtype)
        for layer, names in enumerate(parts):
            stacked[layer] = row.form.ours(_arrays(theirs, names), shape[1:])
        return stacked

    entries: dict[str, Entry] = {}
    for our, shape in shapes.items():
        if our in rows:
            parts = [theirs.entries[name] for names in _names(rows[our], shape) for name in names]
            entries[our] = Entry(shape, _dtype_of_ours(rows[our], shape, parts))
    for our in shapes.keys() - rows.keys():
        entries[our] = Entry(shapes[our], entries[PLACES].dtype)
    return dataclasses.replace(theirs, entries={our: entries[our] for our in shapes}, read=read)


def as_theirs(ours: Tensors, family: Family, config: HarvestConfig) -> Tensors:
    """Our parameters as a family names and lays them out; those it has no place for are left out."""
    source: dict[str, tuple[Row, int | None, int]] = {}  # their name: row, layer, which of the row's parts
    entries: dict[str, Entry] = {}
    for row in family.rows(config):
        entry = ours.entries[row.our]
        shapes = _their_shapes(row, entry.shape)
        for layer, names in enumerate(_names(row, entry.shape)):
            for part, (name, shape) in enumerate(zip(names, shapes, strict=True)):
                source[name] = (row, layer if row.stacked else None, part)
                entries[name] = Entry(shape, _dtype_of_theirs(row, entry))
    kept = functools.cache(ours.read)  # files are written by name: a stacked array, mapped, is asked for layer by layer

    def read(name: str) -> np.ndarray:
        row, layer, part = source[name]
        array = kept(row.our)
        return row.form.theirs(array if layer is None else array[layer])[part]

    return dataclasses.replace(ours, entries=entries, read=read)


def resized(ours: Tensors, before: HarvestConfig, num_frames: int | None, image_size: int | None) -> Tensors:
    """Our parameters with tables of positions for other frames or another resolution (`resize.py` has the rules).

    Raises:
      ConfigError: `image_size` is no multiple of the patch size.
    """
    video = before.video
    after = resized_config(before, num_frames, image_size).video
    shapes = {FRAMES: (after.num_frames, video.width), PLACES: (1 + after.cells_per_frame, video.width)}
    entries = {
        name: dataclasses.replace(entry, shape=shapes.get(name, entry.shape)) for name, entry in ours.entries.items()
    }
    cells_before, cells_after = video.image_size // video.patch_size, after.image_size // after.patch_size

    def read(name: str) -> np.ndarray:
        array = ours.read(name)
        if name == FRAMES and after.num_frames != video.num_frames:
            return resize_temporal(array.astype(np.float32), after.num_frames)
        if name == PLACES and cells_before != cells_after:
            return resize_spatial(array.astype(np.float32), (cells_before, cells_before), (cells_after, cells_after))
        return array

    return dataclasses.replace(ours, entries=entries, read=read)


def resized_config(config: HarvestConfig, num_frames: int | None, image_size: int | None) -> HarvestConfig:
    """The towers' description after `resized`."""
    video = config.video
    if num_frames is not None and num_frames < 1:
        raise ConfigError(f"num_frames={num_frames}: a clip has one frame at least")
    if image_size is not None and (image_size < video.patch_size or image_size % video.patch_size):
        raise ConfigError(f"image_size={image_size} is no multiple of the patch size {video.patch_size}")
    video = dataclasses.replace(
        video, num_frames=num_frames or video.num_frames, image_size=image_size or video.image_size
    )
    return dataclasses.replace(config, video=video)


def one_frame(ours: Tensors) -> Tensors:
    """The image model in a video model: its table of frames, resized to one, added to every place but the class token.

    For one frame this computes what the video tower does. A table of zeros changes no bit; the sum with another one is
    kept in float32, because rounding it to a file's float16 moves embeddings by 1e-5.
    """
    frame = resize_temporal(ours.read(FRAMES).astype(np.float32), 1)
    frames, places = ours.entries[FRAMES], ours.entries[PLACES]
    entries = ours.entries | {FRAMES: dataclasses.replace(frames, shape=frame.shape)}
    if frame.any():
        entries[PLACES] = dataclasses.replace(places, dtype=np.dtype(np.float32))

    def read(name: str) -> np.ndarray:
        array = ours.read(name)
        if name == FRAMES:
            return np.zeros(frame.shape, array.dtype)
        if name == PLACES and frame.any():
            array = array.astype(np.float32)
            array[1:] += frame
        return array

    return dataclasses.replace(ours, entries=entries, read=read)


def common_dtype(dtypes: Iterable[np.dtype[Any]]) -> np.dtype[Any]:
    """The smallest of FLOATS that holds the numbers of all; numpy knows none for float16 and bfloat16."""
    return functools.reduce(lambda a, b: np.dtype(np.float32) if {a, b} == HALVES else np.promote_types(a, b), dtypes)


def _names(row: Row, shape: Shape) -> list[tuple[str, ...]]:
    """Their names: one tuple of parts per layer, or a single one. `replace`: a name may have other braces."""
    if not row.stacked:
        return [row.their]
    return [tuple(name.replace("{layer}", str(layer)) for name in row.their) for layer in range(shape[0])]


def _their_shapes(row: Row, shape: Shape) -> list[Shape]:
    """What `theirs` makes of an array of our shape, without any numbers in memory."""
    like = np.broadcast_to(np.zeros((), np.bool_), shape[1:] if row.stacked else shape)
    return [array.shape for array in _probe(row, like)]


def _probe(row: Row, like: np.ndarray) -> list[np.ndarray]:
    with np.errstate(all="ignore"):
        return row.form.theirs(like)


def _dtype_of_ours(row: Row, shape: Shape, entries: Iterable[Entry]) -> np.dtype[Any]:
    """The parts' common dtype, unless the form computes (ViCLIP's temperature)."""
    dtype = common_dtype(entry.dtype for entry in entries)
    if math.prod(shape) > 1:
        return dtype
    return row.form.ours([np.ones(shape, dtype)], shape).dtype


def _dtype_of_theirs(row: Row, entry: Entry) -> np.dtype[Any]:
    return entry.dtype if math.prod(entry.shape) > 1 else _probe(row, np.ones(entry.shape, entry.dtype))[0].dtype


def _arrays(theirs: Tensors, names: tuple[str, ...]) -> list[np.ndarray]:
    """The parts of one of our arrays, found finite, in one dtype."""
    arrays = [theirs.read(name) for name in names]
    for name, array in zip(names, arrays, strict=True):
        if not all_finite(array):
            raise DataError(f"{theirs.where}: {name} holds numbers that are not finite")
    dtype = common_dtype(array.dtype for array in arrays)
    return [array.astype(dtype, copy=False) for array in arrays]


def _compare(theirs: Tensors, family: Family, wanted: dict[str, Shape]) -> None:
    """Raise DataError unless the tensors are those of the table, buffers aside."""
    ignored = re.compile("|".join(re.escape(name).replace(r"\{layer\}", r"\d+") for name in family.ignored) or r"(?!)")
    found = {name: entry for name, entry in theirs.entries.items() if not ignored.fullmatch(name)}
    missing = [name for name in wanted if name not in found]
    left_over = [name for name in found if name not in wanted]
    both = [name for name in wanted if name in found]
    wrong = [
        f"{name} has {list(found[name].shape)}, not {list(wanted[name])}"
        for name in both
        if found[name].shape != wanted[name] and (found[name].shape, wanted[name]) != ((1,), ())
    ]
    whole = [f"{name} ({found[name].dtype})" for name in both if found[name].dtype not in FLOATS]
    faults = [
        f"{len(names)} {what}: {_some(names)}"
        for what, names in (
            (f"of {len(wanted)} tensors missing", missing),
            ("left over, with no place in the towers", list(map(shown, left_over))),
            ("of another shape", wrong),
            ("that are not floating-point numbers", whole),
        )
        if names
    ]
    if faults:
        raise DataError(f"{theirs.where}, read as {family.name}: {'; '.join(faults)}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
