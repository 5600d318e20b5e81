"""The format of records and of shard files; no other module knows it.

A shard folder is a TFDS dataset, which `tfds.builder_from_directory(D).as_data_source("train")` reads too:
`dataset_info.json`, `features.json` and, per split, ArrayRecord files with one record per group, so that any record is
one read; also `checksums-SPLIT.txt` and `rejects-SPLIT.tsv`. A record is a `tf.train.Example` with the fields of
`Record`; frames are JPEG, quality 90 with halved colour, with a restart marker after every 16 x 16 pixels, so that a
part of a frame can be decoded (harvest_jax/input/jpeg_tiles.py). Why that: docs/data.md.
"""

import bisect
import collections
import concurrent.futures
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import simplejpeg
from array_record.python import array_record_data_source, array_record_module
from google.protobuf.message import DecodeError
from jaxtyping import UInt8
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from data_pipeline.shards.record_sizes import RecordSizes
from harvest_jax.errors import DataError

DATASET = "harvest_clips"
VERSION = "1.0.0"  # of the record; a reader refuses another major version
JPEG_QUALITY = 90
MAX_SHORT_SIDE, MAX_ASPECT = 2048, 10  # of a frame, as `harvest shards` writes them; a reader refuses a larger one
WRITER_OPTIONS = (
    "group_size:1,uncompressed"  # JPEG cannot be compressed further; reading is a sixth faster than with zstd
)


_MAX_TEXT = 16 << 20  # bytes of dataset_info.json (a million shards) and of a list of checksums


@dataclasses.dataclass(frozen=True)
class Record:
    """One stored clip.

    Attributes:
      id: unique in its split.
      captions: may be empty if `extra` has a label or a question.
      jpegs: encoded frames, in order.
      seconds: position of each frame in the source file (stored as float32).
      width, height: of the source as a player shows it, in pixels.
      extra: the manifest's other columns.
    """

    id: str
    captions: tuple[str, ...]
    jpegs: tuple[bytes, ...]
    seconds: tuple[float, ...]
    width: int
    height: int
    extra: dict[str, Any]


def encode_jpeg(frame: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """An RGB picture as JPEG, with a restart marker after every 16 x 16 pixels."""
    file = io.BytesIO()
    picture = Image.fromarray(frame)
    picture.save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0", restart_marker_blocks=1)
    return file.getvalue()


def check_frame_size(height: int, width: int) -> None:
    """Refuse a frame that `harvest shards` would not have written; decoding it may need any amount of memory.

    Raises:
      ValueError: it is too large, or too long and narrow.
    """
    short, long = sorted((height, width))
    if not 1 <= short <= MAX_SHORT_SIDE or long > MAX_ASPECT * short:
        raise ValueError(f"{width} x {height} is no size of a stored frame")


def frame_size(jpeg: bytes) -> tuple[int, int]:
    """Height and width of a stored frame, from its header.

    Raises:
      ValueError: it is no JPEG, or as `check_frame_size`.
    """
    height, width = simplejpeg.decode_jpeg_header(jpeg)[:2]
    check_frame_size(height, width)
    return height, width


def decode_frame(jpeg: bytes, fastupsample: bool = False) -> UInt8[np.ndarray, "H W 3"]:
    """A stored frame as RGB.

    Args:
      jpeg: the frame.
      fastupsample: repeat halved colours instead of interpolating them, as `jpeg_tiles` does.

    Raises:
      ValueError: it is no JPEG, damaged, or as `check_frame_size`.
    """
    frame_size(jpeg)
    return simplejpeg.decode_jpeg(jpeg, "RGB", fastupsample=fastupsample)


def encode(record: Record) -> bytes:
    """The bytes of a record; equal records give equal bytes."""
    texts = {"id": [record.id], "captions": record.captions, "extra": [json.dumps(record.extra, ensure_ascii=False)]}
    fields = {name: _bytes_feature([text.encode() for text in values]) for name, values in texts.items()}
    fields["jpegs"] = _bytes_feature(record.jpegs)
    fields["seconds"] = tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=record.seconds))
    for name, number in (("width", record.width), ("height", record.height)):
        fields[name] = tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[number]))
    example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=fields))
    return example.SerializeToString(deterministic=True)


def _bytes_feature(values: Any) -> tf_feature_pb2.Feature:
    return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=values))


