"""ActivityNet's sentences in the two orders, and the facts of the real file."""

import json

from harvest_jax.evaluate.benchmarks.read_benchmark import read
from harvest_jax.evaluate.datasets import activitynet
from tests.helpers import benchmark_miniatures as miniatures
from tests.helpers.annotations import ANNOTATIONS
from tests.helpers.benchmark_reading import fault, of_module, real

BY_FILE = of_module(activitynet, "activitynet")
BY_TIME = of_module(activitynet, "activitynet_time_order")


def test_sentences_are_joined_in_the_order_of_the_file_or_of_time(tmp_path):
    rows = read(BY_FILE, miniatures.activitynet(tmp_path), partial=True)
    by_time = read(BY_TIME, tmp_path, partial=True)
    first, second = miniatures.sentences(0, 2)
    assert rows[0].captions == (f"{first} {second}",)
    assert by_time[0].captions == (f"{second} {first}",)
    assert rows[1:] == by_time[1:]  # of those that start together the file's order stays
    assert {(row.start, row.end) for row in rows} == {(None, None)}


def test_ids_have_a_prefix_whether_the_file_has_it_or_not(tmp_path):
    entry = {"duration": 9, "timestamps": [[0, 9]], "sentences": ["a kite"]}
    path = miniatures.write_json(tmp_path / "a.json", {"v_abcdefghi": entry, "v_v_jklmnopqr": entry})
    rows = read(BY_FILE, path, partial=True)
    assert [row.video for row in rows] == ["v_v_abcdefghi", "v_v_jklmnopqr"]  # "v_abcdefghi" is an id of YouTube's


def test_the_form_without_times(tmp_path):
    rows = read(BY_FILE, miniatures.activitynet(tmp_path), partial=True)
    entries = [{"video": f"{row.video}.mp4", "caption": miniatures.sentences(n, 2)} for n, row in enumerate(rows)]
    path = miniatures.write_json(tmp_path / "other" / "anet_ret_val_1.json", entries)
    assert read(BY_FILE, path, partial=True) == rows
    assert "has no times: the order in time needs val_1.json" in fault(BY_TIME, path)


def test_wrong_files(tmp_path):
    path = miniatures.write_json(tmp_path / "a.json", {"version": "1.3", "database": {}})
    assert "version: must be an object with sentences and timestamps" in fault(BY_FILE, path)
    miniatures.write_json(path, {"v_a": {"timestamps": [[0, 1]], "sentences": ["a kite", "a goat"]}})
    assert "v_a: 2 sentences, but 1 timestamps" in fault(BY_FILE, path)
    miniatures.write_json(path, {"v_a": {"timestamps": [[0, 1]], "sentences": ["  "]}})
    assert "v_a: 'sentences[0]' is empty" in fault(BY_FILE, path)
    miniatures.write_json(path, {"v_a": {"timestamps": [["x", 1]], "sentences": ["a kite"]}})
    assert "v_a: 'timestamps' must be a number" in fault(BY_FILE, path)
    path.write_text('{"v_a": {"timestamps": [[0, 1]], "sentences": ["a"]}, "v_a": {}}')
    assert "an object has the key 'v_a' twice" in fault(BY_FILE, path)


def test_the_real_file():
    rows, by_time = real(BY_FILE, "activitynet"), real(BY_TIME, "activitynet")
    assert len(rows) == 4917
    assert sum(one.captions != other.captions for one, other in zip(rows, by_time, strict=True)) == 131
    raw = json.loads((ANNOTATIONS / "activitynet" / "captions_val.json").read_text("utf-8"))
    assert [row.video for row in rows] == list(raw)
    assert sum(len(entry["sentences"]) for entry in raw.values()) == 17_505
