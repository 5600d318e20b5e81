import itertools
import json
import os
import time

import jax
import numpy as np
import pytest

import harvest_jax
from harvest_jax import load
from harvest_jax.model.config import HarvestConfig, TextConfig, VideoConfig
from harvest_jax.model.harvest import Harvest
from harvest_jax.search import scores
from harvest_jax.search.find import Filters, Moment, Searcher
from harvest_jax.search.index import Clip, File, SearchIndex
from harvest_jax.search.query import Query
from harvest_jax.search.rows import coded
from harvest_jax.weights.folder import save_model
from tests.helpers import video_files
from tests.helpers.colour_films import moments, names, scenes


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


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def searcher(clips, neutral=((0.0, 0.0, 1.0),)):
    """A searcher of an index with these clips: (paths, rows, spans)."""
    rows, kept, files = [], {}, {}
    for number, (paths, embeddings, spans) in enumerate(clips, start=1):
        kept[number] = Clip(str(number), len(rows), np.array(spans, np.float64))
        rows += list(embeddings)
        files |= {path: File(1, when * 10**9, 0, 0, number) for path, when in paths.items()}
    return Searcher(SearchIndex({}, coded(unit(rows)), kept, files), unit(neutral))


def asked(*vector, of_words=True):
    return Query("q", unit(vector), of_words)


def test_the_best_video_comes_first(place):
    found = place.go("green thing")
    rows = [line.split("\t") for line in found.out.splitlines()]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert rows[0][2:5] == [str(place.folder / "below" / "deep" / "g.mp4"), "0.00", "0.50"]
    cosines = [float(row[1]) for row in rows]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] > 0.99
    assert cosines[1] < 0.5
    assert found.err == f"index {place.index}: 3 files, 3 windows (3 new)\n"
    assert names(place.go("blue", "--top", "1")) == ["b.MP4"]


def test_a_long_film_answers_with_the_moment(place):
    scenes(place.folder / "long.mp4", ("grey", 20), ("red", 6), ("grey", 14), ("blue", 3), ("grey", 17))
    found = place.go("red", "--window", "2", "--top", "2")
    assert moments(found) == [("long.mp4", 20.0, 26.0), ("r.mp4", 0.0, 0.5)]
    assert found.embedded == 3 + 59
    assert moments(place.go("blue", "--window", "2", "--top", "2"))[0] in [("long.mp4", 40.0, 43.0), ("b.MP4", 0, 0.5)]
    by_file = place.go("red", "--window", "2", "--top", "9", "--group", "file")
    assert sorted(names(by_file)) == ["b.MP4", "g.mp4", "long.mp4", "r.mp4"]
    assert by_file.embedded == 0
    coarse = place.go("red", "--top", "1")  # 8 s every 4 s: an index of its own
    assert coarse.embedded == 3 + 14
    assert moments(coarse)[0][0] == "r.mp4"


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
    np.testing.assert_allclose([result["score"] for result in found["results"]], wanted, atol=1e-3)  # float16
    assert [result["rank"] for result in found["results"]] == [1, 2, 3, 4]


def test_equal_scores_come_in_the_order_of_their_names():
    row = [1.0, 0.0, 0.0]
    index = searcher([({name: 0}, [row], [[0, 1]]) for name in ("c.mp4", "a.mp4", "b.mp4")])
    found = index.find(asked(*row), 10)
    assert [(moment.rank, moment.path) for moment in found] == [(1, "a.mp4"), (2, "b.mp4"), (3, "c.mp4")]
    assert len(index.find(asked(*row), 2)) == 2


def test_neighbouring_windows_are_one_moment_and_none_is_told_twice():
    spans = [[2 * number, 2 * number + 4] for number in range(8)]
    near, far = [1.0, 0.1, 0], [0, 1.0, 0.5]
    rows = [far, near, [1.0, 0, 0], near, far, far, near, far]
    index = searcher([({"a.mp4": 0}, rows, spans), ({"b.mp4": 0}, [[0.5, 1, 0]], [[0, 3]])])
    found = index.find(asked(1, 0, 0), 3)
    assert [(moment.path, moment.start, moment.end, moment.windows) for moment in found] == [
        ("a.mp4", 2.0, 10.0, 3),
        ("a.mp4", 12.0, 16.0, 1),
        ("b.mp4", 0.0, 3.0, 1),
    ]
    everything = index.find(asked(1, 0, 0), 99)
    in_a = sorted((moment.start, moment.end) for moment in everything if moment.path == "a.mp4")
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(in_a))
    assert [moment.path for moment in index.find(asked(1, 0, 0), 9, group="file")] == ["a.mp4", "b.mp4"]


