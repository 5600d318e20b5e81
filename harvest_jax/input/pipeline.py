"""Shards to batches: the Grain chain of training, and the plain loop of evaluation.

    records -> shuffle -> repeat -> mix -> example (sample, crop, drop, decode, tokenize, mask) -> share of a process
    -> batch

Every step is a function of an index, so the batch at step k is computed from (seed, k) alone: the position in the data
is one number, the same for any number of loader processes, and no random state is carried along. Only kept patches
leave the loader.
"""

import os
from collections.abc import Callable, Iterator

import grain
import numpy as np
from jaxtyping import UInt8

from data_pipeline.shards import shard_format
from harvest_jax.config.run import RunConfig
from harvest_jax.errors import ConfigError
from harvest_jax.input.batches import Batches, ClipSets
from harvest_jax.input.damaged import DamagedRecords
from harvest_jax.input.examples import MakeExample, Numbered, Records
from harvest_jax.input.file_tokenizer import TextTokenizer
from harvest_jax.input.process_share import BLOCKS, Blocks
from harvest_jax.pixels.frame_sampling import Sampling, stored_indices
from harvest_jax.pixels.square import view_clips


def training_batches(
    run: RunConfig,
    image_size: int,
    patch_size: int,
    tokenizer: TextTokenizer,
    process_index: int,
    process_count: int,
    classes: tuple[str, ...] = (),
) -> Batches:
    """The endless sequence of this process's parts of the global batches.

    A batch is a dict of numpy arrays, B = batch_size / process_count rows:
      patches uint8 [B, K, P], positions int32 [B, K] (cell in the T x h x w grid), index int64 [B] (position in the
      endless global order), and what the objective reads. For post-pretraining that is ids int32 [B, L], slots int32
      [B, M], slot_weights float32 [B, M]; for others see `train/objectives/labelled.py`. `classes` are those of the
      model's head.

    The rows of all processes together are those of one process alone; which process has which: process_share.py. Every
    pass over the clips has another order, other frames, crops, patches, captions and masks.
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
    sets = tuple(Records(folder, run.data.split, which) for which, folder in enumerate(run.data.folders))
    # Seeds of the first set, of the examples, of further sets: adding a set does not change the first two.
    order_seed, example_seed, *more = map(int, np.random.SeedSequence(run.seed).generate_state(1 + len(sets)))
    weights = run.data.weights or tuple(float(len(records)) for records in sets)
    shares = [weight / sum(weights) for weight in weights]
    orders = [
        grain.MapDataset.source(records).shuffle(seed=seed).repeat()
        for records, seed in zip(sets, (order_seed, *more), strict=True)
    ]
    # The share of a process is taken after everything random: a clip's index, and with it all its random draws, is its
    # position in the global order, for any number of processes.
    examples = (
        (grain.MapDataset.mix(orders, shares) if len(sets) > 1 else orders[0])
        .map_with_index(Numbered)
        .random_map(MakeExample(sets, run, image_size, patch_size, tokenizer, classes), seed=example_seed)
    )
    rows = run.train.batch_size // process_count
    share = grain.MapDataset.source(Blocks(examples, process_index, process_count, rows))
    every_nth = examples.slice(slice(process_index, None, process_count))
    batches = {rule: of.batch(rows, drop_remainder=True) for rule, of in ((BLOCKS, share), ("", every_nth))}
    damaged = DamagedRecords([records.folder for records in sets], run.data.bad_records, process_index, process_count)
    return Batches(batches, ClipSets(sets, tuple(shares)), run.data, damaged)


def evaluation_clips(
    folder: str | os.PathLike[str], split: str, num_frames: int, image_size: int, resize: str
) -> Iterator[tuple[shard_format.Record, UInt8[np.ndarray, "T S S 3"]]]:
    """All clips of a split in stored order, without randomness: the frames as `prepare_clip` prepares them.

    Args:
      folder, split: the shards.
      num_frames, image_size: of the model.
      resize: `Preprocessing.resize` of the model.

    Yields:
      the record, and its frames uint8 [num_frames, image_size, image_size, 3].

    Raises:
      DataError: the shards cannot be used, or a record cannot be decoded.
    """
    for record, views, _ in evaluation_views(folder, split, num_frames, image_size, resize, Sampling()):
        yield record, views[0]


def evaluation_views(
    folder: str | os.PathLike[str],
    split: str,
    num_frames: int,
    image_size: int,
    resize: str,
    sampling: Sampling,
    wanted: Callable[[shard_format.Record], bool] | None = None,
) -> Iterator[tuple[shard_format.Record, list[UInt8[np.ndarray, "t S S 3"]], int]]:
    """As `evaluation_clips`, with the clips of each view and crop, and the number of different frames that they show.

    Args:
      folder, split, num_frames, image_size, resize: as in `evaluation_clips`.
      sampling: applied to the stored frames.
      wanted: whether a record's pictures are decoded; what is not wanted is left out. None: all are.

    Raises:
      DataError: as `evaluation_clips`.
    """
    records = Records(os.fspath(folder), split)
    for number in range(len(records)):
        record = records.read(number)
        if wanted is not None and not wanted(record):
            continue
        try:
            chosen = stored_indices(len(record.jpegs), record.seconds, num_frames, sampling)
        except ValueError as error:
            raise records.error(number, record.id, str(error)) from error
        different = np.unique(np.concatenate(chosen))
        views = [np.searchsorted(different, view) for view in chosen]
        frames = records.frames(number, record, different)
        yield record, view_clips(frames, views, image_size, resize, sampling.crops), len(different)
