"""TFDS datasets as a source, in ArrayRecord and TFRecord files."""

import io
import json
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import simplejpeg
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.manifest.read import iter_manifest, read_manifest
from data_pipeline.manifest.rows import ClipRow
from data_pipeline.media_paths import FilePart
from data_pipeline.prepare.options import Options
from data_pipeline.prepare.split import write_split
from data_pipeline.shards import shard_format
from data_pipeline.shards.shard_format import Record, open_shards, parse_record
from data_pipeline.sources import record_texts
from data_pipeline.sources.tfds_fields import ClipFieldNames
from data_pipeline.sources.tfrecord import masked_crc32c
from harvest_jax.errors import ConfigError, DataError
from tests.helpers.source_files import (
    BYTES,
    IMAGE,
    LABEL,
    RAW,
    TEXT,
    VIDEO,
    decoded,
    example,
    group,
    only_reason,
    picture,
    reasons,
    sequence_of,
    write_dataset,
)
from tests.helpers.video_files import numbered_frames


def test_the_checksum_of_a_length_is_tfrecord_s():
    # the header of a record of 0 bytes as TensorFlow writes it, and CRC-32C's own check value
    assert struct.pack("<I", masked_crc32c(bytes(8))).hex() == "29039807"
    assert masked_crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_a_dataset_of_encoded_videos(tmp_path, video, kind):
    records = [
        example(video=[video], caption=["a", "b"], video_id=[f"v{number}"], views=[number]) for number in range(3)
    ]
    features = {"video": BYTES, "caption": sequence_of(TEXT), "video_id": TEXT, "views": LABEL}
    folder = write_dataset(tmp_path / "1.0.0", features, {"train": records[:2], "val": records[2:]}, kind)
    manifest = read_manifest(folder)
    assert [(row.id, row.captions, row.split, row.extra) for row in manifest.rows] == [
        ("v0", ("a", "b"), "train", {"views": 0}),
        ("v1", ("a", "b"), "train", {"views": 1}),
        ("v2", ("a", "b"), "val", {"views": 2}),
    ]
    assert [decoded(row, manifest.root)["numbers"] for row in manifest.rows] == [[5, 15, 25, 35]] * 3
    assert [row.id for row in read_manifest(folder, split="val").rows] == ["v2"]
    with pytest.raises(DataError, match="has no split 'test'; it has train, val"):
        read_manifest(folder, split="test")


@pytest.mark.parametrize("feature", [VIDEO, sequence_of(IMAGE)])
def test_a_dataset_of_pictures_in_a_row(tmp_path, feature):
    pictures = [picture(number) for number in range(8)]
    records = [example(frames=pictures, title=["x"], label=[3])]
    folder = write_dataset(
        tmp_path / "d", {"frames": feature, "title": TEXT, "label": LABEL, "raw": RAW}, {"train": records}
    )
    (row,) = read_manifest(folder, root=tmp_path).rows
    assert (row.id, row.video) == ("00000-0", "d/theirs-train.array_record-00000-of-00001")
    found = decoded(row, tmp_path)
    assert found["numbers"] == [1, 3, 5, 7]
    assert found["record"].seconds == (1.0, 3.0, 5.0, 7.0)
    assert (found["record"].width, found["record"].height) == (64, 48)
    assert found["record"].extra == {"label": 3}
    assert decoded(row, tmp_path, min_frames=4, num_frames=16)["numbers"] == list(range(8))


def test_a_dataset_of_single_pictures(tmp_path):
    features = {"image": IMAGE, "image_text": group(caption=sequence_of(TEXT), caption_id=TEXT)}
    fields = {"image": [picture(3)], "image_text/caption": ["x"], "image_text/caption_id": ["1"]}
    folder = write_dataset(tmp_path, features, {"train": [example(**fields)]})
    (row,) = read_manifest(folder).rows
    assert (row.captions, row.extra) == (("x",), {"image_text/caption_id": "1"})
    assert decoded(row, tmp_path)["numbers"] == [3]


