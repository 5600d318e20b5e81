import json
import os
from pathlib import Path

import jax
import numpy as np

import harvest_jax
from harvest_jax import load
from harvest_jax.model.config import HarvestConfig, TextConfig, VideoConfig
from harvest_jax.model.harvest import Harvest
from harvest_jax.search.index import Entry, SearchIndex
from harvest_jax.search.rank import rank
from harvest_jax.weights.folder import save_model
from tests.helpers import video_files
from tests.helpers.colour_films import names


def save_small_model(folder, seed):
    config = HarvestConfig(
        name="small",
        video=VideoConfig(image_size=32, patch_size=16, num_frames=2, width=16, layers=1, heads=2, embed_dim=8),
        text=TextConfig(vocab_size=600, context_length=8, width=16, layers=1, heads=2, embed_dim=8),
        decoder=None,
    )
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(Harvest(config).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    save_model(folder, config, params, {"made_by": f"test {folder}"})
    return folder


def test_the_best_video_comes_first(place):
    found = place.go("green thing")
    rows = [line.split("\t") for line in found.out.splitlines()]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert rows[0][2] == str(place.folder / "below" / "deep" / "g.mp4")
    scores = [float(row[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.99
    assert scores[1] < 0.5
    assert found.err == f"index {place.index}: 3 videos (3 new)\n"
    assert names(place.go("blue", "--top", "1")) == ["b.MP4"]


def test_the_model_scores_as_it_does_elsewhere(place, monkeypatch):
    monkeypatch.setattr(harvest_jax, "load", load)  # the real one
    folder = save_small_model(place.tmp / "model", 0)
    video_files.write_video(
        place.folder / "n.mp4", video_files.numbered_frames(8, 90, 122)
    )  # one that has to be resized
    found = json.loads(place.go("a dog", "--json", model=folder).out)
    model = load(folder)
    paths = [result["path"] for result in found["results"]]
    assert sorted(map(os.path.basename, paths)) == ["b.MP4", "g.mp4", "n.mp4", "r.mp4"]
    wanted = model.encode_video(paths) @ model.encode_text(["a dog"])[0]
    np.testing.assert_allclose([result["score"] for result in found["results"]], wanted, atol=1e-6)
    assert list(wanted) == sorted(wanted, reverse=True)
    assert [result["rank"] for result in found["results"]] == [1, 2, 3, 4]


def test_equal_scores_come_in_the_order_of_their_names():
    row = np.array([1.0, 0.0], np.float32)
    index = SearchIndex("m", {name: Entry(1, 1, row) for name in ("c.mp4", "a.mp4", "b.mp4")})
    index.entries["0.mp4"] = Entry(1, 1, np.array([0.0, 1.0], np.float32))
    index.entries["bad.mp4"] = Entry(1, 1, None, "damaged")
    found = rank(index, row, Path("films"), 10)
    assert [(result.rank, result.path) for result in found] == [
        (1, "films/a.mp4"),
        (2, "films/b.mp4"),
        (3, "films/c.mp4"),
        (4, "films/0.mp4"),
    ]
    assert len(rank(index, row, Path("films"), 2)) == 2
