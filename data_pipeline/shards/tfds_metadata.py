"""Make finished shards a split of a TFDS dataset: write its metadata and move the files to their places.

Features, names and metadata are TFDS's, but its writer is not used: it shuffles with TensorFlow's file system if a
split is larger than 1 GB. Here records arrive in their final order. The features use no image codecs: TensorFlow is
never imported.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_info as tfds_info

from data_pipeline.shards.shard_format import DATASET, VERSION, checksum_path
from harvest_jax.errors import DataError
from harvest_jax.files import atomic_file, locked, sync


def features() -> tfds.features.FeaturesDict:
    """The fields of `shard_format.Record` as TFDS features; JPEG frames are plain bytes."""
    kinds = tfds.features
    return kinds.FeaturesDict(
        {
            "id": kinds.Text(),
            "captions": kinds.Sequence(kinds.Text()),
            "jpegs": kinds.Sequence(kinds.Tensor(shape=(), dtype=np.object_)),
            "seconds": kinds.Sequence(kinds.Scalar(np.float32)),
            "width": kinds.Scalar(np.int64),
            "height": kinds.Scalar(np.int64),
            "extra": kinds.Text(),
        }
    )


@contextlib.contextmanager
def replaced_split(
    out: Path, work: Path, split: str, checksums: Sequence[tuple[str, Path]], lengths: Sequence[int], num_bytes: int
) -> Iterator[None]:
    """Remove a split from the metadata, let the caller move its files, and add it again.

    Readers see the dataset as it was, then (if the split existed) without this split, then with the new one.

    Args:
      out: the dataset.
      work: a folder on the same file system to write to.
      split: its name.
      checksums: sha256 and final path of each of its files.
      lengths: records in each.
      num_bytes: of all records.

    Raises:
      OSError: the disk is full, or similar; if the block has not begun, the dataset is unchanged.
    """
    with locked(out / ".lock", wait=True):  # other splits of it may be written at the same time
        _write_info(out, work, split, None)  # from here on no reader takes old files for new ones
        kept = {path for _, path in checksums}
        yield
        for old in set(out.glob(f"{DATASET}-{split}.array_record-*")) - kept:
            old.unlink()
        with atomic_file(checksum_path(out, split)) as aside:
            aside.write_text("".join(f"{digest}  {path.name}\n" for digest, path in checksums), encoding="utf-8")
        _write_info(out, work, split, (list(lengths), num_bytes))


def _write_info(out: Path, work: Path, split: str, written: tuple[list[int], int] | None) -> None:
    """Write `features.json` and `dataset_info.json`, each complete or not at all."""
    splits = [other for other in _existing_splits(out) if other.name != split]
    if written is not None:
        splits.append(_split_info(out, split, *written))
    elif not splits:
        (out / "dataset_info.json").unlink(missing_ok=True)
        sync(out)
        return
    identity = tfds_info.DatasetIdentity(
        name=DATASET, version=tfds.core.Version(VERSION), data_dir=str(out), module_name="data_pipeline.tfds_builder"
    )
    info = tfds_info.DatasetInfo(
        builder=identity, description="Captioned clips: JPEG frames, written by harvest_jax.", features=features()
    )
    info.set_file_format("array_record")
    info.set_splits(tfds.core.SplitDict(split_infos=sorted(splits, key=lambda split: split.name)))
    info.write_to_directory(work)
    for name in ("features.json", "dataset_info.json"):
        sync(work / name)
        (work / name).replace(out / name)
    sync(out)


def _existing_splits(folder: Path) -> list[tfds.core.SplitInfo]:
    if not (folder / "dataset_info.json").exists():
        return []
    try:
        return list(tfds.builder_from_directory(folder).info.splits.values())
    except ValueError as error:  # raised by TFDS if features.json is missing
        raise DataError(
            f"{folder}/features.json is missing or damaged: copy it from another shard folder, it is the same in all"
        ) from error


def _split_info(folder: Path, split: str, lengths: list[int], num_bytes: int) -> tfds.core.SplitInfo:
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=DATASET, split=split, filetype_suffix="array_record"
    )
    return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template)