def test_which_field_is_the_clip_must_be_clear(tmp_path, video):
    features = {"left": VIDEO, "right": VIDEO, "en": TEXT, "de": TEXT}
    fields = {"left": [picture(1)], "right": [picture(2)], "en": ["a dog"], "de": ["ein Hund"]}
    folder = write_dataset(tmp_path, features, {"train": [example(**fields)]})
    with pytest.raises(
        DataError, match=r"several fields may be the clip \(.*\): left, right; choose with --fields video=NAME,"
    ):
        read_manifest(folder)
    with pytest.raises(DataError, match="several fields may be the caption: de, en; choose with --fields"):
        list(iter_manifest([folder], fields="video=left"))
    with pytest.raises(ConfigError, match=r"--fields video=up: .* has no field 'up'; it has de, en, left, right"):
        list(iter_manifest([folder], fields="video=up"))
    with pytest.raises(ConfigError, match="write it like video=NAME,caption=NAME,id=NAME"):
        list(iter_manifest([folder], fields="frames"))
    (row,) = iter_manifest([folder], fields="video=right,caption=de")
    assert isinstance(row, ClipRow)
    assert row.captions == ("ein Hund",)
    assert decoded(row, tmp_path)["numbers"] == [2]
    write_dataset(folder, {"raw": RAW, "en": TEXT}, {"train": [example(en=["x"])]})
    with pytest.raises(DataError, match=r"no field looks like a clip \(.*\); the fields are en, raw"):
        read_manifest(folder)


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_a_damaged_dataset_gives_what_is_sound(tmp_path, video, kind):
    features = {"video": BYTES, "caption": TEXT}
    good = example(video=[video], caption=["x"])
    bad = [b"\xff\xff\xff", example(caption=["x"]), example(video=[video]), example(video=[video], caption=[b"\xff"])]
    folder = write_dataset(tmp_path / "d", features, {"train": [good, *bad, good]}, kind)
    manifest = read_manifest(folder)
    assert [row.id for row in manifest.rows] == ["00000-0", "00000-2", "00000-5"]
    assert [reject.reason for reject in manifest.rejects] == [
        "bad row: it is not a tf.train.Example with UTF-8 texts",
        "empty caption",
        "bad row: it is not a tf.train.Example with UTF-8 texts",
    ]
    assert decoded(manifest.rows[1], manifest.root) == {"rejected": "damaged: the record has no field video"}
    (file,) = folder.glob("theirs-train*")
    if kind == "tfrecord":  # a length that is not what was written leads nowhere
        data = bytearray(file.read_bytes())
        data[len(good) + 16] ^= 1
        file.write_bytes(data)
        assert read_manifest(folder).rejects[-1].reason.startswith("damaged: there is no TFRecord at byte")
        data[len(good) + 16] ^= 1
        file.write_bytes(data)
    file.write_bytes(file.read_bytes()[: len(good) * 2])
    manifest = read_manifest(folder)
    reason = manifest.rejects[-1].reason
    assert reason.startswith(("cut off: ", "damaged: "))
    assert reason.endswith("(all clips before that are used)")
    assert decoded(ClipRow("a", file.name, ("x",), "train", part=FilePart(record=99, field="video")), folder)[
        "rejected"
    ]
    file.unlink()
    with pytest.raises(DataError, match=r"lacks 1 of 1 files, the first is theirs-train\."):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset_info.json", b"{", "dataset_info.json is damaged"),
        ("dataset_info.json", b'{"name": "x", "splits": [{"name": "train", "shardLengths": ["many"]}]}', "is damaged"),
        (
            "dataset_info.json",
            b'{"name": "../x", "splits": [{"name": "a", "shardLengths": ["1"]}]}',
            "not the name of a file",
        ),
        ("dataset_info.json", b'{"name": "x", "fileFormat": "riegeli", "splits": []}', "is stored as 'riegeli'"),
        ("dataset_info.json", b'{"name": "x", "splits": [{"name": "a", "shardLengths": [Infinity]}]}', "is damaged"),
        (
            "dataset_info.json",
            b'{"name": "%s", "splits": [{"name": "a", "shardLengths": [1]}]}' % (b"x" * 5000),
            "'x{100}' is not the name of a file",
        ),
        (
            "dataset_info.json",
            b'{"name": "x", "splits": [{"name": "a", "shardLengths": [1]}, {"name": "../up", "shardLengths": [1]}]}',
            r"'x-\.\./up\.tfrecord-00000-of-00001' is not the name of a file",
        ),
        ("features.json", b"[]", "features.json is damaged, or from a TFDS older than"),
        ("features.json", b'{"featuresDict": {"features": {"a": 5}}}', "features.json is damaged"),
        ("features.json", None, "features.json is missing"),
    ],
)
def test_a_dataset_that_does_not_describe_itself(tmp_path, name, content, message):
    folder = write_dataset(tmp_path, {"video": BYTES, "caption": TEXT}, {"train": [example()]})
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(folder)
    assert "\n" not in str(caught.value)


