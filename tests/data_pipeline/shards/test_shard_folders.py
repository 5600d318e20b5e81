"""Shard folders: records are read as they were written, also by TFDS; the bytes are always the same; damage is seen."""

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image

from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.manifest.rows import ClipRow, Reject
from data_pipeline.prepare.options import Options
from data_pipeline.prepare.split import Execution, local_engine, write_split
from data_pipeline.shards import statistics, tfds_metadata
from data_pipeline.shards.shard_format import (
    WRITER_OPTIONS,
    Record,
    encode,
    encode_jpeg,
    open_shards,
    parse_record,
    shard_path,
)
from harvest_jax.errors import DataError
from tests.helpers.shard_files import write_records
from tests.helpers.video_files import read_number, write_numbered_videos

REPOSITORY = Path(__file__).resolve().parents[3]
COUNT = 12
SPEC = DecodeSpec(num_frames=4, short_side=48)


def rows_of(split: str, names: list[str]) -> list[ClipRow]:
    return [
        ClipRow(
            name,
            f"{name}.mp4",
            (f"clip {name}", "ein zweiter Satz über Bären"),
            split,
            extra={"label": name, "n": number},
        )
        for number, name in enumerate(names)
    ]


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """A folder of short videos v00.mp4, v01.mp4, ...; the first frame of each says its number times ten."""
    return write_numbered_videos(tmp_path_factory.mktemp("media"), COUNT, "v{:02d}.mp4")


NAMES = [f"v{number:02d}" for number in range(COUNT)]


@pytest.fixture(scope="module")
def dataset(media, tmp_path_factory) -> Path:
    """A dataset of three train shards and one test shard, with one reject; read only."""
    out = tmp_path_factory.mktemp("dataset") / "shards"
    rows = [*rows_of("train", NAMES[:9]), ClipRow("gone", "gone.mp4", ("x",), "train")]
    write_split([Reject("line 3", "", "empty caption"), *rows], media, out, "train", Options(SPEC, shards=3))
    write_split(rows_of("test", NAMES[9:]), media, out, "test", Options(SPEC))
    return out


def records(folder: Path, split: str) -> list[Record]:
    source = open_shards(folder, split)
    return [parse_record(source[index]) for index in range(len(source))]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_is_written_is_read(dataset):
    found = {record.id: record for record in records(dataset, "train")}
    assert sorted(found) == NAMES[:9]
    for number, name in enumerate(NAMES[:9]):
        record = found[name]
        assert record.captions == (f"clip {name}", "ein zweiter Satz über Bären")
        assert record.extra == {"label": name, "n": number}
        assert (record.width, record.height) == (64, 48)
        frames = [simplejpeg.decode_jpeg(jpeg) for jpeg in record.jpegs]
        assert [read_number(frame) for frame in frames] == [10 * number + at for at in (1, 3, 6, 8)]
        np.testing.assert_allclose(record.seconds, [0.1, 0.3, 0.6, 0.8], atol=1e-6)


def test_tfds_reads_the_same(dataset):
    builder = tfds.builder_from_directory(dataset)
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == {"train": 9, "test": 3}
    assert builder.info.splits["train"].num_shards == 3
    for split in ("train", "test"):
        for example, record in zip(builder.as_data_source(split), records(dataset, split), strict=True):
            assert example["id"].decode() == record.id
            assert tuple(caption.decode() for caption in example["captions"]) == record.captions
            assert tuple(example["jpegs"]) == record.jpegs
            assert tuple(example["seconds"]) == record.seconds
            assert (example["width"], example["height"]) == (record.width, record.height)
            assert json.loads(example["extra"]) == record.extra
    assert "tensorflow" not in sys.modules


def test_our_bytes_are_what_tfds_would_write():
    record = Record("a", ("x", "ü"), (b"\xff\xd8one", b"two"), (0.5, 1.25), 640, 360, {"k": [1, None]})
    features = tfds_metadata.features()
    example = {
        "id": "a",
        "captions": ["x", "ü"],
        "jpegs": [b"\xff\xd8one", b"two"],
        "seconds": np.array([0.5, 1.25], np.float32),
        "width": 640,
        "height": 360,
        "extra": json.dumps({"k": [1, None]}),
    }
    raw = features.serialize_example(features.encode_example(example))
    assert parse_record(raw) == record
    without = dataclasses.replace(record, jpegs=())
    assert parse_record(raw, frames=False) == parse_record(encode(record), frames=False) == without
    assert len(raw) == len(encode(record))


@pytest.mark.parametrize("captions", [(), ("only one",)])
def test_records_without_captions_survive_the_way(tmp_path, captions):
    record = Record("a", captions, (b"x",), (0.0,), 2, 1, {"question": "what?"})
    assert parse_record(encode(record)) == record
    assert parse_record(encode(record), frames=False) == dataclasses.replace(record, jpegs=())
    assert encode(record) == encode(record)
    write_records(tmp_path, "train", [encode(record)])
    (example,) = tfds.builder_from_directory(tmp_path).as_data_source("train")
    assert [caption.decode() for caption in example["captions"]] == list(captions)


