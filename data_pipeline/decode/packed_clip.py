"""The clip in a part of a file: a member of a tar, a record of a TFRecord or ArrayRecord, a clip of a generated world.

Runs inside a worker process: the file may have changed since `part` was found, or be an attack.
"""

import dataclasses
import functools
from io import BytesIO
from typing import Any

import numpy as np
import simplejpeg
from array_record.python import array_record_module
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.decoded_clip import DecodedClip
from data_pipeline.decode.rendered_clip import rendered_clip
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.decode.still import HEAD, is_still, is_turned, read_still
from data_pipeline.media_paths import FilePart, VideoRejected, open_regular
from data_pipeline.shards import shard_format
from harvest_jax.errors import DataError
from harvest_jax.pixels.frame_sampling import segment_indices
from harvest_jax.synthetic.rows import is_world
from harvest_jax.terminal import one_line


@dataclasses.dataclass(frozen=True)
class PackedClip:
    """A decoded clip; `jpegs` are its frames as they were stored, None if they must be encoded again."""

    clip: DecodedClip
    jpegs: tuple[bytes, ...] | None = None


def read_packed(path: str, part: FilePart, spec: DecodeSpec, start: float | None, end: float | None) -> PackedClip:
    """Decode the clip in a part of a file.

    Raises:
      VideoRejected: it cannot be used; `reason` says why.
    """
    if is_world(path):
        return PackedClip(rendered_clip(path, part, spec, start, end))
    extent = None if part.offset is None or part.size is None else (part.offset, part.size)
    if not part.field:
        return PackedClip(decode_clip(open_regular(path, spec.max_bytes, extent), spec, start, end))
    if part.record is not None:
        raw = read_array_record(path, part.record)
    else:
        with open_regular(path, spec.max_bytes, extent) as file:
            raw = file.read()
    try:
        fields = tf_example_pb2.Example.FromString(raw).features.feature
    except DecodeError as error:
        raise VideoRejected("damaged: the record is not a tf.train.Example") from error
    values = list(fields[part.field].bytes_list.value) if part.field in fields else []
    if not values:
        raise VideoRejected(f"damaged: the record has no field {part.field}")
    if len(values) == 1 and not is_still(values[0][:HEAD]):
        return PackedClip(decode_clip(values[0], spec, start, end))
    return _pictures(values, _harvest_record(raw), spec)


def read_array_record(path: str, record: int) -> bytes:
    """A record of an ArrayRecord file by its number.

    Raises:
      VideoRejected: the file cannot be opened or is damaged, or has no such record.
    """
    try:
        reader = _reader(path)
        if not 0 <= record < reader.num_records():
            raise VideoRejected(f"cut off: the file has {reader.num_records()} records, not number {record}")
        return reader.read([record])[0]
    except (RuntimeError, ValueError, IndexError) as error:
        raise VideoRejected(f"damaged: {one_line(str(error).split(';')[0], 200)}") from error


@functools.lru_cache(maxsize=4)
def _reader(path: str) -> Any:
    """Cached: clips of one file come one after the other, and opening it reads its index."""
    open_regular(path, max_bytes=1 << 62).close()
    return array_record_module.ArrayRecordReader(path, "readahead_buffer_size:0", file_reader_buffer_size=32768)


def _harvest_record(raw: bytes) -> shard_format.Record | None:
    try:
        return shard_format.parse_record(raw)
    except DataError:
        return None


def _pictures(values: list[bytes], own: shard_format.Record | None, spec: DecodeSpec) -> PackedClip:
    """Encoded pictures in order; without known times, a second apart."""
    chosen = segment_indices(len(values), min(len(values), spec.num_frames), None).tolist()
    if len(chosen) < spec.min_frames:
        raise VideoRejected(f"too few frames: {len(chosen)} pictures, {spec.min_frames} are needed")
    read = [_still(values[index], spec) for index in chosen]
    if len({picture.shape for picture, _, _ in read}) > 1:
        raise VideoRejected("bad picture size: its pictures differ in size")
    frames = np.stack([picture for picture, _, _ in read])
    _, width, height = read[0]
    unscaled = frames.shape[1:3] == (height, width)
    if own is None or len(own.seconds) != len(values):
        return PackedClip(DecodedClip(frames, np.array(chosen, np.float64), width, height))
    clip = DecodedClip(frames, np.array([own.seconds[index] for index in chosen]), own.width, own.height)
    jpegs = tuple(values[index] for index in chosen)
    return PackedClip(clip, jpegs if unscaled and not spec.fit and all(map(_is_storable, jpegs)) else None)


def _is_storable(jpeg: bytes) -> bool:
    """Whether it has the format of `shard_format.encode_jpeg`: encoding it again would only lose quality."""
    if not jpeg.startswith(b"\xff\xd8\xff") or simplejpeg.decode_jpeg_header(jpeg)[2:] != ("YCbCr", "420"):
        return False
    return not is_turned(jpeg)  # readers of records ignore EXIF data


def _still(value: bytes, spec: DecodeSpec) -> tuple[Any, int, int]:
    if not is_still(value[:HEAD]):
        raise VideoRejected("not a video: a list of values that are not JPEG, PNG, WebP or AVIF pictures")
    return read_still(BytesIO(value), spec)
