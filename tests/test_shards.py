"""Shard folders: what is written is what is read, by TFDS too; the same bytes always; whole or not at all."""

import json
import pickle
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image

from data_pipeline import inspect_shards, make_shards, tfds_builder
from data_pipeline.manifest import Reject, Row
from data_pipeline.shard_format import Record, encode, encode_jpeg, open_shards, parse, shard_path
from data_pipeline.tfds_builder import SplitWriter
from data_pipeline.video_file import DecodeSpec
from harvest_jax.errors import ConfigError, DataError
from tests.video_files import numbered_frames, read_number, write_video

REPOSITORY = Path(__file__).resolve().parents[1]
COUNT = 12
SPEC = DecodeSpec(num_frames=4, short_side=48)


def rows_of(split: str, names: list[str]) -> list[Row]:
    return [
        Row(
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
    folder = tmp_path_factory.mktemp("media")
    frames = numbered_frames(10 * COUNT + 10)
    for number in range(COUNT):
        write_video(folder / f"v{number:02d}.mp4", frames[10 * number : 10 * number + 10])
    return folder


NAMES = [f"v{number:02d}" for number in range(COUNT)]


@pytest.fixture(scope="module")
def dataset(media, tmp_path_factory) -> Path:
    """A dataset of three train shards and one test shard, with one reject; read only."""
    out = tmp_path_factory.mktemp("dataset") / "shards"
    rows = [*rows_of("train", NAMES[:9]), Row("gone", "gone.mp4", ("x",), "train")]
    make_shards.write_split(rows, media, out, "train", SPEC, rejects=[Reject("line 3", "", "empty caption")], shards=3)
    make_shards.write_split(rows_of("test", NAMES[9:]), media, out, "test", SPEC)
    return out


def records(folder: Path, split: str) -> list[Record]:
    source = open_shards(folder, split)
    return [parse(source[index]) for index in range(len(source))]


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
    features = tfds_builder.features()
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
    assert parse(raw) == record
    assert len(raw) == len(encode(record))


@pytest.mark.parametrize("captions", [(), ("only one",)])
def test_records_without_captions_survive_the_way(tmp_path, captions):
    record = Record("a", captions, (b"x",), (0.0,), 2, 1, {"question": "what?"})
    assert parse(encode(record)) == record
    assert encode(record) == encode(record)
    with SplitWriter(tmp_path, "train", 1) as writer:
        writer.write(0, encode(record))
        writer.publish()
    (example,) = tfds.builder_from_directory(tmp_path).as_data_source("train")
    assert [caption.decode() for caption in example["captions"]] == list(captions)


@pytest.mark.parametrize("raw", [b"", b"hello", b"\xff" * 100, encode(Record("a", (), (), (), 1, 1, {}))[:-5]])
def test_bytes_that_are_no_record(raw):
    with pytest.raises(DataError, match="is not one of `harvest shards`"):
        parse(raw)


def test_jpeg_keeps_pictures_well():
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (16, 24, 3), np.uint8)).resize((384, 256), Image.Resampling.BICUBIC)
    frame = np.asarray(smooth)
    jpeg = encode_jpeg(frame)
    error = np.mean((simplejpeg.decode_jpeg(jpeg).astype(float) - frame) ** 2)
    assert 10 * np.log10(255**2 / error) > 38
    assert len(jpeg) < frame.nbytes / 12


def test_neighbours_are_strangers_and_every_writer_writes_the_same(media, dataset, tmp_path):
    train = [record.id for record in records(dataset, "train")]
    assert train != sorted(train)
    rows = [*rows_of("train", NAMES[:9]), Row("gone", "gone.mp4", ("x",), "train")]
    again = tmp_path / "again"
    make_shards.write_split(
        rows[::-1], media, again, "train", SPEC, workers=2, rejects=[Reject("line 3", "", "empty caption")], shards=3
    )
    first = {name: content for name, content in files(dataset).items() if "train" in name}
    assert {name: content for name, content in files(again).items() if "train" in name} == first
    assert open_shards(again, "train").digest == open_shards(dataset, "train").digest


def write_records(folder: Path, split: str, ids: list[str], shards: int | None = None, overwrite: bool = False) -> None:
    """Without any video: records of 2 kB."""
    with SplitWriter(folder, split, len(ids), shards, overwrite) as writer:
        for position, name in enumerate(ids):
            writer.write(position, encode(Record(name, ("x",), (name.encode() * 1000,), (0.0,), 2, 1, {})))
        writer.publish()


def test_the_number_of_shards(tmp_path, monkeypatch):
    ids = list("abcdef")
    write_records(tmp_path, "one", ids)
    write_records(tmp_path, "four", ids, shards=4)
    monkeypatch.setattr(tfds_builder, "TARGET_BYTES", 2000)
    write_records(tmp_path, "by_bytes", ids)
    lengths = {"one": [6], "four": [2, 1, 2, 1], "by_bytes": [2, 2, 2]}
    for split, expected in lengths.items():
        assert open_shards(tmp_path, split).lengths == expected
        assert [record.id for record in records(tmp_path, split)] == ids
    with pytest.raises(ConfigError, match="--shards 7 is impossible for 6 clips"):
        write_records(tmp_path, "seven", ids, shards=7)
    with SplitWriter(tmp_path, "gaps", 6, num_shards=3) as writer:  # the clips of the second shard were all rejected
        for position in (0, 4, 5):
            writer.write(position, encode(Record(ids[position], (), (b"x",), (0.0,), 2, 1, {})))
        writer.publish()
    assert open_shards(tmp_path, "gaps").lengths == [1, 2]


