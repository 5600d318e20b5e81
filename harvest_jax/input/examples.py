"""From a stored record to a training example: the random choices, and the pixels that are kept."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from jaxtyping import Int, UInt8

from data_pipeline.shards import shard_format
from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.input.file_tokenizer import TextTokenizer
from harvest_jax.input.jpeg_tiles import TILE
from harvest_jax.input.motion import motion_weights
from harvest_jax.input.patches import keep_positions
from harvest_jax.input.stored_clip import StoredClip
from harvest_jax.input.targets import MakeTexts, texts_maker
from harvest_jax.pixels.frame_sampling import segment_indices
from harvest_jax.pixels.resample import kept_patches, touched_tiles
from harvest_jax.pixels.square import center_crop, random_crop

_TRIES = 16  # records tried instead of a damaged one, until the set counts as unusable


@dataclasses.dataclass(frozen=True)
class Numbered:
    """An element (set, record) with its position in the endless global order."""

    index: int
    element: tuple[int, int]


class Records:
    """The records of a split by number, and their decoding with errors that say which record it was.

    As a Grain source its elements are (which, number): `MakeExample` reads the record, or another one if it is damaged.
    """

    def __init__(self, folder: str, split: str, which: int = 0) -> None:
        self.folder = folder
        self._split = split
        self._which = which  # number of this set in a mixture
        self._shards = shard_format.open_shards(folder, split)
        if not len(self._shards):
            raise ConfigError(f"split {split!r} of {folder} has no clips: set data.split or data.shards")

    @property
    def digest(self) -> str:
        """Of the shards."""
        return self._shards.digest

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, number: int) -> tuple[int, int]:
        return self._which, number

    def __repr__(self) -> str:
        return f"{self.folder}:{self._split}"

    def read(self, number: int) -> shard_format.Record:
        """The record; DataError with its number if it cannot be read or has no frames."""
        raw = self._shards[number]
        try:
            record = shard_format.parse_record(raw)
        except DataError as error:
            raise self.error(number, "", str(error)) from error
        if not record.jpegs:
            raise self.error(number, record.id, "no frames")
        return record

    def frames(
        self, number: int, record: shard_format.Record, chosen: np.ndarray
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """The chosen frames one after the other; DataError if one is not a JPEG or the sizes differ."""
        shape = None
        for which in chosen.tolist():
            try:
                frame = shard_format.decode_frame(record.jpegs[which])
            except ValueError as error:
                raise self.error(number, record.id, f"frame {which} cannot be read as JPEG ({error})") from error
            if shape not in (None, frame.shape):
                raise self.error(number, record.id, f"frame {which} is {frame.shape}, another is {shape}")
            shape = frame.shape
            yield frame

    def error(self, number: int, name: str, fault: str) -> DataError:
        """A DataError that names the record."""
        which = f"record {number}" + (f" (id {name})" if name else "")
        return DataError(
            f"{which} of split {self._split} in {self.folder}: {fault}; write the shards again with `harvest shards`"
        )


@dataclasses.dataclass(frozen=True)
class MakeExample(grain.transforms.RandomMap):
    """From one element to one training example; all randomness comes from the generator that Grain seeds by index."""

    sets: tuple[Records, ...]
    run: RunConfig
    image_size: int
    patch_size: int
    tokenizer: TextTokenizer
    classes: tuple[str, ...] = ()

    def random_map(self, element: Numbered, rng: np.random.Generator) -> dict[str, Any]:
        """The example, see `training_batches` for its arrays, and the number of the record if it was damaged, or -1.

        If damaged records are allowed, the next good record of the set replaces one.
        """
        which, number = element.element
        records = self.sets[which]
        damaged = -1
        for _ in range(min(_TRIES, len(records)) if self.run.data.bad_records else 1):
            try:
                example = self._example(element.index, records, number, rng)
                return example | {"index": np.int64(element.index), "damaged": np.array([which, damaged])}
            except DataError as error:
                fault = error
                damaged = number if damaged < 0 else damaged
                number = (number + 1) % len(records)
        raise fault

    def _example(self, index: int, records: Records, number: int, rng: np.random.Generator) -> dict[str, Any]:
        model, data, train = self.run.model, self.run.data, self.run.train
        record = records.read(number)
        if not record.captions and self.run.objective.name == "post_pretraining":
            raise records.error(number, record.id, "no caption")
        chosen = segment_indices(len(record.jpegs), model.num_frames, rng if data.sampling == "random" else None)
        # the position of a clip in the global order determines its step
        unmasked = index // train.batch_size >= train.steps - train.unmasked_steps
        keep = 1.0 if unmasked else model.keep_ratio
        try:
            patches, positions = self._crop_and_drop(
                StoredClip([record.jpegs[which] for which in chosen.tolist()]), keep, rng
            )
            texts = self._texts(record, rng)
        except ValueError as error:
            raise records.error(number, record.id, str(error)) from error
        return {"patches": patches, "positions": positions, **texts}

    @functools.cached_property
    def _texts(self) -> MakeTexts:
        return texts_maker(self.run, self.tokenizer, self.classes)

    def __getstate__(self) -> dict[str, Any]:
        """Without the function, which cannot be pickled: each loader process makes its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_texts"}

    def _crop_and_drop(
        self, clip: StoredClip, keep: float, rng: np.random.Generator
    ) -> tuple[UInt8[np.ndarray, "K P"], Int[np.ndarray, " K"]]:
        """Crop a clip and drop patches at random; dropped patches are not decoded where that saves time."""
        model, data, size, patch = self.run.model, self.run.data, self.image_size, self.patch_size
        flip = data.flip and bool(rng.random() < 0.5)
        crop = (
            random_crop(clip.height, clip.width, data.min_scale, flip, rng)
            if data.crop == "random"
            else center_crop(clip.height, clip.width, flip)
        )
        cells = (size // patch) ** 2
        if model.drop_scope == "motion" and keep < 1:  # this needs all frames
            frames = np.stack(list(clip.frames()))
            weights = motion_weights(frames, crop, size // patch)
            positions = keep_positions(rng, model.num_frames, cells, keep, model.drop_scope, weights)
            return kept_patches(frames, crop, size, patch, positions), positions
        positions = keep_positions(rng, model.num_frames, cells, keep, model.drop_scope)
        touched = touched_tiles(crop, size, patch, positions, clip.tiles, TILE)
        return kept_patches(clip.frames_with(touched), crop, size, patch, positions), positions
