"""VATEX's captions and the two forms of HGR's list."""

import numpy as np

from harvest_jax.evaluate.benchmarks.read_benchmark import read
from harvest_jax.evaluate.datasets import vatex
from tests.helpers import benchmark_miniatures as miniatures
from tests.helpers.benchmark_reading import fault, of_module

VATEX = of_module(vatex, "vatex")


def test_ten_english_captions_of_the_listed_videos(tmp_path):
    rows = read(VATEX, miniatures.vatex(tmp_path), partial=True)
    assert [row.video for row in rows] == [f"-kites_{n}-ab_00000{n}_00001{n}" for n in range(3)]
    assert rows[2].captions == tuple(miniatures.sentences(2, 10))


def test_the_list_as_an_array(tmp_path):
    rows = read(VATEX, miniatures.vatex(tmp_path), partial=True)
    (tmp_path / "test_list.txt").unlink()
    np.save(tmp_path / "tst_names.npy", np.array([f"{row.video}.mp4" for row in rows]))
    assert read(VATEX, tmp_path, partial=True) == rows
    np.save(tmp_path / "tst_names.npy", np.array([row.video.encode() for row in rows]))
    assert read(VATEX, tmp_path, partial=True) == rows
    np.save(tmp_path / "tst_names.npy", np.array([{"a": 1}], object), allow_pickle=True)
    assert "is not an array of names: save them as text" in fault(VATEX, tmp_path)
    np.save(tmp_path / "tst_names.npy", np.arange(3))
    assert "is not an array of names" in fault(VATEX, tmp_path)
    (tmp_path / "tst_names.npy").write_bytes(b"kites")
    assert "is not an array of names" in fault(VATEX, tmp_path)


def test_wrong_files(tmp_path):
    miniatures.vatex(tmp_path)
    path = tmp_path / "vatex_validation_v1.0.json"
    miniatures.write_json(path, [{"videoID": "a_000001_000011", "enCap": ["a kite"] * 9}])
    assert "entry 1: 'enCap' must hold 10 texts, has 9" in fault(VATEX, tmp_path)
    entry = {"videoID": "a_000001_000011", "enCap": [f"a kite {n}" for n in range(10)]}
    miniatures.write_json(path, [entry, entry])
    assert "entry 2: a_000001_000011 is there twice" in fault(VATEX, tmp_path)
    miniatures.write_json(path, [entry])
    assert "3 of 3 videos have no captions" in fault(VATEX, tmp_path)
    miniatures.write_json(path, [{"videoID": "a_000001_000011"}])  # as the private test file
    assert "no 'enCap'; it has videoID" in fault(VATEX, tmp_path)
