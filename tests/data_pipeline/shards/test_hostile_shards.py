"""Shard folders that others made to do harm: one line each, and neither memory nor time beyond what a file is worth."""

import json
import os
import time

import numpy as np
import pytest
import simplejpeg
from array_record.python import array_record_module

from data_pipeline.shards import statistics
from data_pipeline.shards.record_sizes import RecordSizes
from data_pipeline.shards.shard_format import WRITER_OPTIONS, Record, encode, open_shards, shard_path
from harvest_jax import cli
from harvest_jax.errors import DataError, HarvestError
from harvest_jax.input.stored_clip import StoredClip
from tests.helpers.shard_files import write_records
from tests.helpers.training_clips import config, make_record, take

INFO = {"name": "harvest_clips", "fileFormat": "array_record", "version": "1.0.0"}


def lengths_of(numbers):
    return json.dumps(INFO | {"splits": [{"name": "train", "shardLengths": numbers}]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lengths_of([]), "a split has no name or no files"),
        (lengths_of(["1e400"]), "is damaged"),
        (lengths_of([float("inf")]), "is damaged"),
        (lengths_of([1] * 1_000_000), "lacks most of the 1,000,000 shards of train"),
        ("[" * 200_000, "is damaged"),
        (json.dumps(INFO | {"splits": [{"name": 5, "shardLengths": [1]}]}), "a split has no name"),
        (json.dumps(INFO | {"splits": [{"name": "x/../../y", "shardLengths": [1]}]}), "a split has no name"),
        (json.dumps(INFO | {"splits": "deep"}), "is damaged"),
        (json.dumps(INFO) + " " * (17 << 20), "is damaged"),
    ],
)
def test_a_list_of_files_that_cannot_be(tmp_path, capsys, content, message):
    (tmp_path / "dataset_info.json").write_text(content)
    began = time.process_time()
    assert cli.main(["inspect", str(tmp_path)]) == 3
    assert time.process_time() - began < 4  # a million names are made and looked for in 10 s
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def packed(folder, raws, options):
    """A split whose file is written with other options than ours."""
    write_records(folder, "train", raws)
    writer = array_record_module.ArrayRecordWriter(str(shard_path(folder, "train", 0, 1)), options)
    for raw in raws:
        writer.write(raw)
    writer.close()


@pytest.mark.parametrize("options", ["group_size:1,zstd", "group_size:1,brotli", "group_size:4,uncompressed"])
def test_records_that_unfold_are_not_read(tmp_path, options):
    packed(tmp_path, [encode(make_record(number)) for number in range(4)], options)
    with pytest.raises(DataError, match="compressed or packed with others"):
        open_shards(tmp_path, "train")[0]


def test_the_list_alone_may_look_like_ours(tmp_path):
    """A file with our list of records, in front of which a compressed record was put in the place of the first."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for path, options, raw in ((ours, WRITER_OPTIONS, os.urandom(4000)), (theirs, "group_size:1,zstd", bytes(1 << 24))):
        writer = array_record_module.ArrayRecordWriter(str(path), options)
        writer.write(raw)
        writer.close()
    content = bytearray(ours.read_bytes())
    content[64:664] = theirs.read_bytes()[64:664]
    ours.write_bytes(content)
    assert RecordSizes(ours).count == 1
    with pytest.raises(ValueError, match="compressed"):
        RecordSizes(ours).check(0)


def test_the_sizes_are_those_of_files_of_any_records(tmp_path):
    path, sizes = tmp_path / "x", [0, 1, 300, 65_000, 65_536, 200_000, 7]
    writer = array_record_module.ArrayRecordWriter(str(path), WRITER_OPTIONS)
    for size in sizes * 20:
        writer.write(os.urandom(size))
    writer.close()
    found = RecordSizes(path)
    assert found.count == len(sizes) * 20
    for index in range(found.count):
        found.check(index)
    with pytest.raises(IndexError):
        found.check(found.count)


@pytest.mark.parametrize("size", [(1, 65000), (65000, 1), (3000, 3000), (20, 300)])
def test_frames_of_sizes_that_no_shard_has(tmp_path, size):
    jpeg = simplejpeg.encode_jpeg(np.zeros((*size, 3), np.uint8), colorspace="RGB")
    record = Record("a", ("x",), (jpeg,) * 4, (0.0, 1.0, 2.0, 3.0), 10, 10, {})
    write_records(tmp_path, "train", [encode(record)])
    with pytest.raises(DataError, match="frame 0 of a is damaged"):
        statistics.describe(tmp_path, tmp_path / "sheet.png")
    with pytest.raises(ValueError, match=r"is no size of a stored frame"):
        StoredClip([jpeg])
    with pytest.raises(DataError, match=r"record 0 \(id a\) .*: .*is no size of a stored frame"):
        take(tmp_path, 1, "data.workers=0")


def test_bench_loader_says_it_in_one_line(tmp_path):
    from harvest_jax.bench import loader_limits

    write_records(tmp_path, "train", [encode(Record("a", ("x",), (b"no jpeg",), (0.0,), 10, 10, {}))])
    with pytest.raises(HarvestError, match="a frame of a cannot be decoded"):
        loader_limits.limit_rates(str(tmp_path), "train", 2, 1, 0.2)
    assert config(tmp_path).data.shards == str(tmp_path)
