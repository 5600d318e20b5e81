"""The TFDS builder writes the same shards as `harvest shards`."""

import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.manifest.read import read_manifest
from data_pipeline.prepare import plan, write
from data_pipeline.prepare.options import Options
from data_pipeline.prepare.split import write_split
from data_pipeline.tfds_builder import HarvestClips
from harvest_jax.errors import DataError
from tests.helpers.shard_files import InThisProcess, digests
from tests.helpers.video_files import numbered_frames, write_video

SPEC = DecodeSpec(num_frames=4, short_side=48)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for number in range(3):
        write_video(folder / f"v{number}.mp4", numbered_frames(10))
    rows = "".join(f"k{number},v{number % 4}.mp4,clip {number},train\n" for number in range(6))
    (folder / "m.csv").write_text(f"id,video,caption,split\n{rows}k6,v0.mp4,clip 6,test\n")
    return folder / "m.csv"


def test_the_builder_prepares_itself_and_writes_the_same(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "DecoderPool", InThisProcess)
    builder = HarvestClips(manifest=[manifest], options=Options(SPEC, shards=1), data_dir=tmp_path / "tfds")
    builder.download_and_prepare()
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 5, "test": 1}
    assert [example["id"] for example in builder.as_data_source("test")] == [b"k6"]
    found = read_manifest(manifest)
    for split in found.splits:
        rows = [row for row in found.rows if row.split == split]
        write_split(rows, found.root, tmp_path / "own", split, Options(SPEC, shards=1))
    assert digests(tmp_path / "own") == digests(tmp_path / "tfds" / "harvest_clips" / "1.0.0")
    builder.download_and_prepare()  # there is nothing to do
    again = tfds.builder("harvest_clips", manifest=[manifest], data_dir=tmp_path / "tfds")
    assert again.info.splits["train"].num_examples == 5
    with pytest.raises(DataError, match="--overwrite replaces it"):  # other options
        again.download_and_prepare()
    overwrite = tfds.download.DownloadConfig(download_mode=tfds.GenerateMode.REUSE_CACHE_IF_EXISTS)
    again.download_and_prepare(download_config=overwrite)
    assert len(again.as_data_source("train")[0]["jpegs"]) == 10  # of the default's 16, as many as there are


def test_a_dataset_without_its_features_is_one_line(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "DecoderPool", InThisProcess)
    found = read_manifest(manifest)
    write_split(found.rows[:1], found.root, tmp_path, "test", Options(SPEC))
    (tmp_path / "features.json").unlink()
    with pytest.raises(DataError, match=r"features\.json is missing or damaged: copy it from another"):
        write_split(found.rows[:1], found.root, tmp_path, "train", Options(SPEC))


def test_tensorflow_is_never_imported():
    code = "import sys, data_pipeline.tfds_builder; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_worker_that_sees_no_plan_or_would_write_other_bytes(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"cannot read .*plan\.json: --out must be on a file system that every"):
        write.write_shards(tmp_path / "elsewhere", [0])
    rows = plan.spool.Spool(tmp_path / "rows")
    plan.save(tmp_path, tmp_path / "rows", plan.make_plan(rows, "train", "/", Options(SPEC, 1), 1, None))
    write.write_shards(tmp_path, [])
    other = plan.record_versions() | {"av": "0", "another": "1"}
    del other["pillow"]
    monkeypatch.setattr(plan, "record_versions", lambda: other)
    with pytest.raises(DataError, match=r"different bytes: av 0, not .*; another 1, not None; pillow None, not"):
        write.write_shards(tmp_path, [0])