def test_equal_files_are_one_result():
    index = searcher([({"b.mp4": 0, "a.mp4": 0}, [[1, 0, 0]], [[0, 1]])])
    found = index.find(asked(1, 0, 0))
    assert found == [Moment(1, 1.0, found[0].z, "a.mp4", 0.0, 1.0, ("b.mp4",))]


def test_nothing_fits_can_be_the_answer(place):
    found = place.go("green", "--min_score", "9999")
    assert found.out == ""
    assert "nothing fits: the best has a z of " in found.err
    assert place.go("green", "--min_score", "-9999").out.count("\n") == 3


def test_z_compares_words_with_neutral_texts_and_pictures_with_the_folder():
    rng = np.random.default_rng(0)
    rows = unit(rng.normal(size=(500, 16)))
    index = searcher([({"a.mp4": 0}, rows, [[n, n + 1] for n in range(500)])], unit(rng.normal(size=(24, 16))))
    words = asked(*rows[7])
    usual = rows.astype(np.float16).astype(np.float32) @ index._neutral.T
    best = index.find(words, 1)[0]
    assert best.z == pytest.approx((best.score - usual.mean()) / usual.std(), rel=1e-3)
    picture = asked(*rows[7], of_words=False)
    own = rows @ picture.vector
    assert index.find(picture, 1)[0].z == pytest.approx((best.score - own.mean()) / own.std(), rel=1e-2)


def test_filters_leave_out_what_does_not_pass():
    row = [1.0, 0, 0]
    index = searcher(
        [
            ({"x/a.mp4": 100, "y/a.mp4": 300}, [row], [[0, 5]]),
            ({"x/b.mp4": 200}, [row, row], [[0, 8], [8, 16]]),
            ({"xy.jpg": 300}, [row], [[0, 0]]),
        ]
    )

    def paths(**filters):
        return {moment.path for moment in index.find(asked(*row), 9, filters=Filters(**filters))}

    assert paths() == {"x/a.mp4", "x/b.mp4", "xy.jpg"}
    assert paths(below="x") == {"x/a.mp4", "x/b.mp4"}
    assert paths(below="y") == {"y/a.mp4"}
    assert paths(after=200.0) == {"y/a.mp4", "x/b.mp4", "xy.jpg"}
    assert paths(before=200.0) == {"x/a.mp4"}
    assert paths(shortest=1.0) == {"x/a.mp4", "x/b.mp4"}
    assert paths(longest=5.0) == {"x/a.mp4", "xy.jpg"}
    assert paths(below="z") == set()


@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize("spread", ["everywhere", "near one another"])
def test_the_best_rows_are_exact(monkeypatch, library, spread):
    if library:
        pytest.importorskip("simsimd", reason="extra `search`")
    else:
        monkeypatch.setattr(scores, "simsimd", None)
    rng = np.random.default_rng(1)
    values = rng.normal(size=(30_000, 40))
    rows = coded(unit(values if spread == "everywhere" else 1 + 0.02 * values))
    query = unit(rng.normal(size=40) if spread == "everywhere" else 1 + 0.02 * rng.normal(size=40))
    allowed = rng.random(30_000) < 0.8
    all_scores = unit(rows.exact.astype(np.float32)) @ query
    for limit in (None, allowed):
        numbers, found = scores.best_rows(rows, query, 25, limit)
        masked = all_scores if limit is None else np.where(limit, all_scores, -9)
        wanted = np.lexsort((np.arange(30_000), -masked))[:25]
        np.testing.assert_allclose(found, all_scores[wanted], atol=1e-6)
        assert len(set(numbers) - set(wanted)) <= 1  # scores that differ in the last bit
        may = scores._may_be_best(rows, query, 25, limit)
        assert set(wanted) <= set(may)
        assert spread != "everywhere" or len(may) < 3000  # and the first look leaves out the most


def test_half_a_million_rows_are_searched_in_little_time():
    rng = np.random.default_rng(0)
    rows = coded(unit(rng.normal(size=(2000, 64))))
    many = type(rows)(*(np.tile(part, (100, 1)) for part in (rows.exact, rows.codes, rows.scales)))
    begin = time.perf_counter()
    numbers, _ = scores.best_rows(many, rows.exact[5].astype(np.float32), 3)
    assert set(numbers % 2000) == {5}
    assert time.perf_counter() - begin < 5  # 0.05 s on an idle machine; benchmarks/search.py measures it