def test_a_split_that_exists_is_only_replaced_on_request(tmp_path):
    write_records(tmp_path, "train", ["a", "b"])
    write_records(tmp_path, "test", ["c"])
    before, digest = files(tmp_path), open_shards(tmp_path, "train").digest
    with pytest.raises(DataError, match="has the split 'train' already: --overwrite replaces it"):
        write_records(tmp_path, "train", ["a", "d"])
    assert files(tmp_path) == before
    write_records(tmp_path, "train", ["a", "d"], overwrite=True)
    assert open_shards(tmp_path, "train").digest != digest  # though all names, sizes and counts are the same
    write_records(tmp_path, "train", ["a", "d", "e"], shards=2, overwrite=True)
    assert [record.id for record in records(tmp_path, "train")] == ["a", "d", "e"]
    assert [record.id for record in records(tmp_path, "test")] == ["c"]
    assert sorted(path.name for path in tmp_path.glob("harvest_clips-train*")) == [
        "harvest_clips-train.array_record-00000-of-00002",
        "harvest_clips-train.array_record-00001-of-00002",
    ]


def test_checksums_are_those_of_sha256sum(dataset):
    for split in ("train", "test"):
        subprocess.run(["sha256sum", "--check", "--quiet", f"checksums-{split}.txt"], cwd=dataset, check=True)


