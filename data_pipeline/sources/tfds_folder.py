"""A source: a TFDS dataset, either shards of `harvest shards` or another with encoded videos or pictures and texts.

Records are `tf.train.Example`s in ArrayRecord or TFRecord files. Their texts are read in a separate process
(record_texts.py), their pictures later by the decoder. TensorFlow is not needed. TFDS's own reader of features.json is
not used: it imports classes that the file names.
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.media_paths import VideoRejected, is_one_line, local_name, resolve_below
from data_pipeline.sources import tfds_fields, tfrecord
from data_pipeline.sources.raw_row import RawRow
from data_pipeline.sources.record_texts import TextReader
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.terminal import printable

_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


@dataclasses.dataclass(frozen=True)
class _ShardFile:
    """A file of a split, and the records that dataset_info.json says it has."""

    name: str
    split: str
    index: int
    length: int


def is_dataset(folder: Path) -> bool:
    """Whether a folder is one version of a TFDS dataset."""
    return (folder / "dataset_info.json").is_file()


def read_rows(folder: Path, name: str, root: str, split: str | None, asked: str) -> Iterator[RawRow]:
    """The clips of a dataset in their stored order, with the dataset's splits.

    Args:
      folder: it has a dataset_info.json.
      name: its name below the root.
      root: the root's real path.
      split: read only this one, None all.
      asked: which fields to take, see `tfds_fields.choose`.

    Raises:
      DataError: it is damaged, in an unknown format, or has no such split; files are missing; it is not clear which
        fields to take; it was written by `harvest shards` in another version of the format.
      ConfigError: `asked` has another form, or names a field that does not exist.
    """
    from data_pipeline.shards.shard_format import DATASET, read_info

    info, shards = _describe(folder)
    if split is not None and split not in {shard.split for shard in shards}:
        others = printable(", ".join(sorted({shard.split for shard in shards})), 300) or "none"
        raise DataError(f"{folder} has no split {split!r}; it has {others}")
    shards = [shard for shard in shards if split in (None, shard.split)]
    if missing := [shard.name for shard in shards if not (folder / shard.name).is_file()]:
        raise DataError(f"{folder} lacks {len(missing)} of {len(shards)} files, the first is {missing[0]}")
    fields = None
    if info["name"] != DATASET:
        fields = tfds_fields.choose(folder, asked)
    elif asked:
        raise ConfigError(
            f"--fields {asked}: {folder} was written by `harvest shards`, so its fields are known: leave out --fields"
        )
    else:
        read_info(folder)  # raises if the version of the format is another
    field = fields.video if fields else "jpegs"
    number = 0
    where = "" if name == "." else f"{name}/"
    with TextReader(info["fileFormat"], fields) as reader:
        for shard in shards:
            video = local_name(where + shard.name)
            clips = f"{where}{shard.split}/{shard.index:05d}"
            count = 0
            try:
                for record in reader.read(resolve_below(root, video)):
                    cells = {"video": video, "split": shard.split} | record.cells
                    part, clip = dataclasses.replace(record.part, field=field), f"{clips}-{count}"
                    number, count = number + 1, count + 1
                    yield RawRow(number, cells, record.fault, part, record.extra, clip)
                if count != shard.length:
                    raise tfrecord.RecordFault(
                        f"cut off: {count} records, not {shard.length} as dataset_info.json says"
                    )
            except (tfrecord.RecordFault, VideoRejected) as fault:
                number += 1
                cells = {"id": video, "video": video, "split": shard.split}
                reason = (
                    fault.reason if isinstance(fault, VideoRejected) else f"{fault} (all clips before that are used)"
                )
                yield RawRow(number, cells, reason)


def _describe(folder: Path) -> tuple[dict[str, Any], list[_ShardFile]]:
    path = folder / "dataset_info.json"
    try:
        info = tfds_fields.read_json(path)
        kind = str(info.setdefault("fileFormat", "tfrecord"))
        name = str(info["name"])
        shards = []
        present = len(os.listdir(folder))
        for split in info["splits"]:
            lengths = [int(length) for length in split["shardLengths"]]
            if len(lengths) > present:  # known before millions of names are made
                raise DataError(f"{folder} lacks most of the {len(lengths):,} files of a split")
            for index, length in enumerate(lengths):
                parts = {"SHARD_X_OF_Y": "{SHARD_INDEX}-of-{NUM_SHARDS}", "SHARD_INDEX": f"{index:05d}"}
                parts |= {"NUM_SHARDS": f"{len(lengths):05d}", "FILEFORMAT": kind, "DATASET": name}
                file = split.get("filepathTemplate") or _TEMPLATE
                for key, value in (parts | {"SPLIT": split["name"]}).items():
                    file = file.replace(f"{{{key}}}", value)
                shards.append(_ShardFile(file, split["name"], index, length))
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}: {str(error)[:100]}") from error
    if kind not in ("array_record", "tfrecord"):
        raise DataError(f"{folder} is stored as {kind[:40]!r}; supported are array_record and tfrecord")
    if strange := [shard.name for shard in shards if not _is_file_name(shard.name)]:
        raise DataError(f"{path} is damaged: {strange[0][:100]!r} is not the name of a file in this folder")
    return info, shards


def _is_file_name(name: str) -> bool:
    return is_one_line(name) and "{" not in name and os.path.basename(name) == name and len(os.fsencode(name)) <= 255
