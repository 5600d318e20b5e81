"""Writing a split of a shard folder: ArrayRecord files and TFDS's description of them, whole or not at all.

The dataset is TFDS's in features, names and metadata, without its writer: that one shuffles through TensorFlow's file
system as soon as a split is larger than 1 GB. Here records arrive in their final order, so nothing is shuffled. The
features use no image codecs: TensorFlow is never imported.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core import dataset_info as tfds_info

from data_pipeline.shard_format import DATASET, VERSION, WRITER_OPTIONS, checksum_path, shard_path, split_lengths
from harvest_jax.errors import ConfigError, DataError

TARGET_BYTES = 256 << 20  # of a shard: few enough files, small enough to copy and to check


def features() -> tfds.features.FeaturesDict:
    """The fields of `shard_format.Record` as TFDS knows them; JPEG frames are plain bytes."""
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


class SplitWriter:
    """Writes the records of one split into a hidden folder and, at the end, all at once into the dataset.

    Until `publish` returns, readers see the dataset as it was (with `overwrite`: without this split, at the very end).
    A killed run leaves the hidden folder, which the next one removes.

    Args:
      folder: the dataset; made if it does not exist.
      split: its name.
      num_rows: records expected; rejected ones count, so that the shard of each is known beforehand.
      num_shards: files; None as many as 256 MB each need.
      overwrite: replace the split if it is there.

    Raises:
      DataError: the split is there, another run is writing it, or the folder holds something else.
      ConfigError: more shards than records.
    """

    def __init__(self, folder: Path, split: str, num_rows: int, num_shards: int | None = None, overwrite: bool = False):
        self.folder, self.split, self.num_rows, self.num_shards = folder, split, num_rows, num_shards
        if num_shards is not None and not 1 <= num_shards <= max(1, num_rows):
            raise ConfigError(f"--shards {num_shards} is impossible for {num_rows} clips")
        if (folder / "dataset_info.json").exists():
            if split in split_lengths(folder) and not overwrite:
                raise DataError(f"{folder} has the split {split!r} already: --overwrite replaces it")
        elif folder.exists() and not folder.is_dir():
            raise DataError(f"{folder} is not a folder")
        self.num_bytes = 0
        self.lengths: list[int] = []
        self._hidden = folder / f".{split}.writing"
        self._lock = -1
        self._shard = -1
        self._bytes_in_shard = 0
        self._writer: Any = None

    def __enter__(self) -> "SplitWriter":
        self._hidden.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._hidden, os.O_RDONLY | os.O_DIRECTORY)
        locked = _lock(self._lock, wait=False)
        if not locked or not self._hidden.exists():  # the other run may have removed it a moment ago
            os.close(self._lock)
            raise DataError(f"another run is writing the split {self.split!r} of {self.folder}")
        for leftover in self._hidden.iterdir():
            leftover.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            with contextlib.suppress(RuntimeError):
                self._writer.close()
        shutil.rmtree(self._hidden, ignore_errors=True)
        os.close(self._lock)

    def write(self, position: int, raw: bytes) -> None:
        """Append a record; `position` is its row's place among the `num_rows`, ascending.

        Raises:
          OSError: the disk is full, or the like.
        """
        shard = self._shard
        if self.num_shards is not None:
            shard = position * self.num_shards // self.num_rows
        elif self._bytes_in_shard >= TARGET_BYTES or shard < 0:
            shard += 1
        try:
            if shard != self._shard:
                self._close_shard()
                self._shard, self._bytes_in_shard = shard, 0
                self.lengths.append(0)
                self._writer = array_record_module.ArrayRecordWriter(str(self._file()), WRITER_OPTIONS)
            self._writer.write(raw)
        except RuntimeError as error:
            raise OSError(f"{self._file()} cannot be written: {str(error).split(';')[0]}") from error
        self.lengths[-1] += 1
        self._bytes_in_shard += len(raw)
        self.num_bytes += len(raw)

    def _file(self) -> Path:
        return self._hidden / f"{max(0, len(self.lengths) - 1):05d}"

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            _sync(self._file())

    def publish(self) -> None:
        """Make the split part of the dataset.

        Raises:
          OSError: the disk is full, or the like; the dataset is as it was.
        """
        try:
            self._close_shard()
        except RuntimeError as error:
            raise OSError(f"{self._file()} cannot be written: {str(error).split(';')[0]}") from error
        paths = [shard_path(self.folder, self.split, index, len(self.lengths)) for index in range(len(self.lengths))]
        written = [self._hidden / f"{index:05d}" for index in range(len(paths))]
        checksums = self._hidden / "checksums.txt"
        lines = [f"{_sha256(file)}  {path.name}\n" for file, path in zip(written, paths, strict=True)]
        checksums.write_text("".join(lines), encoding="utf-8")
        with _folder_lock(self.folder):
            self._write_info(with_split=False)  # from here on no reader takes the old files for the new ones
            for old in self.folder.glob(f"{DATASET}-{self.split}.array_record-*"):
                old.unlink()
            for file, path in zip(written, paths, strict=True):
                file.replace(path)
            checksums.replace(checksum_path(self.folder, self.split))
            self._write_info(with_split=True)

    def _write_info(self, with_split: bool) -> None:
        """Write `features.json` and `dataset_info.json`, each complete or not at all."""
        splits = [split for split in _existing_splits(self.folder) if split.name != self.split]
        if with_split:
            splits.append(_split_info(self.folder, self.split, self.lengths, self.num_bytes))
        elif not splits:
            (self.folder / "dataset_info.json").unlink(missing_ok=True)
            return
        identity = tfds_info.DatasetIdentity(
            name=DATASET, version=tfds.core.Version(VERSION), data_dir=str(self.folder), module_name=__name__
        )
        info = tfds_info.DatasetInfo(
            builder=identity, description="Captioned clips: JPEG frames, written by harvest_jax.", features=features()
        )
        info.set_file_format("array_record")
        info.set_splits(tfds.core.SplitDict(split_infos=sorted(splits, key=lambda split: split.name)))
        info.write_to_directory(self._hidden)
        for name in ("features.json", "dataset_info.json"):
            _sync(self._hidden / name)
            (self._hidden / name).replace(self.folder / name)


def _existing_splits(folder: Path) -> list[tfds.core.SplitInfo]:
    if not (folder / "dataset_info.json").exists():
        return []
    return list(tfds.builder_from_directory(folder).info.splits.values())


def _split_info(folder: Path, split: str, lengths: list[int], num_bytes: int) -> tfds.core.SplitInfo:
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=DATASET, split=split, filetype_suffix="array_record"
    )
    return tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, wait: bool) -> bool:
    """Lock an open folder for this process; True as well where the file system knows no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Two splits of one dataset may be written at the same time; their metadata one after the other."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)