def theirs(folder: Path, records: list[bytes], kind: str = "tfrecord") -> Path:
    """A dataset of videos with captions; returns its only file."""
    write_dataset(folder, {"video": BYTES, "caption": TEXT, "id": TEXT}, {"train": records}, kind)
    (file,) = folder.glob("theirs-train*")
    return file


def test_a_dataset_whose_files_are_named_by_a_template(tmp_path, video):
    file = theirs(tmp_path, [example(video=[video], caption=["x"])])
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    info["splits"][0]["filepathTemplate"] = "{SPLIT}_{SHARD_INDEX}_{NUM_SHARDS}.{FILEFORMAT}"
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    file.rename(tmp_path / "train_00000_00001.tfrecord")
    assert [row.id for row in read_manifest(tmp_path).rows] == ["00000-0"]


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_a_shard_that_is_a_link_out_is_not_read(tmp_path, video, kind):
    secret = theirs(tmp_path / "secret", [example(video=[video], caption=["secret"], id=["secret"])], kind)
    file = theirs(tmp_path / "d", [example(video=[video], caption=["mine"], id=["mine"])], kind)
    file.unlink()
    file.symlink_to(secret)
    manifest = read_manifest(tmp_path / "d")
    assert manifest.rows == []
    reason = "bad path: a link leads out of the root; only files below the root are read"
    assert reasons(manifest) == {file.name: reason}


@pytest.mark.parametrize("kind", ["array_record", "tfrecord"])
def test_a_record_that_is_too_large_is_one_reject(tmp_path, video, kind):
    small = [example(video=[video], caption=["x"], id=[name]) for name in "ab"]
    theirs(tmp_path, [small[0], example(video=[bytes(65 << 20)], caption=["x"]), small[1]], kind)
    manifest = read_manifest(tmp_path)
    assert [row.id for row in manifest.rows] == ["a", "b"]
    assert only_reason(manifest) == "too large: a record of more than 67,108,864 bytes"


def test_a_record_that_unfolds_to_gigabytes_costs_its_own_file(tmp_path, video):
    small = example(video=[video], caption=["x"])
    file = theirs(tmp_path, [small], "array_record")
    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1,zstd:1")
    writer.write(small)
    writer.write(bytes(1900 << 20))
    writer.close()
    assert file.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    manifest = read_manifest(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert [row.id for row in manifest.rows] == ["00000-0"]
    assert only_reason(manifest).startswith("crash: the reading process ended at the next record")


def test_numbers_that_unfold_cost_their_own_file(tmp_path, video):
    zeros = tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[0] * (1 << 20)))
    message = tf_example_pb2.Example.FromString(example(video=[video], caption=["x"]))
    message.features.feature["z"].CopyFrom(zeros)
    theirs(tmp_path, [message.SerializeToString(), example(video=[video], caption=["word"] * 400_000)])
    manifest = read_manifest(tmp_path)
    assert [row.id for row in manifest.rows] == ["00000-0"]
    assert only_reason(manifest) == "too much text: the record's texts have more than 1,048,576 bytes"


def test_records_in_groups_are_read_in_their_order(tmp_path):
    raw = example(video=[os.urandom(40_000)], caption=["x"])
    file = theirs(tmp_path, [raw], "array_record")
    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1024")
    for _ in range(1024):
        writer.write(raw)
    writer.close()
    began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with record_texts.TextReader("array_record", ClipFieldNames("video", "caption", None, ())) as reader:
        lines = list(reader.read(str(file)))
    assert [line.part.record for line in lines] == list(range(1024))
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began < 6