def parse_record(raw: bytes, frames: bool = True) -> Record:
    """A record from its bytes, without decoding its pictures.

    22 us for 16 frames (240 kB) on one core of a server; TFDS's own features take 102.

    Args:
      raw: the bytes.
      frames: False leaves `jpegs` empty, without copying them.

    Raises:
      DataError: these are not the bytes of a record.
    """
    try:
        fields = tf_example_pb2.Example.FromString(raw).features.feature if frames else _all_but_frames(raw)
        extra = json.loads(fields["extra"].bytes_list.value[0])
        if not isinstance(extra, dict):
            raise ValueError("extra is not an object")
        return Record(
            id=fields["id"].bytes_list.value[0].decode(),
            captions=tuple(caption.decode() for caption in fields["captions"].bytes_list.value),
            jpegs=tuple(fields["jpegs"].bytes_list.value),
            seconds=tuple(fields["seconds"].float_list.value),
            width=fields["width"].int64_list.value[0],
            height=fields["height"].int64_list.value[0],
            extra=extra,
        )
    except (DecodeError, IndexError, ValueError, RecursionError) as error:
        raise DataError("a record is damaged, or was not written by `harvest shards`") from error


def _all_but_frames(raw: bytes) -> Mapping[str, tf_feature_pb2.Feature]:
    """The fields of a record except its pictures, which are most of its bytes and are passed over.

    Raises:
      ValueError, IndexError: these are not the bytes of a record.
    """
    found: dict[str, tf_feature_pb2.Feature] = collections.defaultdict(tf_feature_pb2.Feature)
    # An Example holds Features, and these a map: entries of a name and a Feature.
    for features in _parts(memoryview(raw)):
        for entry in _parts(features):
            name, value = _parts(entry)
            field = bytes(name).decode()
            if field != "jpegs":
                found[field] = tf_feature_pb2.Feature.FromString(bytes(value))
    return found


def _parts(message: memoryview) -> Iterator[memoryview]:
    """The fields of a protocol buffer message whose fields all have a length before them.

    Raises:
      ValueError: it is cut off or has other fields.
      IndexError: as ValueError.
    """
    place = 0
    while place < len(message):
        if message[place] & 7 != 2:
            raise ValueError("a field without a length")
        size, shift, place = 0, 0, place + 1
        while True:
            size |= (message[place] & 127) << shift
            shift, place = shift + 7, place + 1
            if message[place - 1] < 128:
                break
        if place + size > len(message):
            raise ValueError("cut off")
        yield message[place : place + size]
        place += size


class ShardSource:
    """The records of one split in their stored order: `len(source)`, `source[i] -> bytes`; can be pickled.

    Attributes:
      paths: the shard files.
      lengths: records in each.
      digest: sha256 of the files' names, sizes, counts and checksums; a resumed run compares it with that of its start.
    """

    def __init__(self, paths: list[Path], lengths: list[int], digest: str):
        self.paths, self.lengths, self.digest = paths, lengths, digest
        self._ends = np.cumsum(lengths).tolist()
        instructions = [
            _ReadInstruction(str(path), 0, length, length) for path, length in zip(paths, lengths, strict=True)
        ]
        self._source = array_record_data_source.ArrayRecordDataSource(instructions)  # opens the files at the first read
        self._sizes: dict[Path, RecordSizes] = {}

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: SupportsIndex) -> bytes:
        index = index.__index__()
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        which = bisect.bisect_right(self._ends, index)
        path = self.paths[which]
        try:
            if path not in self._sizes:
                self._sizes[path] = RecordSizes(path)
            self._sizes[path].check(index - self._ends[which] + self.lengths[which])
            return self._source[index]
        except (RuntimeError, ValueError, OSError) as error:
            why = str(error).split(";")[0]
            raise DataError(f"{path} is damaged (record {index}: {why}): make the shards again") from error

    def __repr__(self) -> str:
        return (
            f"ShardSource({self.paths[0].parent}, {len(self)} records in {len(self.paths)} shards, {self.digest[:12]})"
        )


