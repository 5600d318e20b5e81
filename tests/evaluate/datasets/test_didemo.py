"""DiDeMo's descriptions joined by video, its two spans, and the facts of the real files."""

import collections
import json

from harvest_jax.evaluate.benchmarks.read_benchmark import read
from harvest_jax.evaluate.datasets import didemo
from tests.helpers import benchmark_miniatures as miniatures
from tests.helpers.annotations import ANNOTATIONS
from tests.helpers.benchmark_reading import fault, of_module, real

DIDEMO = of_module(didemo, "didemo")
LONGER = of_module(didemo, "didemo_31s")


def test_the_text_of_a_video_is_all_its_descriptions(tmp_path):
    rows = read(DIDEMO, miniatures.didemo(tmp_path), partial=True)
    assert [row.video for row in rows] == [
        "10@N00_200_ab0.",
        "11@N01_201_ab1.mpg",
        "12@N02_202_ab2.MOV",
        "13@N03_203_ab3.wmv",
    ]
    first, second = miniatures.sentences(1, 2)
    assert rows[1].captions == (f"{first} {second}",)
    assert {(row.start, row.end) for row in rows} == {(None, 30.0)}


def test_clip4clips_span_is_a_benchmark_of_its_own(tmp_path):
    rows = read(DIDEMO, miniatures.didemo(tmp_path), partial=True)
    longer = read(LONGER, tmp_path, partial=True)
    assert {(row.start, row.end) for row in longer} == {(None, 31.0)}
    assert [(row.id, row.captions) for row in longer] == [(row.id, row.captions) for row in rows]


def test_wrong_files(tmp_path):
    miniatures.didemo(tmp_path)
    miniatures.write_lines(tmp_path / "test_list.txt", ["10@N00_200_ab0.", "goat.mov", "sheep.mov"])
    message = fault(DIDEMO, tmp_path)
    assert "2 of 3 videos have no captions in" in message
    assert "the first: goat.mov; do the two files belong together?" in message
    miniatures.write_json(tmp_path / "test_data.json", [{"video": "a.mov"}])
    assert "entry 1: no 'description'" in fault(DIDEMO, tmp_path)
    assert "needs 2: give the folder with test_data.json" in fault(DIDEMO, tmp_path / "test_data.json")


def test_the_real_files():
    rows = real(DIDEMO, "didemo")
    raw = json.loads((ANNOTATIONS / "didemo" / "test_data.json").read_text("utf-8"))
    assert (len(raw), len({entry["video"] for entry in raw}), len(rows)) == (4021, 1037, 1004)
    assert sum(row.video.endswith(".") for row in rows) == 27
    suffixes = collections.Counter(row.video.rpartition(".")[2].lower() for row in rows)
    assert (suffixes["mpg"], suffixes["wmv"], suffixes["mts"]) == (55, 36, 7)
    assert sum(suffixes[name] for name in ("3gp", "3g2")) == 22
    texts = {row.video: row.captions[0] for row in rows}
    first = raw[0]["video"]
    assert texts[first] == " ".join(entry["description"].strip() for entry in raw if entry["video"] == first)
