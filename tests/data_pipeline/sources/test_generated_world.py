"""A generated world as a source of shards, through the real command."""

import json
import sys

import numpy as np
import pytest

from data_pipeline.decode.rendered_clip import rendered_clip
from data_pipeline.decode.spec import DecodeSpec
from data_pipeline.manifest.read import read_manifest
from data_pipeline.media_paths import FilePart, VideoRejected
from data_pipeline.shards.shard_format import open_shards, parse_record
from harvest_jax.cli import main
from harvest_jax.errors import DataError
from harvest_jax.synthetic.draw import render_clip
from harvest_jax.synthetic.rows import World, frames_of, read_world, scene_of

CLIPS = {"train": 12, "retrieval": 6, "choice": 8, "questions": 8, "actions": 5}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "tiny.world.json"
    path.write_text(World(3, CLIPS).text())
    return path


def test_rows_are_those_of_a_manifest(world):
    manifest = read_manifest(world)
    assert not manifest.rejects
    found = {split: [row for row in manifest.rows if row.split == split] for split in CLIPS}
    assert {split: len(rows) for split, rows in found.items()} == CLIPS
    assert len({row.id for row in manifest.rows}) == sum(CLIPS.values())
    assert all(row.captions for row in found["train"])
    assert len({row.captions for row in found["retrieval"]}) == CLIPS["retrieval"]
    assert all(row.captions == (row.extra["options"][row.extra["answer"]],) for row in found["choice"])
    assert all({"question", "answer", "type"} <= set(row.extra) for row in found["questions"])
    assert all(row.extra["label"] for row in found["actions"])
    assert {row.split for row in read_manifest(world, split="choice").rows} == {"choice"}


def test_shards_hold_the_frames_that_the_world_draws(world, tmp_path, capsys):
    assert main(["shards", "--manifest", str(world), "--out", str(tmp_path), "--split", "choice", "--frames", "8"]) == 0
    source = open_shards(tmp_path, "choice")
    records = {record.id: record for record in (parse_record(source[n]) for n in range(len(source)))}
    assert len(records) == CLIPS["choice"]
    record = records["choice-00000005"]
    assert (len(record.jpegs), record.width, record.height) == (8, 64, 64)
    np.testing.assert_allclose(record.seconds, (np.arange(8) + 0.5) / 4, atol=1e-6)
    frames = render_clip(scene_of(3, "choice", 5), 8)
    import simplejpeg

    stored = np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in record.jpegs])
    assert np.abs(stored.astype(int) - frames).mean() < 8  # JPEG of small pictures
    twin = np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in records["choice-00000004"].jpegs])
    assert np.array_equal(twin[::-1], stored)


def test_the_number_of_workers_changes_no_byte(world, tmp_path):
    for workers in ("1", "2"):
        out = str(tmp_path / workers)
        assert main(["shards", "--manifest", str(world), "--out", out, "--split", "train", "--workers", workers]) == 0
    one, two = (next((tmp_path / workers).glob("*.array_record-*")).read_bytes() for workers in ("1", "2"))
    assert one == two


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"harvest_world": "0"}, "describes version 0 of the generated world"),
        ({"clips": {}}, "at least one split"),
        ({"clips": {"test": 3}}, "a world has no split 'test'"),
        ({"clips": {"train": 0}}, "0 clips"),
        ({"clips": {"train": 1.5}}, "must be a whole number"),
        ({"size": 8}, "32 to 512 pixels"),
        ({"look": "true"}, "no look 'true': it has drawn, real"),
        ({"look": None}, "does not describe a generated world"),
        ({"seed": "0"}, "does not describe a generated world"),
        ({"more": 1}, "does not describe a generated world"),
    ],
)
def test_files_that_describe_no_world(world, tmp_path, change, message):
    path = tmp_path / "bad.world.json"
    path.write_text(json.dumps(json.loads(world.read_text()) | change))
    with pytest.raises(DataError, match=message):
        read_manifest(path)


def test_a_file_of_before_there_were_looks_is_drawn(world, tmp_path):
    path = tmp_path / "old.world.json"
    path.write_text(json.dumps({name: fact for name, fact in json.loads(world.read_text()).items() if name != "look"}))
    assert read_world(path) == World(3, CLIPS)


def test_digits_and_photographs_are_drawn_in_the_process_that_decodes(tmp_path):
    path, world = tmp_path / "a.world.json", World(3, {"train": 4}, look="real")
    path.write_text(world.text())
    command = ["shards", "--manifest", str(path), "--out", str(tmp_path), "--split", "train", "--frames", "4"]
    assert main([*command, "--workers", "1"]) == 0
    source = open_shards(tmp_path, "train")
    assert len(source) == 4
    import simplejpeg

    for record in (parse_record(source[n]) for n in range(4)):
        stored = np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in record.jpegs])
        frames = frames_of(world, "train", int(record.id.removeprefix("train-")), 4)
        assert np.abs(stored.astype(int) - frames).mean() < 8  # JPEG of small pictures


@pytest.mark.parametrize("command", ["world", "shards"])
def test_without_scikit_learn_the_error_says_what_to_install(command, tmp_path, monkeypatch, capsys):
    path, out = tmp_path / "a.world.json", str(tmp_path / "out.world.json")
    path.write_text(World(3, {"train": 4}, look="real").text())
    monkeypatch.setitem(sys.modules, "sklearn", None)
    if command == "world":
        words = ["world", "--out", out, "--clips", "train=4", "--look", "real"]
    else:
        words = ["shards", "--manifest", str(path), "--out", out, "--split", "train"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'harvest_jax[world]'" in error
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_world_does_not_have_is_a_reject(world):
    spec = DecodeSpec(num_frames=2)
    with pytest.raises(VideoRejected, match="no clip 0 of a split 'val'"):
        rendered_clip(str(world), FilePart(record=0, field="val"), spec, None, None)
    with pytest.raises(VideoRejected, match="bad span"):
        rendered_clip(str(world), FilePart(record=0, field="train"), spec, 0.5, None)


def test_stills_with_and_without_marks_have_the_same_captions(tmp_path):
    path = tmp_path / "a.world.json"
    path.write_text(World(0, {"stills": 8, "unmarked": 8}).text())
    rows = {row.id: row for row in read_manifest(path).rows}
    for number in range(8):
        names = [f"{split}-{number:08d}" for split in ("stills", "unmarked")]
        assert rows[names[0]].captions == rows[names[1]].captions
        marked, plain = (rendered_clip(str(path), rows[name].part, DecodeSpec(8), None, None).frames for name in names)
        assert marked.shape == plain.shape == (1, 64, 64, 3)
        assert number % 4 == 3 or not np.array_equal(marked, plain)


def test_frames_are_scaled_down_to_the_short_side(world):
    clip = rendered_clip(str(world), FilePart(record=0, field="train"), DecodeSpec(2, short_side=32), None, None)
    assert clip.frames.shape == (2, 32, 32, 3)