@pytest.mark.parametrize("raw", [b"", b"hello", b"\xff" * 100, encode(Record("a", (), (), (), 1, 1, {}))[:-5]])
def test_bytes_that_are_no_record(raw):
    with pytest.raises(DataError, match="was not written by `harvest shards`"):
        parse_record(raw)
    with pytest.raises(DataError, match="was not written by `harvest shards`"):
        parse_record(raw, frames=False)


def test_jpeg_keeps_pictures_well():
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (16, 24, 3), np.uint8)).resize((384, 256), Image.Resampling.BICUBIC)
    frame = np.asarray(smooth)
    jpeg = encode_jpeg(frame)
    error = np.mean((simplejpeg.decode_jpeg(jpeg).astype(float) - frame) ** 2)
    assert 10 * np.log10(255**2 / error) > 38
    assert len(jpeg) < frame.nbytes / 12


def test_the_order_is_shuffled_and_every_writer_writes_the_same(media, dataset, tmp_path):
    train = [record.id for record in records(dataset, "train")]
    assert train != sorted(train)
    rows = [*rows_of("train", NAMES[:9]), ClipRow("gone", "gone.mp4", ("x",), "train")]
    again = tmp_path / "again"
    entries = [Reject("line 3", "", "empty caption"), *rows[::-1]]
    write_split(entries, media, again, "train", Options(SPEC, shards=3), Execution(local_engine(2), 2))
    for name in (name for name in files(dataset) if "train" in name and "ledger" not in name):
        assert files(again)[name] == files(dataset)[name]
    assert open_shards(again, "train").digest == open_shards(dataset, "train").digest


def numbered_records(folder: Path, split: str, ids: str, shards: int = 1) -> None:
    """Without any video: records of 1 kB; "-" for a clip that was rejected."""
    raws = [encode(Record(name, ("x",), (name.encode() * 1000,), (0.0,), 2, 1, {})) for name in ids]
    write_records(folder, split, [None if name == "-" else raw for name, raw in zip(ids, raws, strict=True)], shards)


def test_shards_share_the_rows_evenly_and_keep_their_order(tmp_path):
    numbered_records(tmp_path, "one", "abcdef")
    numbered_records(tmp_path, "four", "abcdef", shards=4)
    numbered_records(tmp_path, "gaps", "a---ef", shards=3)  # the clips of the second shard were all rejected
    for split, ids, lengths in (("one", "abcdef", [6]), ("four", "abcdef", [2, 1, 2, 1]), ("gaps", "aef", [1, 2])):
        assert open_shards(tmp_path, split).lengths == lengths
        assert "".join(record.id for record in records(tmp_path, split)) == ids


def test_publishing_over_a_split_leaves_nothing_of_it(tmp_path):
    numbered_records(tmp_path, "train", "ab")
    numbered_records(tmp_path, "test", "c")
    digest = open_shards(tmp_path, "train").digest
    numbered_records(tmp_path, "train", "ad")
    assert open_shards(tmp_path, "train").digest != digest  # though all names, sizes and counts are the same
    numbered_records(tmp_path, "train", "ade", shards=2)
    assert [record.id for record in records(tmp_path, "train")] == ["a", "d", "e"]
    assert [record.id for record in records(tmp_path, "test")] == ["c"]
    assert sorted(path.name for path in tmp_path.glob("harvest_clips-train*")) == [
        "harvest_clips-train.array_record-00000-of-00002",
        "harvest_clips-train.array_record-00001-of-00002",
    ]


def test_checksums_are_those_of_sha256sum(dataset):
    for split in ("train", "test"):
        subprocess.run(["sha256sum", "--check", "--quiet", f"checksums-{split}.txt"], cwd=dataset, check=True)


def test_random_access_and_pickling(dataset):
    source = open_shards(dataset, "train")
    in_order = [source[index] for index in range(len(source))]
    copy = pickle.loads(pickle.dumps(source))
    assert [copy[index] for index in (8, 0, 4)] == [in_order[8], in_order[0], in_order[4]]
    assert source[np.int64(3)] == in_order[3]
    assert copy.digest == source.digest
    assert len(copy) == 9
    for index in (9, -1):
        with pytest.raises(IndexError):
            source[index]


def damaged_copy(dataset: Path, folder: Path) -> tuple[Path, Path]:
    copy = folder / "copy"
    shutil.copytree(dataset, copy)
    return copy, shard_path(copy, "train", 1, 3)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_shard_is_named_at_once(dataset, tmp_path, share):
    copy, shard = damaged_copy(dataset, tmp_path)
    content = shard.read_bytes()
    shard.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=rf"{shard.name} is cut off or damaged: make the shards again") as caught:
        open_shards(copy, "train")
    assert "\n" not in str(caught.value)


