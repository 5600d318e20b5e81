"""Sources of clips for tests: tars, TFDS datasets, and the result of a worker for their rows."""

import dataclasses
import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import simplejpeg
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from data_pipeline.decode.worker import run_task
from data_pipeline.manifest.read import Manifest
from data_pipeline.manifest.rows import ClipRow
from data_pipeline.shards.shard_format import parse_record
from data_pipeline.sources.tfrecord import masked_crc32c
from tests.helpers.video_files import numbered_frames, read_number

SPEC = {"num_frames": 4, "short_side": 32}


def picture(number: int) -> bytes:
    return simplejpeg.encode_jpeg(numbered_frames(number + 1)[number], quality=95)


def decoded(row: ClipRow, root: Path, **spec: int) -> dict[str, Any]:
    """What a worker answers for a row: its header, and the numbers read in the frames of the record."""
    task = dataclasses.asdict(row)
    record = {"id": row.id, "captions": row.captions, "extra": row.extra}
    task = json.loads(json.dumps(task | {"root": str(root), "spec": SPEC | spec, "record": record}))
    header, payload = run_task(task)
    if "rejected" in header:
        return header
    stored = parse_record(payload)
    frames = [simplejpeg.decode_jpeg(jpeg, "RGB") for jpeg in stored.jpegs]
    return {"record": stored, "numbers": [read_number(frame) for frame in frames]}


def reasons(manifest: Manifest) -> dict[str, str]:
    return {reject.id: reject.reason for reject in manifest.rejects}


def only_reason(manifest: Manifest) -> str:
    (reject,) = manifest.rejects
    return reject.reason


def write_tar(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def sample(key: str, video: bytes, kind: str = "mp4", **columns: Any) -> list[tuple[str, bytes]]:
    columns = {"key": key, "status": "success", "caption": f"a clip named {key}"} | columns
    return [
        (f"{key}.{kind}", video),
        (f"{key}.txt", str(columns["caption"]).encode()),
        (f"{key}.json", json.dumps(columns).encode()),
    ]


TEXT = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}
IMAGE = {"pythonClassName": "tensorflow_datasets.core.features.image_feature.Image", "image": {"dtype": "uint8"}}
VIDEO = {"pythonClassName": "tensorflow_datasets.core.features.video_feature.Video", "video": {"dtype": "uint8"}}
BYTES = {"pythonClassName": "x.tensor_feature.Tensor", "tensor": {"dtype": "string", "encoding": "none", "shape": {}}}
LABEL = {"pythonClassName": "x.class_label_feature.ClassLabel", "classLabel": {"numClasses": "9"}}
RAW = {"pythonClassName": "x.tensor_feature.Tensor", "tensor": {"dtype": "uint8", "shape": {"dimensions": ["-1", "8"]}}}


def sequence_of(feature: dict[str, Any]) -> dict[str, Any]:
    return {"pythonClassName": "x.sequence_feature.Sequence", "sequence": {"feature": feature, "length": "-1"}}


def group(**features: Any) -> dict[str, Any]:
    return {"pythonClassName": "x.features_dict.FeaturesDict", "featuresDict": {"features": features}}


def example(**fields: list[Any]) -> bytes:
    features = {}
    for name, values in fields.items():
        if values and isinstance(values[0], int):
            features[name] = tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=values))
        else:
            raw = [value.encode() if isinstance(value, str) else value for value in values]
            features[name] = tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=raw))
    return tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=features)).SerializeToString()


def tfrecord(records: list[bytes]) -> bytes:
    heads = [struct.pack("<Q", len(record)) for record in records]
    parts = zip(heads, records, strict=True)
    return b"".join(head + struct.pack("<I", masked_crc32c(head)) + record + b"\0\0\0\0" for head, record in parts)


def write_dataset(
    folder: Path, features: dict[str, Any], splits: dict[str, list[bytes]], kind: str = "array_record"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    described = []
    for split, records in splits.items():
        path = folder / f"theirs-{split}.{kind}-00000-of-00001"
        if kind == "tfrecord":
            path.write_bytes(tfrecord(records))
        else:
            writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
            for record in records:
                writer.write(record)
            writer.close()
        described.append({"name": split, "shardLengths": [str(len(records))], "numBytes": "1"})
    info = {"name": "theirs", "version": "1.0.0", "fileFormat": kind, "splits": described}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(group(**features)))
    return folder


def write_text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def write_jsonl(path: Path, rows: list[object]) -> Path:
    return write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