def test_shards_of_ours_in_another_format_are_refused(tmp_path, video):
    (tmp_path / "a.mp4").write_bytes(video)
    write_split(
        [ClipRow("a", "a.mp4", ("x",), "x")], tmp_path, tmp_path / "s", "train", Options(DecodeSpec(num_frames=2))
    )
    info = (tmp_path / "s" / "dataset_info.json").read_text()
    (tmp_path / "s" / "dataset_info.json").write_text(info.replace('"1.0.0"', '"2.0.0"'))
    with pytest.raises(DataError, match=r"has format 2\.0\.0, and this version of harvest_jax reads 1"):
        read_manifest(tmp_path / "s")


def test_a_turned_picture_is_not_stored_as_it_is(tmp_path):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(numbered_frames(3, 48, 48)[2]).transpose(Image.Transpose.ROTATE_90)
    image.save(file, "JPEG", quality=95, subsampling=2, exif=exif)
    record = Record("a", ("x",), (file.getvalue(),), (0.0,), 48, 48, {})
    write_dataset(tmp_path, {"jpegs": sequence_of(IMAGE), "captions": TEXT}, {"train": [shard_format.encode(record)]})
    (row,) = read_manifest(tmp_path).rows
    assert decoded(row, tmp_path, short_side=48)["numbers"] == [2]


def test_our_own_shards_are_a_source_and_lose_nothing(tmp_path, video):
    (tmp_path / "a.mp4").write_bytes(video)
    rows = [
        ClipRow("a", "a.mp4", ("one", "two"), "x", 1.0, 3.0, {"n": 1, "s": "t"}),
        ClipRow("b", "a.mp4", ("three",), "x"),
    ]
    write_split(rows, tmp_path, tmp_path / "first", "val", Options(DecodeSpec(num_frames=8)))
    manifest = read_manifest(tmp_path / "first")
    assert [(row.id, row.captions, row.split, row.extra) for row in sorted(manifest.rows, key=lambda row: row.id)] == [
        ("a", ("one", "two"), "val", {"n": 1, "s": "t"}),
        ("b", ("three",), "val", {}),
    ]
    source = open_shards(tmp_path / "first", "val")
    before = {record.id: record for record in (parse_record(source[index]) for index in range(len(source)))}
    for row in manifest.rows:
        assert decoded(row, manifest.root, num_frames=8, short_side=64)["record"] == before[row.id]
        fewer = decoded(row, manifest.root, num_frames=4, short_side=64)["record"]
        assert fewer.jpegs == before[row.id].jpegs[1::2]
        assert fewer.seconds == before[row.id].seconds[1::2]
        smaller = decoded(row, manifest.root, short_side=24)["record"]
        assert (smaller.width, smaller.height) == (64, 48)
        assert simplejpeg.decode_jpeg_header(smaller.jpegs[0])[:2] == (24, 32)
    with pytest.raises(ConfigError, match="its fields are known"):
        list(iter_manifest([tmp_path / "first"], fields="video=jpegs"))


def test_a_record_of_ours_with_other_columns_than_ours(tmp_path):
    record = Record("a", ("x",), (picture(0),), (0.0,), 64, 48, {})
    message = tf_example_pb2.Example.FromString(shard_format.encode(record))
    message.features.feature["extra"].bytes_list.value[0] = b"[1]"
    raw = message.SerializeToString()
    folder = write_dataset(tmp_path, {}, {"train": [raw, b"", shard_format.encode(record)]})
    info = (folder / "dataset_info.json").read_text().replace("theirs", "harvest_clips")
    (folder / "dataset_info.json").write_text(info)
    (file,) = folder.glob("theirs-*")
    file.rename(folder / file.name.replace("theirs", "harvest_clips"))
    manifest = read_manifest(folder)
    assert [row.id for row in manifest.rows] == ["a"]
    assert {reject.reason.split(":")[0] for reject in manifest.rejects} == {"bad row"}


def test_tensorflow_is_not_imported(tmp_path, video):
    folder = write_dataset(
        tmp_path, {"video": BYTES, "caption": TEXT}, {"train": [example(video=[video], caption=["x"])]}
    )
    code = (
        "import sys\nfrom data_pipeline.manifest.read import read_manifest\n"
        f"assert len(read_manifest({str(folder)!r}).rows) == 1\n"
        "print(sorted({'tensorflow', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
