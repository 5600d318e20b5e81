"""MSVD in its forms, and the facts of the real file."""

import collections
import pickle

from harvest_jax.evaluate.benchmarks.read_benchmark import read
from harvest_jax.evaluate.datasets import msvd
from tests.helpers import benchmark_miniatures as miniatures
from tests.helpers.benchmark_reading import fault, of_module, real

MSVD = of_module(msvd, "msvd")


def test_several_captions_a_video(tmp_path):
    rows = read(MSVD, miniatures.msvd(tmp_path), partial=True)
    assert [row.video for row in rows] == ["-0kites_0A_0_9", "-1kites_1A_1_10", "-2kites_2A_2_11"]
    assert [len(row.captions) for row in rows] == [4, 5, 6]
    assert rows[0].captions[-1] == rows[2].captions[-1] == "a kite flies."


def test_the_pickle_of_all_splits_with_the_list_beside_it(tmp_path):
    rows = read(MSVD, miniatures.msvd_pickle(tmp_path), partial=True)
    assert [row.video for row in rows] == ["-0kites_0A_0_9", "-1kites_1A_1_10", "-2kites_2A_2_11"]
    assert rows[1].captions == tuple(miniatures.sentences(1, 3))
    miniatures.write_lines(tmp_path / "test_list.txt", ["-0kites_0A_0_9", "goat_1_2"])
    assert "1 of 2 videos have no captions in" in fault(MSVD, tmp_path)
    (tmp_path / "test_list.txt").unlink()
    assert "test_list.txt, the list of the test videos, must lie beside it" in fault(MSVD, tmp_path)


class Harmful:
    """Writes a file when it is unpickled the usual way."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_is_never_run(tmp_path):
    miniatures.msvd_pickle(tmp_path)
    path = tmp_path / "raw-captions.pkl"
    path.write_bytes(pickle.dumps({"a_0_1": Harmful(tmp_path / "written")}))
    message = fault(MSVD, tmp_path)
    assert "is not a pickle of plain lists of words" in message
    assert "nothing in it was run" in message
    assert not (tmp_path / "written").exists()


def test_pickles_with_something_else(tmp_path):
    miniatures.msvd_pickle(tmp_path)
    path = tmp_path / "raw-captions.pkl"
    for value, words in (
        ([1], "it must be a dict of lists of lists of words"),
        ({}, "it must be a dict"),
        ({"a": []}, "a has no list of captions"),
        ({"a": ["a kite"]}, "a caption of a is not a list of words"),
        ({"a": [[]]}, "a caption of a is not a list of words"),
        ({"a": [["kite", 3]]}, "a caption of a is not a list of words"),
    ):
        path.write_bytes(pickle.dumps(value, protocol=2))
        assert words in fault(MSVD, tmp_path)
    path.write_bytes(pickle.dumps({"a": [["kite"]]}, protocol=2)[:-4])
    assert "is not a pickle of plain lists" in fault(MSVD, tmp_path)


def test_wrong_files(tmp_path):
    path = miniatures.write_json(tmp_path / "a.json", [{"id": "a_1_2.avi", "caption": ["a kite"]}])
    assert "entry 1: no 'video'; it has id, caption" in fault(MSVD, path)
    miniatures.write_json(path, {"a": ["a kite"]})
    assert "holds an object, where the official file has a list" in fault(MSVD, path)
    miniatures.write_json(path, [{"video": "a_1_2.avi", "caption": []}])
    assert "'caption' is an empty list" in fault(MSVD, path)


def test_the_real_file():
    rows = real(MSVD, "msvd")
    counts = [len(row.captions) for row in rows]
    assert (len(rows), sum(counts), min(counts), max(counts)) == (670, 27_763, 21, 81)
    videos = collections.defaultdict(set)
    for row in rows:
        for caption in row.captions:
            videos[caption].add(row.video)
    assert sum(len(names) > 1 for names in videos.values()) == 961
    assert len(videos) == 22_285