@dataclasses.dataclass(frozen=True)
class _ReadInstruction:
    """Tells array_record which records of a file to read, so that it need not open the file first."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


def read_info(folder: str | Path) -> dict[str, Any]:
    """The content of `dataset_info.json`.

    Raises:
      DataError: no such folder, no finished shards in it, another dataset, another version of the format.
    """
    folder = Path(folder)
    path = folder / "dataset_info.json"
    if not folder.is_dir():
        raise DataError(f"no shard folder {folder}: `harvest shards` makes one")
    if not path.is_file():
        unfinished = any(folder.glob(".*.writing"))
        hint = (
            "a run was stopped there; give the same `harvest shards` command again"
            if unfinished
            else "`harvest shards --out` makes them"
        )
        raise DataError(f"{folder} holds no shards: {hint}")
    try:
        info = json.loads(_read_text(path))
        name, version = info["name"], str(info.get("version", ""))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is damaged: make the shards again") from error
    if name != DATASET or info.get("fileFormat") != "array_record":
        raise DataError(f"{folder} is another dataset ({name}), not shards of `harvest shards`")
    if version.split(".")[0] != VERSION.split(".")[0]:
        raise DataError(
            f"{folder} has format {version}, and this version of harvest_jax reads {VERSION}: make the shards again"
        )
    return info


def split_lengths(folder: str | Path) -> dict[str, list[int]]:
    """The finished splits of a shard folder and the number of records in each of their files.

    Raises:
      DataError: as `read_info`.
    """
    try:
        found = {
            split["name"]: [int(n) for n in split["shardLengths"]] for split in read_info(folder).get("splits", [])
        }
        if all(isinstance(name, str) and os.sep not in name and lengths for name, lengths in found.items()):
            return found
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{folder}/dataset_info.json is damaged: make the shards again") from error
    raise DataError(f"{folder}/dataset_info.json is damaged: a split has no name or no files; make the shards again")


def _read_text(path: Path) -> str:
    """A text beside the shards.

    Raises:
      ValueError: it is too long, or not UTF-8.
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        raw = file.read(_MAX_TEXT + 1)
    if len(raw) > _MAX_TEXT:
        raise ValueError(f"more than {_MAX_TEXT >> 20} MiB")
    return raw.decode()


def shard_path(folder: str | Path, split: str, index: int, count: int) -> Path:
    """The file of one shard, named as TFDS does."""
    return Path(folder) / f"{DATASET}-{split}.array_record-{index:05d}-of-{count:05d}"


def checksum_path(folder: str | Path, split: str) -> Path:
    """The file with the sha256 of each shard of a split, in the format of `sha256sum --check`."""
    return Path(folder) / f"checksums-{split}.txt"


def open_shards(folder: str | Path, split: str) -> ShardSource:
    """Open a split for random access, after checking every file.

    Raises:
      DataError: no such folder or split; a file is missing, cut off, or does not match dataset_info.json.
    """
    splits = split_lengths(folder)
    if split not in splits:
        raise DataError(f"{folder} has no split {split!r}; it has {', '.join(sorted(splits)) or 'none'}")
    lengths = splits[split]
    if len(lengths) > len(os.listdir(folder)):  # known before millions of names are made
        raise DataError(f"{folder} lacks most of the {len(lengths):,} shards of {split}: make the shards again")
    paths = [shard_path(folder, split, index, len(lengths)) for index in range(len(lengths))]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} of {len(paths)} shards of {split}, the first is {missing[0]}")
    with concurrent.futures.ThreadPoolExecutor(min(32, len(paths))) as threads:
        list(threads.map(_check_shard, paths, lengths))
    facts = [[path.name, os.path.getsize(path), length] for path, length in zip(paths, lengths, strict=True)]
    try:
        checksums = _read_text(checksum_path(folder, split))
    except (OSError, ValueError) as error:
        raise DataError(f"{checksum_path(folder, split)} cannot be read: make the shards again") from error
    digest = hashlib.sha256(json.dumps([split, facts, checksums]).encode()).hexdigest()
    return ShardSource(paths, lengths, digest)


def _check_shard(path: Path, length: int) -> None:
    try:
        RecordSizes(path)  # before the other reader unpacks the file's list of records
        reader = array_record_module.ArrayRecordReader(
            str(path), "readahead_buffer_size:0", file_reader_buffer_size=32768
        )
        found = reader.num_records()
        reader.close()  # raises if the file is damaged
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(f"{path} is cut off or damaged: make the shards again ({str(error).split(';')[0]})") from error
    if found != length:
        raise DataError(f"{path} has {found} records, but dataset_info.json says {length}: make the shards again")
