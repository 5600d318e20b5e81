"""`harvest world`."""

import av
import numpy as np
import pytest

from data_pipeline.manifest.read import read_manifest
from harvest_jax.cli import main
from harvest_jax.synthetic.draw import render_clip
from harvest_jax.synthetic.rows import read_world, scene_of


def test_a_world_and_its_videos(tmp_path, capsys):
    world, folder = tmp_path / "a.world.json", tmp_path / "videos"
    arguments = ["world", "--out", str(world), "--clips", "train=3", "choice=2", "--seed", "5"]
    assert main([*arguments, "--videos", str(folder), "--frames", "8"]) == 0
    assert dict(read_world(world).clips) == {"train": 3, "choice": 2}
    files, drawn = read_manifest(folder / "manifest.jsonl").rows, read_manifest(world).rows
    assert [(row.id, row.captions, row.extra) for row in files] == [(row.id, row.captions, row.extra) for row in drawn]
    with av.open(str(folder / "train" / "00000002.mp4")) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.abs(frames.astype(int) - render_clip(scene_of(5, "train", 2), 8)).mean() < 12  # H.264, halved colour
    capsys.readouterr()
    assert main(["world", "--out", str(world), "--clips", "train=3", "--videos", str(folder)]) == 3
    assert "has the videos of another world" in capsys.readouterr().err
    before = (folder / "train" / "00000002.mp4").stat().st_mtime_ns
    assert main([*arguments, "--videos", str(folder), "--frames", "8"]) == 0
    assert (folder / "train" / "00000002.mp4").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "a.json", "--clips", "train=3"], "must end in .world.json"),
        (["--out", "a.world.json", "--clips", "train"], "write SPLIT=N"),
        (["--out", "a.world.json", "--clips", "train=-3"], "write SPLIT=N"),
        (["--out", "a.world.json", "--clips", "train=3", "train=4"], "twice"),
        (["--out", "a.world.json", "--clips", "dev=3"], "no split 'dev'"),
        (["--out", "a.world.json", "--clips", "train=3", "--size", "8"], "32 to 512 pixels"),
        (["--out", "a.world.json", "--clips", "train=3", "--frames", "1"], "outside 2..256"),
        (["--out", "a.world.json", "--clips", "train/../../x=3"], "no split 'train/../../x'"),
        (["--out", "a.world.json", "--clips", "train=3", "--size", "33", "--videos", "v"], "the size must be even"),
        (["--out", "/dev/null/a.world.json", "--clips", "train=3"], "cannot be written"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["world", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_world_is_not_replaced(tmp_path, capsys):
    path = tmp_path / "a.world.json"
    path.write_text("hello")
    assert main(["world", "--out", str(path), "--clips", "train=3"]) == 3
    assert path.read_text() == "hello"
    assert "cannot be read as JSON" in capsys.readouterr().err
