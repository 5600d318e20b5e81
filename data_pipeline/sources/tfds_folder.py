"""An existing TFDS dataset as clips: our own shards, or anyone's with encoded videos or pictures and texts.

Records lie in ArrayRecord or TFRecord files and are `tf.train.Example`s. Each is read here for its texts, and again by
the decoder for its pictures. TensorFlow is not needed, and TFDS's own reading of features.json, which imports what the
file names, is not used.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_pipeline.manifest_layouts import RowFault, name_list
from data_pipeline.media_paths import VideoRejected, open_regular
from data_pipeline.source_line import Line, Place
from data_pipeline.sources import tfds_fields, tfrecord
from harvest_jax.errors import ConfigError, DataError

_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_MAX_RECORD = 1 << 30  # bytes
_Reader = Callable[[bytes], tuple[dict[str, Any], dict[str, Any]]]  # a record's cells and its extra columns


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A file of a split, and the records that dataset_info.json says it has."""

    name: str
    split: str
    index: int
    length: int


def is_dataset(folder: Path) -> bool:
    """Whether a folder is one version of a TFDS dataset."""
    return (folder / "dataset_info.json").is_file()


def read_lines(folder: Path, name: str, split: str | None, asked: str) -> Iterator[Line]:
    """The clips of a dataset in their stored order; their split is the dataset's.

    Args:
      folder: the one with dataset_info.json.
      name: its name below the root.
      split: read only this one, None all.
      asked: which fields to take, see `tfds_fields.choose`.

    Raises:
      DataError: it is damaged, in a format that cannot be read, has no such split; files are missing; it is not clear
        which fields to take.
      ConfigError: `asked` does not read as it should.
    """
    from data_pipeline.shard_format import DATASET

    info, shards = _describe(folder)
    if split is not None and split not in {shard.split for shard in shards}:
        others = name_list(sorted({shard.split for shard in shards})) or "none"
        raise DataError(f"{folder} has no split {split!r}; it has {others}")
    shards = [shard for shard in shards if split in (None, shard.split)]
    if missing := [shard.name for shard in shards if not (folder / shard.name).is_file()]:
        raise DataError(f"{folder} lacks {len(missing)} of {len(shards)} files, the first is {missing[0]}")
    if info["name"] == DATASET:
        if asked:
            raise ConfigError(f"--fields {asked}: {folder} is one of `harvest shards`, its fields are known")
        field: str = "jpegs"
        read: _Reader = _read_own
    else:
        fields = tfds_fields.choose(folder, asked)
        field, read = fields.video, _reader(fields)
    number = 0
    where = "" if name == "." else f"{name}/"
    for shard in shards:
        video = where + shard.name
        clips = f"{where}{shard.split}/{shard.index:05d}"
        count = 0
        try:
            for place, raw in _records(folder / shard.name, info["fileFormat"]):
                number, count = number + 1, count + 1
                cells = {"video": video, "split": shard.split}
                place, clip = dataclasses.replace(place, field=field), f"{clips}-{count - 1}"
                try:
                    texts, extra = read(raw)
                    yield Line(number, cells | texts, place=place, extra=extra, clip=clip)
                except RowFault as fault:
                    yield Line(number, cells, str(fault), place, clip=clip)
            if count != shard.length:
                raise tfrecord.RecordFault(f"cut off: {count} records, not {shard.length} as dataset_info.json says")
        except tfrecord.RecordFault as fault:
            number += 1
            cells = {"id": video, "video": video, "split": shard.split}
            yield Line(number, cells, f"{fault} (all clips before that are used)")


def _describe(folder: Path) -> tuple[dict[str, Any], list[_Shard]]:
    path = folder / "dataset_info.json"
    try:
        info = json.loads(path.read_bytes())
        kind = str(info.setdefault("fileFormat", "tfrecord"))
        name = str(info["name"])
        shards = []
        for split in info["splits"]:
            lengths = [int(length) for length in split["shardLengths"]]
            for index, length in enumerate(lengths):
                of = f"{index:05d}-of-{len(lengths):05d}"
                file = split.get("filepathTemplate") or _TEMPLATE
                for key, value in (("SHARD_X_OF_Y", of), ("DATASET", name), ("SPLIT", split["name"])):
                    file = file.replace(f"{{{key}}}", value)
                shards.append(_Shard(file.replace("{FILEFORMAT}", kind), split["name"], index, length))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}: {str(error)[:100]}") from error
    if kind not in ("array_record", "tfrecord"):
        raise DataError(f"{folder} is stored as {kind[:40]!r}; array_record and tfrecord are read")
    strange = [
        shard.name for shard in shards if not shard.name.isprintable() or os.path.basename(shard.name) != shard.name
    ]
    if strange or any("{" in shard.name for shard in shards):
        raise DataError(f"{path} is damaged: {shards[0].name[:100]!r} is no name of a file beside it")
    return info, shards


def _records(path: Path, kind: str) -> Iterator[tuple[Place, bytes]]:
    """The records of a file and where they are.

    Raises:
      RecordFault: those before it are sound, and what follows cannot be read.
    """
    if kind == "tfrecord":
        try:
            with open_regular(path, max_bytes=1 << 62) as file:
                for extent in tfrecord.extents(file):
                    raw = b"" if extent.size > _MAX_RECORD else os.pread(file.fileno(), extent.size, extent.offset)
                    yield Place(offset=extent.offset, size=extent.size), raw
        except VideoRejected as error:
            raise tfrecord.RecordFault(error.reason) from error
        return
    from array_record.python import array_record_module

    try:
        reader = array_record_module.ArrayRecordReader(str(path), "readahead_buffer_size:0")
        try:
            for index in range(reader.num_records()):
                yield Place(record=index), reader.read([index])[0]
        finally:
            reader.close()
    except (RuntimeError, ValueError, IndexError) as error:
        raise tfrecord.RecordFault(f"damaged: {' '.join(str(error).split(';')[0].split())}") from error


def _read_own(raw: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    from data_pipeline.shard_format import parse

    try:
        record = parse(raw)
    except DataError as error:
        raise RowFault("bad row: it is no record of `harvest shards`") from error
    return {"id": record.id, "captions": record.captions}, record.extra


def _reader(fields: tfds_fields.Fields) -> _Reader:
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    def read(raw: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            found = tf_example_pb2.Example.FromString(raw).features.feature
            extra = {name: _values(found[name])[0] for name in fields.extra if name in found and _values(found[name])}
            cells: dict[str, Any] = {"captions": _values(found[fields.caption]) if fields.caption in found else []}
            if fields.id is not None and fields.id in found:
                cells["id"] = next(iter(_values(found[fields.id])), None)
        except (DecodeError, ValueError) as error:
            raise RowFault("bad row: it is no tf.train.Example with UTF-8 texts") from error
        return cells, extra

    return read


def _values(feature: Any) -> list[Any]:
    """A feature's values: texts, numbers."""
    kind = feature.WhichOneof("kind")
    if kind is None:
        return []
    values = list(getattr(feature, kind).value)
    return [value.decode() for value in values] if kind == "bytes_list" else values