def test_a_killed_run_leaves_nothing_that_looks_whole(media, tmp_path):
    manifest = media / "killed.csv"
    manifest.write_text("id,video,caption\n" + "".join(f"k{i},v{i % COUNT:02d}.mp4,x\n" for i in range(3000)))
    out = tmp_path / "out"
    run = subprocess.Popen(
        [sys.executable, "-m", "harvest_jax", "shards", "--manifest", manifest, "--out", out, "--workers", "1"],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(out.glob(".train.writing/0*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        with (
            pytest.raises(DataError, match="another run is writing the split 'train'"),
            SplitWriter(out, "train", 1),
        ):
            pass
    finally:
        run.kill()
        run.wait()
    assert list(out.glob(".train.writing/0*"))
    with pytest.raises(DataError, match="holds no shards: a run did not finish there, start it again"):
        open_shards(out, "train")
    make_shards.write_split(rows_of("train", NAMES[:1]), media, out, "train", SPEC)
    assert len(open_shards(out, "train")) == 1
    assert not list(out.glob(".*"))


def test_a_failure_in_the_middle_of_publishing_shows_no_half_split(tmp_path, monkeypatch):
    write_records(tmp_path, "test", ["a"])
    write_records(tmp_path, "train", ["b"])
    with SplitWriter(tmp_path, "train", 1, overwrite=True) as writer:
        writer.write(0, b"x")
        write_info = writer._write_info

        def fail_at_last(with_split: bool) -> None:
            if with_split:
                raise OSError("No space left on device")
            write_info(with_split)

        monkeypatch.setattr(writer, "_write_info", fail_at_last)
        with pytest.raises(OSError, match="No space left on device"):
            writer.publish()
    with pytest.raises(DataError, match="has no split 'train'; it has test"):
        open_shards(tmp_path, "train")
    write_records(tmp_path, "train", ["c", "d"], shards=2)  # the same command again mends it
    assert [record.id for record in records(tmp_path, "train")] == ["c", "d"]


@pytest.mark.parametrize("step", ["_write_info", "_close_shard"])
def test_a_failure_at_the_end_changes_nothing(tmp_path, monkeypatch, step):
    write_records(tmp_path, "test", ["a"])
    before = files(tmp_path)

    def fail(*_, **__):
        raise RuntimeError("write() failed: No space left on device; writing x")

    with SplitWriter(tmp_path, "train", 1) as writer:
        writer.write(0, b"x")
        monkeypatch.setattr(writer, step, fail)
        with pytest.raises((OSError, RuntimeError), match="No space left on device"):
            writer.publish()
    assert files(tmp_path) == before


def test_a_full_disk_is_one_line_and_changes_nothing(media, tmp_path):
    (media / "full.csv").write_text("id,video,caption\n" + "".join(f"k{i},v{i % COUNT:02d}.mp4,x\n" for i in range(60)))
    command = (
        f"ulimit -f 64; exec {sys.executable} -m harvest_jax shards --manifest {media}/full.csv --out {tmp_path}/out"
    )
    run = subprocess.run(
        ["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )  # no file may grow beyond 64 KiB
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert re.fullmatch(r"harvest shards: .*cannot be written: .*File too large.*", line)
    assert not list((tmp_path / "out").glob("*[!v]"))


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
    writer = array_record_module.ArrayRecordWriter(str(shard), "group_size:1")
    writer.write(b"foreign")
    writer.close()
    with pytest.raises(DataError, match=rf"{shard.name} holds 1 records, not the 3 that dataset_info\.json says"):
        open_shards(copy, "train")
    shard.write_bytes(content + bytes(len(content)))
    with pytest.raises(DataError, match=r"is cut off or damaged"):
        open_shards(copy, "train")
    writer = array_record_module.ArrayRecordWriter(str(shard), "group_size:1")
    for _ in range(3):
        writer.write(b"foreign")
    writer.close()
    source = open_shards(copy, "train")
    with pytest.raises(DataError, match="is not one of"):
        parse(source[3])
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
        ('{"name": "mnist", "fileFormat": "tfrecord"}', r"holds another dataset \(mnist\)"),
        ('{"name": "harvest_clips", "fileFormat": "array_record", "version": "7.0.0"}', "was written in format 7.0.0"),
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
    rows = [Row(name, f"{name}.mp4", ("x",), "train") for name in ("p", "q")]
    with pytest.raises(
        DataError, match=r"not one clip of train could be used \(2 x not found\): see .*rejects-train\.tsv"
    ):
        make_shards.write_split(rows, media, tmp_path, "train")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rejects-train.tsv"]
    with pytest.raises(DataError, match="two rows share the id 'p'"):
        make_shards.write_split([rows[0], rows[0]], media, tmp_path, "train")


def harvest(*words: object) -> subprocess.CompletedProcess[str]:
    warnings = ["-W", "error", "-W", "ignore:label() is deprecated:DeprecationWarning"]  # TFDS's, with protobuf 6
    command = [sys.executable, *warnings, "-m", "harvest_jax", *map(str, words)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_the_command(media, tmp_path):
    lines = [f"v{number:02d}.mp4,clip {number},{'train' if number < 4 else 'test'}" for number in range(6)]
    manifest = tmp_path / "m.csv"
    manifest.write_text("video,caption,split\n" + "\n".join(lines) + "\nnone.mp4,x,train\nv07.mp4,,train\n")
    options = ("shards", "--manifest", manifest, "--root", media, "--frames", 4, "--short_side", 32, "--workers", 1)
    run = harvest(*options, "--out", tmp_path / "a", "--max_rejects", 0.5)
    assert run.returncode == 0
    assert all(re.fullmatch(r"\w+: \d+/\d+ clips, .* left", line) for line in run.stderr.splitlines())  # if it is slow
    assert re.match(
        r"test: 2 clips in 1 shard of .*\ntrain: 4 clips in 1 shard of .* MB, .* s \(.* clips/s\)\n", run.stdout
    )
    assert "train: 2 rejected, listed in" in run.stdout
    assert (tmp_path / "a" / "rejects-train.tsv").read_text().splitlines() == [
        "id\tvideo\treason",
        "line 9\tv07.mp4\tempty caption",
        "none\tnone.mp4\tnot found: No such file or directory",
    ]
    run = harvest(*options, "--out", tmp_path / "b", "--split", "train")
    assert run.returncode == 3
    message = "harvest shards: 2 of 6 rows failed, more than --max_rejects 0.05; the shards of the others are written"
    assert run.stderr.splitlines()[-1].startswith(message)
    assert len(open_shards(tmp_path / "b", "train")) == 4


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--runner", "spark"), 2, "--runner spark is not available here; available: direct"),
        (("--workers", 0), 2, "--workers 0: at least 1"),
        (("--frames", 0), 2, "num_frames=0 is outside 1..1024"),
        (("--max_rejects", 5), 2, "--max_rejects 5 is a share from 0 to 1"),
        (("--time_limit", 0), 2, "--time_limit 0: more than 0 seconds"),
        (("--split", "a-b"), 3, "'a-b' cannot name a split"),
        (("--manifest", "nothing.csv"), 3, "no manifest nothing.csv"),
    ],
)
def test_mistakes_on_the_command_line(media, tmp_path, capsys, words, code, message):
    from harvest_jax import cli

    (tmp_path / "m.csv").write_text("video,caption\nv00.mp4,x\n")
    base = ["shards", "--manifest", str(tmp_path / "m.csv"), "--root", str(media), "--out", str(tmp_path / "out")]
    assert cli.main([*base, *map(str, words)]) == code
    error = capsys.readouterr().err
    assert error.startswith(f"harvest shards: {message}")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_inspect(dataset, tmp_path):
    sheet = tmp_path / "sheet.png"
    description = inspect_shards.describe(dataset, sheet)
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
    text = inspect_shards.format_description(description)
    assert "train: 9 clips, 3 shards" in text
    assert "rejected        2: 1 x empty caption, 1 x not found" in text
    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert("L"))
    rows = (pixels.shape[0] - 8) / (128 + 44)
    assert rows == 6 + 3  # six of train, all of test
    first_strip = pixels[8 + 36 : 8 + 36 + 128, 8 : 8 + 4 * (171 + 3)]
    numbers = [read_number(np.repeat(tile[..., None], 3, 2)) for tile in np.split(first_strip, 4, axis=1)]
    assert [number % 10 for number in numbers] == [1, 3, 6, 8]