def test_other_damage_is_named_at_once(dataset, tmp_path):
    copy, shard = damaged_copy(dataset, tmp_path)
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(DataError, match=rf"lacks 1 of 3 shards of train, the first is {shard.name}"):
        open_shards(copy, "train")
    writer = array_record_module.ArrayRecordWriter(str(shard), WRITER_OPTIONS)
    writer.write(b"foreign")
    writer.close()
    with pytest.raises(DataError, match=rf"{shard.name} has 1 records, but dataset_info\.json says 3"):
        open_shards(copy, "train")
    shard.write_bytes(content + bytes(len(content)))
    with pytest.raises(DataError, match=r"is cut off or damaged"):
        open_shards(copy, "train")
    writer = array_record_module.ArrayRecordWriter(str(shard), WRITER_OPTIONS)
    for _ in range(3):
        writer.write(b"foreign")
    writer.close()
    source = open_shards(copy, "train")
    with pytest.raises(DataError, match="was not written by"):
        parse_record(source[3])
    (copy / "checksums-train.txt").unlink()
    with pytest.raises(DataError, match=r"checksums-train\.txt cannot be read"):
        open_shards(copy, "train")


def test_a_flipped_bit_is_an_error_and_never_other_bytes(dataset, tmp_path):
    copy, shard = damaged_copy(dataset, tmp_path)
    source = open_shards(copy, "train")
    good = [source[index] for index in range(9)]
    content = bytearray(shard.read_bytes())
    content[content.index(good[4][-200:]) + 100] ^= 1
    shard.write_bytes(content)
    source = open_shards(copy, "train")
    failed = {}
    for index in range(9):
        try:
            assert source[index] == good[index]
        except DataError as error:
            failed[index] = str(error)
    assert list(failed) == [4]
    assert f"{shard.name} is damaged (record 4: " in failed[4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no shards: `harvest shards --out` makes them"),
        ("", "dataset_info.json is damaged: make the shards again"),
        ("[]", "dataset_info.json is damaged: make the shards again"),
        ('{"name": "harvest_clips"', "dataset_info.json is damaged"),
        ('{"name": "mnist", "fileFormat": "tfrecord"}', r"is another dataset \(mnist\)"),
        ('{"name": "harvest_clips", "fileFormat": "array_record", "version": "7.0.0"}', "has format 7.0.0"),
        (
            '{"name": "harvest_clips", "fileFormat": "array_record", "version": "1.0.0"}',
            "has no split 'train'; it has none",
        ),
        (
            '{"name": "harvest_clips", "fileFormat": "array_record", "version": "1.0.0", "splits": [{"name": "a"}]}',
            "dataset_info.json is damaged",
        ),
    ],
)
def test_folders_that_are_no_shard_folders(tmp_path, content, message):
    if content is not None:
        (tmp_path / "dataset_info.json").write_text(content)
    with pytest.raises(DataError, match=message):
        open_shards(tmp_path, "train")


def test_a_folder_or_split_that_is_not_there(dataset, tmp_path):
    with pytest.raises(DataError, match=r"no shard folder .*nowhere: `harvest shards` makes one"):
        open_shards(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match="has no split 'val'; it has test, train"):
        open_shards(dataset, "val")


def test_nothing_usable_is_an_error_with_its_reasons(media, tmp_path):
    rows = [ClipRow(name, f"{name}.mp4", ("x",), "train") for name in ("p", "q")]
    with pytest.raises(
        DataError, match=r"not one clip of train could be used \(2 x not found\): see .*rejects-train\.tsv"
    ):
        write_split(rows, media, tmp_path, "train")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rejects-train.tsv"]
    with pytest.raises(DataError, match="two rows share the id 'p'"):
        write_split([rows[0], rows[0]], media, tmp_path, "train")


def test_inspect(dataset, tmp_path):
    sheet = tmp_path / "sheet.png"
    description = statistics.describe(dataset, sheet)
    assert json.loads(json.dumps(description)) == description
    train = description["splits"]["train"]
    assert (train["clips"], train["shards"], train["sampled"]) == (9, 3, 9)
    assert train["frames"] == {"4": 9}
    assert train["source_sizes"] == {"64x48": 9}
    assert train["captions_per_clip"]["mean"] == 2
    assert (train["caption_characters"]["min"], train["caption_characters"]["max"]) == (8, 27)
    assert train["rejects"] == {"count": 2, "reasons": {"empty caption": 1, "not found": 1}}
    assert train["bytes"] == sum(path.stat().st_size for path in dataset.glob("harvest_clips-train*"))
    assert description["splits"]["test"]["clips"] == 3
    text = statistics.format_description(description)
    assert "train: 9 clips, 3 shards" in text
    assert "rejected        2: 1 x empty caption, 1 x not found" in text
    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert("L"))
    rows = (pixels.shape[0] - 8) / (128 + 44)
    assert rows == 6 + 3  # six of train, all of test
    first_strip = pixels[8 + 36 : 8 + 36 + 128, 8 : 8 + 4 * (171 + 3)]
    numbers = [read_number(np.repeat(tile[..., None], 3, 2)) for tile in np.split(first_strip, 4, axis=1)]
    assert [number % 10 for number in numbers] == [1, 3, 6, 8]
