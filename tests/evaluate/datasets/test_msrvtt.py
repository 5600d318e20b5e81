"""MSR-VTT in its forms, and the facts of the real files."""

import collections
import json

from harvest_jax.evaluate.benchmarks.read_benchmark import read
from harvest_jax.evaluate.datasets import msrvtt
from tests.helpers import benchmark_miniatures as miniatures
from tests.helpers.annotations import ANNOTATIONS
from tests.helpers.benchmark_reading import fault, of_module, real

ONE_K_A = of_module(msrvtt, "msrvtt_1ka")
FULL = of_module(msrvtt, "msrvtt_full")


def test_1k_a_is_one_caption_a_video(tmp_path):
    rows = read(ONE_K_A, miniatures.msrvtt_1ka(tmp_path), partial=True)
    assert [row.video for row in rows] == ["video9770", "video9771", "video9772", "video9773"]
    assert [row.id for row in rows] == [row.video for row in rows]
    assert rows[1].captions == ("two goats look through a fence, take 1 0",)
    assert rows[3].captions == rows[0].captions  # a caption that two videos share
    assert {(row.start, row.end) for row in rows} == {(None, None)}


def test_1k_a_in_the_json_form_is_the_same(tmp_path):
    rows = read(ONE_K_A, miniatures.msrvtt_1ka(tmp_path), partial=True)
    entries = [{"video": f"{row.video}.mp4", "caption": row.captions[0]} for row in rows]
    path = miniatures.write_json(tmp_path / "json" / "msrvtt_ret_test1k.json", entries)
    assert read(ONE_K_A, path, partial=True) == rows


def test_wrong_files_for_1k_a(tmp_path):
    miniatures.msrvtt_full(tmp_path)
    path = tmp_path / "msrvtt_caption_test.json"
    assert "video7010 has 20 captions, but in MSR-VTT 1k-A each video has one text" in fault(ONE_K_A, path)
    path = miniatures.write_lines(tmp_path / "train.csv", ["video_id", "video0"])
    assert "line 1: the first line must name the columns video_id, sentence; sentence not in" in fault(ONE_K_A, path)
    path = miniatures.write_lines(tmp_path / "twice.csv", ["video_id,sentence", "video1,a kite", "video1,a goat"])
    assert "line 3: the id 'video1' is used already, in line 2" in fault(ONE_K_A, path)
    path = miniatures.write_lines(tmp_path / "tabs.csv", ["video_id\tsentence", "video1\ta kite"])
    assert "separated by tabs, in the official file by commas" in fault(ONE_K_A, path)
    path = miniatures.write_lines(tmp_path / "empty.csv", ["video_id,sentence", "video1,"])
    assert "line 2: 'sentence' is empty" in fault(ONE_K_A, path)


def test_the_full_test_set_in_three_forms(tmp_path):
    rows = read(FULL, miniatures.msrvtt_full(tmp_path), partial=True)
    assert [row.video for row in rows] == ["video7010", "video7011", "video7012"]
    assert [len(row.captions) for row in rows] == [20, 20, 20]
    assert rows[2].captions == tuple(miniatures.sentences(2, 20))

    data = miniatures.msrvtt_challenge([7009, 7010, 9999])
    path = miniatures.write_json(tmp_path / "challenge" / "MSRVTT_data.json", data)
    challenge = read(FULL, path.parent, partial=True)
    assert [row.video for row in challenge] == ["video7010", "video9999"]
    assert challenge[1].captions == tuple(miniatures.sentences(9999, 2))

    annotations = [{"image_id": entry["video_id"], "caption": entry["caption"]} for entry in data["sentences"]]
    frozen = {"images": [], "annotations": annotations}
    path = miniatures.write_json(tmp_path / "frozen" / "annotation" / "MSR_VTT.json", frozen)
    assert read(FULL, path.parent.parent, partial=True) == challenge


def test_wrong_files_for_the_full_set(tmp_path):
    path = miniatures.write_json(tmp_path / "a.json", {"videos": []})
    assert "has neither 'sentences' nor 'annotations'" in fault(FULL, path)
    miniatures.write_json(path, {"sentences": [{"caption": "a kite"}]})
    assert "sentences, entry 1: no 'video_id'; it has caption" in fault(FULL, path)
    miniatures.write_json(path, {"sentences": [{"caption": 7, "video_id": "video7010"}]})
    assert "entry 1: 'caption' must be a text, is 7" in fault(FULL, path)
    miniatures.write_json(path, [{"video": "video1.mp4", "caption": ["a kite"]}])
    assert "no rows in" in fault(FULL, path)
    assert "column 1: not JSON" in fault(FULL, miniatures.msrvtt_1ka(tmp_path) / "MSRVTT_JSFUSION_test.csv")


def test_the_real_1k_a():
    rows = real(ONE_K_A, "msrvtt")
    counts = collections.Counter(row.captions for row in rows)
    assert len(rows) == 1000
    assert sum(count for count in counts.values() if count > 1) == 9  # rows whose caption another row has too
    assert sum(count > 1 for count in counts.values()) == 4


def test_the_real_full_set():
    rows = real(FULL, "msrvtt")
    assert (len(rows), sum(len(row.captions) for row in rows)) == (2990, 59_800)
    raw = json.loads((ANNOTATIONS / "msrvtt" / "msrvtt_caption_test.json").read_text("utf-8"))
    assert {entry["video"] for entry in raw} == {f"video{n}.mp4" for n in msrvtt.TEST}  # the rule by number
    own = {row.video: row.captions for row in rows}
    shared = [row.captions[0] in own[row.video] for row in real(ONE_K_A, "msrvtt")]
    assert sum(shared) == 968  # the others are spelled differently
