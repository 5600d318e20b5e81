"""Manifests of WebVid, InternVid and Panda-70M."""

import time

from data_pipeline.manifest.read import read_manifest
from data_pipeline.manifest.rows import ClipRow
from tests.helpers.source_files import only_reason, reasons, write_jsonl, write_text


def test_webvid(tmp_path):
    (tmp_path / "0001_0050").mkdir()
    (tmp_path / "0001_0050" / "11.mp4").write_bytes(b"x")
    (tmp_path / "22.mp4").write_bytes(b"x")
    text = (
        "videoid,contentUrl,duration,page_dir,name\n"
        "11,https://x.test/11.mp4,PT00H00M17S,0001_0050,A horse grazing.\n"
        "22,https://x.test/22.mp4,PT00H00M11S,0001_0050,City lights.\n"
        "33,https://x.test/33.mp4,PT00H00M11S,0001_0050,Nowhere yet.\n"
        "44,https://x.test/44.mp4,PT00H00M11S,../..,A way out.\n"
    )
    manifest = read_manifest(write_text(tmp_path / "results_2M_val.csv", text), split="val")
    assert [(row.id, row.video, row.captions) for row in manifest.rows] == [
        ("11", "0001_0050/11.mp4", ("A horse grazing.",)),
        ("22", "22.mp4", ("City lights.",)),
        ("33", "0001_0050/33.mp4", ("Nowhere yet.",)),
    ]
    assert manifest.rows[0].extra["contentUrl"] == "https://x.test/11.mp4"
    assert only_reason(manifest).startswith("bad path: it contains '..'")


def test_internvid(tmp_path):
    (tmp_path / "abc.webm").write_bytes(b"x")
    row = {
        "YoutubeID": "abc",
        "Start_timestamp": "00:00:48.250",
        "End_timestamp": "00:01:00.500",
        "Caption": "A cat.",
        "Aesthetic_Score": 4.5,
    }
    manifest = read_manifest(write_jsonl(tmp_path / "m.jsonl", [row, row | {"YoutubeID": "def"}]))
    assert manifest.rows[0] == ClipRow(
        "abc_48.25_60.5", "abc.webm", ("A cat.",), "train", 48.25, 60.5, {"Aesthetic_Score": 4.5}
    )
    assert manifest.rows[1].video == "def.mp4"


def test_panda(tmp_path):
    text = (
        "videoID,url,timestamp,caption,matching_score\n"
        "xyz,https://x.test,\"[['0:00:14.760', '0:00:21.760'], ['0:01:02.000', '0:01:05.500']]\","
        "\"['A man speaks.', 'It is a cake.']\",\"[0.45, 0.31]\"\n"
        "bad,https://x.test,\"[['0:00:14.760', '0:00:21.760']]\",\"['one', 'two']\",[0.4]\n"
        "worse,https://x.test,__import__('os').system('x'),['one'],[0.4]\n"
    )
    manifest = read_manifest(write_text(tmp_path / "panda70m.csv", text))
    assert manifest.rows == [
        ClipRow(
            f"xyz.{index}",
            "xyz.mp4",
            (caption,),
            "train",
            start,
            end,
            {"url": "https://x.test", "matching_score": score},
        )
        for index, (caption, start, end, score) in enumerate(
            [("A man speaks.", 14.76, 21.76, 0.45), ("It is a cake.", 62.0, 65.5, 0.31)]
        )
    ]
    assert reasons(manifest) == {
        "line 3": "bad row: 1 timestamps but 2 captions",
        "line 4": "bad row: column timestamp is not a list",
    }


def test_a_row_of_panda_that_no_program_of_theirs_wrote(tmp_path):
    good = {"videoID": "a", "timestamp": [["0:00:01", "0:00:02"]], "caption": ["x"]}
    rows = [
        good | {"videoID": "b", "timestamp": "{{}}"},
        good | {"videoID": "c", "tags": "[{[]}]"},
        good | {"videoID": "d", "timestamp": [[0, 1]] * 10_001, "caption": ["x"] * 10_001},
        good | {"videoID": "e", "timestamp": [[0, 1]] * 2, "caption": ["x"] * 2, "note": "y" * 100_001},
        good,
    ]
    manifest = read_manifest(write_jsonl(tmp_path / "m.jsonl", rows))
    assert [(row.id, row.extra) for row in manifest.rows] == [("c.0", {"tags": "[{[]}]"}), ("a.0", {})]
    assert reasons(manifest) == {
        "line 1": "bad row: column timestamp is not a list",
        "line 3": "bad row: 10,001 clips in one row, more than 10,000",
        "line 4": "bad row: a column holds more than 100,000 characters",
    }


def test_a_row_of_panda_with_many_clips_is_read_once(tmp_path):
    count = 2_000
    lists = {
        "timestamp": [["0:00:01", "0:00:02"]] * count,
        "caption": ["c"] * count,
        "matching_score": [0.5123] * count,
    }
    write_jsonl(tmp_path / "m.jsonl", [{"videoID": "a"} | {name: repr(value) for name, value in lists.items()}])
    began = time.process_time()
    assert len(read_manifest(tmp_path / "m.jsonl").rows) == count
    assert time.process_time() - began < 3  # many times that where the lists are read for each clip
