"""Shards to batches: the Grain chain of training, and the plain loop of evaluation.

    records -> shuffle -> repeat -> mix -> example (sample, crop, drop, decode, tokenize, mask) -> share of a process
    -> batch

Every step is a function of an index, so the batch at step k is computed from (seed, k) alone: the position in the data
is one number, the same for any number of loader processes, and no random state is carried along. Only kept patches
leave the loader.
"""

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np
import simplejpeg
from absl import flags
from jaxtyping import Int, UInt8

from data_pipeline import shard_format
from harvest_jax.config import RunConfig
from harvest_jax.errors import ConfigError, DataError, HarvestError
from harvest_jax.input.frames import center_crop, fit, random_crop, segment_indices
from harvest_jax.input.jpeg_tiles import TILE
from harvest_jax.input.motion import motion_weights
from harvest_jax.input.patches import keep_positions
from harvest_jax.input.resample import kept_patches, touched_tiles
from harvest_jax.input.stored_clip import StoredClip
from harvest_jax.input.text_masking import mask_slots, num_slots
from harvest_jax.input.tokenizer import Tokenizer

__all__ = ["Batches", "evaluation_clips", "training_batches"]

Batch = dict[str, np.ndarray]


def training_batches(
    run: RunConfig,
    image_size: int,
    patch_size: int,
    tokenizer: Tokenizer,
    process_index: int,
    process_count: int,
) -> "Batches":
    """The endless sequence of this process's parts of the global batches.

    A batch is a dict of numpy arrays, B = batch_size / process_count rows:
      patches uint8 [B, K, P], positions int32 [B, K] (cell in the T x h x w grid), ids int32 [B, L],
      slots int32 [B, M], slot_weights float32 [B, M], index int64 [B] (position in the endless global order).

    Row r of process p is row p + r * process_count of the global batch, so that all processes together have the rows
    of one process alone. Every pass over the clips has another order, other frames, crops, patches, captions and masks.
    With `run.data.workers` > 0 a script that calls this must be guarded by `if __name__ == "__main__"`: the loader
    processes import it.

    Raises:
      ConfigError: a batch size that the processes cannot share, patches that do not tile the image.
      DataError: the shards cannot be used or the split is empty; on `next`, a record that cannot be decoded.
    """
    if run.train.batch_size % process_count:
        raise ConfigError(
            f"train.batch_size={run.train.batch_size} cannot be shared evenly by {process_count} processes: "
            "make it a multiple of their number"
        )
    if image_size % patch_size:
        raise ConfigError(f"images of {image_size} pixels cannot be cut into patches of {patch_size}")
    sets = tuple(_Records(folder, run.data.split, which) for which, folder in enumerate(run.data.folders))
    order_seed, example_seed, *more = (
        int(word) for word in np.random.SeedSequence(run.seed).generate_state(2 + len(sets) - 1)
    )
    weights = run.data.weights or tuple(float(len(records)) for records in sets)
    shares = [weight / sum(weights) for weight in weights]
    orders = [
        grain.MapDataset.source(records).shuffle(seed=seed).repeat()
        for records, seed in zip(sets, (order_seed, *more), strict=True)
    ]
    # The share is taken after everything random: a clip's index, and with it all its draws, is its place in the global
    # order, whatever the number of processes.
    batches = (
        (grain.MapDataset.mix(orders, shares) if len(sets) > 1 else orders[0])
        .map_with_index(_Numbered)
        .random_map(_MakeExample(sets, run, image_size, patch_size, tokenizer), seed=example_seed)
        .slice(slice(process_index, None, process_count))
        .batch(run.train.batch_size // process_count, drop_remainder=True)
    )
    return Batches(batches, ClipSets(sets, tuple(shares)), num_workers(run.data.workers), run.data.prefetch)


def evaluation_clips(
    folder: str | os.PathLike[str], split: str, num_frames: int, image_size: int, resize: str
) -> Iterator[tuple[shard_format.Record, UInt8[np.ndarray, "T S S 3"]]]:
    """All clips of a split in stored order, without chance: what `prepare_clip` makes of a record's frames.

    Args:
      folder, split: the shards.
      num_frames, image_size: of the model.
      resize: `Preprocessing.resize` of the model.

    Yields:
      the record, and its frames uint8 [num_frames, image_size, image_size, 3].

    Raises:
      DataError: the shards cannot be used, or a record cannot be decoded.
    """
    records = _Records(os.fspath(folder), split)
    for number in range(len(records)):
        record = records.parse(number, records[number][-1])
        chosen = segment_indices(len(record.jpegs), num_frames, None)
        yield record, np.stack([fit(frame, image_size, resize) for frame in records.frames(number, record, chosen)])


def num_workers(workers: int) -> int:
    """`data.workers` as a number of processes: -1 is one for each core that this process may run on."""
    return workers if workers >= 0 else len(os.sched_getaffinity(0))


class Batches(grain.DatasetIterator):
    """Iterator over batches whose whole state is the number of batches taken.

    Grain's own iterators keep a state whose form depends on the number of loader processes; this one opens them anew at
    the right batch, so a run may go on with any number of them. Orbax saves and restores it like a Grain iterator.
    """

    def __init__(self, batches: Any, sets: "ClipSets", workers: int, prefetch: int) -> None:
        super().__init__()
        self.sets = sets
        self._batches = batches
        self._workers = workers
        self._prefetch = prefetch
        self._next = 0
        self._reader: Any = None

    def __next__(self) -> Batch:
        self._assert_not_closed()
        self.start_prefetch()
        try:
            batch = next(self._reader)
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise HarvestError(
                f"a loader process died ({str(error).partition('.')[0]}), its own message may stand above: a script "
                'needs the guard if __name__ == "__main__"; if memory or /dev/shm ran out, lower data.workers or '
                "data.prefetch"
            ) from error
        self._next += 1
        return batch

    def start_prefetch(self) -> None:
        """Open the readers and let them work ahead."""
        if self._reader is None:
            self._reader = iter(self._readers(self._batches[self._next :]))
            self._reader.start_prefetch()

    def get_state(self) -> dict[str, int]:
        """The number of the next batch."""
        return {"next_batch": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a batch; what was made ahead is thrown away."""
        self._close_reader()
        self._next = int(state["next_batch"])

    def close(self) -> None:
        """Stop the loader threads or processes; safe to call again."""
        self._closed = True
        self._close_reader()

    def __str__(self) -> str:
        return f"Batches(next={self._next}, workers={self._workers})"

    def _readers(self, batches: Any) -> Any:
        if self._workers == 0:
            threads = min(self._prefetch, os.cpu_count() or 1)
            return batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=self._prefetch))
        if not flags.FLAGS.is_parsed():  # Grain's processes read absl's flags, which only absl programs parse
            flags.FLAGS.mark_as_parsed()
        inline = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        options = grain.MultiprocessingOptions(
            num_workers=self._workers, per_worker_buffer_size=max(1, self._prefetch // self._workers)
        )
        return batches.to_iter_dataset(inline).mp_prefetch(options, worker_init_fn=_end_with_parent)

    def _close_reader(self) -> None:
        reader, self._reader = getattr(self, "_reader", None), None
        if reader is not None:
            reader.close()


class ClipSets:
    """What is trained on: one set of clips, or several that are mixed.

    Attributes:
      digest: of their shards as written; a run that goes on compares it with the one it began with.
      num_clips: of all together.
    """

    def __init__(self, sets: Sequence["_Records"], shares: tuple[float, ...]) -> None:
        self.digest = ",".join(records.digest for records in sets)
        self.num_clips = sum(map(len, sets))
        names = [os.path.basename(os.path.abspath(records.folder)) for records in sets]
        if len(set(names)) < len(names):
            names = [records.folder for records in sets]
        titles = [f"epoch/{name}" for name in names] if len(names) > 1 else ["epoch"]
        self._passes = {title: share / len(of) for title, share, of in zip(titles, shares, sets, strict=True)}

    def epochs(self, clips: int) -> dict[str, float]:
        """How often the clips of each set were seen, after so many of all: `epoch`, or `epoch/FOLDER` for each set."""
        return {title: clips * rate for title, rate in self._passes.items()}


def _end_with_parent(worker_index: int, worker_count: int) -> None:
    """End this loader process when the training process is gone, and not before.

    However the parent died: kill -9 leaves no time to tell. Ctrl-C and Slurm's warning reach every process of a run;
    the loaders leave them to the parent, which saves first and closes them with SIGKILL.
    """
    del worker_index, worker_count
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: Any) -> None:
    parent.join()
    os._exit(1)


@dataclasses.dataclass(frozen=True)
class _Numbered:
    """A raw record of the source and its place in the endless global order."""

    index: int
    element: tuple[int, int, bytes]


class _Records:
    """The records of a split with their numbers, and their decoding with errors that say which record it was."""

    def __init__(self, folder: str, split: str, which: int = 0) -> None:
        self.folder = folder
        self._split = split
        self._which = which  # of the sets of a mixture
        self._shards = shard_format.open_shards(folder, split)
        if not len(self._shards):
            raise ConfigError(f"split {split!r} of {folder} has no clips: set data.split or data.shards")

    @property
    def digest(self) -> str:
        """Of the shards."""
        return self._shards.digest

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, number: int) -> tuple[int, int, bytes]:
        return self._which, number, self._shards[number]

    def __repr__(self) -> str:
        return f"{self.folder}:{self._split}"

    def parse(self, number: int, raw: bytes) -> shard_format.Record:
        """The record, DataError with its number if it cannot be read or has no frames."""
        try:
            record = shard_format.parse(raw)
        except DataError as error:
            raise self.error(number, "", str(error)) from error
        if not record.jpegs:
            raise self.error(number, record.id, "no frames")
        return record

    def frames(
        self, number: int, record: shard_format.Record, chosen: np.ndarray
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """The chosen frames one after the other; DataError if one is no JPEG or the sizes differ."""
        shape = None
        for which in chosen.tolist():
            try:
                frame = simplejpeg.decode_jpeg(record.jpegs[which], "RGB")
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
class _MakeExample(grain.transforms.RandomMap):
    """One raw record to one training example; all chance comes from the generator that Grain seeds by index."""

    sets: tuple[_Records, ...]
    run: RunConfig
    image_size: int
    patch_size: int
    tokenizer: Tokenizer

    def random_map(self, element: _Numbered, rng: np.random.Generator) -> dict[str, Any]:
        """The example; see `training_batches` for its arrays."""
        which, number, raw = element.element
        model, text, data, train = self.run.model, self.run.text, self.run.data, self.run.train
        records = self.sets[which]
        record = records.parse(number, raw)
        if not record.captions:
            raise records.error(number, record.id, "no caption")

        chosen = segment_indices(len(record.jpegs), model.num_frames, rng if data.sampling == "random" else None)
        # a clip's place in the global order says which step it is for
        unmasked = element.index // train.batch_size >= train.steps - train.unmasked_steps
        keep = 1.0 if unmasked else model.keep_ratio
        try:
            patches, positions = self._look(StoredClip([record.jpegs[which] for which in chosen.tolist()]), keep, rng)
        except ValueError as error:
            raise records.error(number, record.id, str(error)) from error

        caption = record.captions[rng.integers(len(record.captions))]
        ids = self.tokenizer([caption], text.length)[0]
        slots, weights = mask_slots(
            rng, ids, self.tokenizer.eot, text.mask_ratio, num_slots(text.length, text.mask_ratio)
        )
        return {
            "patches": patches,
            "positions": positions,
            "ids": ids,
            "slots": slots,
            "slot_weights": weights,
            "index": np.int64(element.index),
        }

    def _look(
        self, clip: StoredClip, keep: float, rng: np.random.Generator
    ) -> tuple[UInt8[np.ndarray, "K P"], Int[np.ndarray, " K"]]:
        """Crop a clip and drop patches of it by chance; what is dropped is not even decoded where that saves time."""
        model, data, size, patch = self.run.model, self.run.data, self.image_size, self.patch_size
        flip = data.flip and bool(rng.random() < 0.5)
        crop = (
            random_crop(clip.height, clip.width, data.min_scale, flip, rng)
            if data.crop == "random"
            else center_crop(clip.height, clip.width, flip)
        )
        cells = (size // patch) ** 2
        if model.drop_scope == "motion" and keep < 1:  # wants to see all frames first
            frames = np.stack(list(clip.frames()))
            weights = motion_weights(frames, crop, size // patch)
            positions = keep_positions(rng, model.num_frames, cells, keep, model.drop_scope, weights)
            return kept_patches(frames, crop, size, patch, positions), positions
        positions = keep_positions(rng, model.num_frames, cells, keep, model.drop_scope)
        touched = touched_tiles(crop, size, patch, positions, clip.tiles, TILE)
        return kept_patches(clip.frames_with(touched), crop, size, patch, positions), positions
