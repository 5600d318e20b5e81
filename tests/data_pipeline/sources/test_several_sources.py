"""Several sources at once, several clips of one video, several captions of one clip."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.manifest.read import iter_manifest, read_manifest
from data_pipeline.manifest.rows import ClipRow
from harvest_jax.errors import DataError
from tests.helpers.source_files import (
    decoded,
    sample,
    write_tar,
)


def test_spans_and_captions_of_one_video(tmp_path, video):
    (tmp_path / "abc.mp4").write_bytes(video)  # four seconds
    spans = [("00:00:00.000", "00:00:02.000"), ("00:00:01.000", "00:00:03.000"), ("00:00:03.500", "00:00:20.000")]
    spans += [("00:00:09.000", "00:00:10.000"), ("00:00:02.000", "00:00:01.000")]
    lines = [f"abc,{first},{last},a caption" for first, last in spans]
    header = "YoutubeID,Start_timestamp,End_timestamp,Caption\n"
    (tmp_path / "internvid.csv").write_text(header + "\n".join(lines) + "\n")
    times = json.dumps([["0:00:00.5", "0:00:01.5"], ["0:00:03.000", "0:00:04.100"]])
    panda = {"videoID": "abc", "timestamp": times, "caption": json.dumps(["one", "two"])}
    (tmp_path / "panda.jsonl").write_text(json.dumps(panda) + "\n")
    own = {"video": "abc.mp4", "caption": ["x", "y"], "start": 1, "end": "0:02"}
    (tmp_path / "own.jsonl").write_text(json.dumps(own) + "\n" + json.dumps(own | {"id": "whole", "start": ""}) + "\n")
    manifests = [read_manifest(tmp_path / name) for name in ("internvid.csv", "panda.jsonl", "own.jsonl")]
    assert [reject.reason for reject in manifests[0].rejects] == [
        "bad span: it ends at 1 s, not after its start at 2 s"
    ]
    found = {row.id: decoded(row, tmp_path) for manifest in manifests for row in manifest.rows}
    assert {name: one.get("numbers") or one["rejected"] for name, one in found.items()} == {
        "abc_0_2": [2, 7, 12, 17],
        "abc_1_3": [12, 17, 22, 27],
        "abc_3.5_20": "bad span: only 0.5 s of its 16.5 s are within the video",
        "abc_9_10": "bad span: it starts at 9 s, but the video ends at 4.0 s",
        "abc.0": [6, 8, 11, 13],
        "abc.1": [31, 33, 36, 38],
        "abc_1_2": [11, 13, 16, 18],
        "whole": [2, 7, 12, 17],
    }
    assert found["whole"]["record"].captions == ("x", "y")


def test_several_manifests_have_one_root_and_one_set_of_ids(tmp_path, video):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("one/a.mp4", "two/a.mp4", "two/b.mp4"):
        (tmp_path / name).write_bytes(video)
    (tmp_path / "one" / "m.csv").write_text("video,caption\na.mp4,x\n")
    (tmp_path / "two" / "m.jsonl").write_text(
        '{"video": "a.mp4", "caption": "y"}\n{"video": "b.mp4", "caption": "z"}\n'
    )
    (tmp_path / "two" / "n.csv").write_text("id,video,caption\nb,b.mp4,z\n,../one/a.mp4,out\n")
    write_tar(tmp_path / "tars" / "00000.tar", sample("k", video))
    sources = [tmp_path / name for name in ("one/m.csv", "two/m.jsonl", "two/n.csv", "tars")]
    stream = iter_manifest(sources)
    for _ in range(2):  # it may be read again
        found = list(stream)
        assert [result.id for result in found] == ["a", "two/a", "b", "b", "line 3", "k"]
        assert [result.video for result in found if isinstance(result, ClipRow)] == [
            "one/a.mp4",
            "two/a.mp4",
            "two/b.mp4",
            "tars/00000.tar",
        ]
        faults = [result.reason for result in found if not isinstance(result, ClipRow)]
        assert faults[0].startswith("duplicate id: 'b' is line 2's of m.jsonl (several captions")
        assert faults[1].startswith("bad path: it contains '..'")
    assert stream.root == Path(os.path.realpath(tmp_path))
    assert [decoded(row, stream.root)["numbers"] for row in stream if isinstance(row, ClipRow)] == [[5, 15, 25, 35]] * 4
    below_root = [result.id for result in iter_manifest(sources[1:3], root=tmp_path / "two")]
    assert below_root == ["a", "b", "b", "line 3"]


def test_no_rows_anywhere_is_said_once(tmp_path):
    for name, split in (("a", "train"), ("b", "val")):
        (tmp_path / f"{name}.csv").write_text(f"video,caption,split\na.mp4,x,{split}\n")
    with pytest.raises(DataError, match=r"a\.csv and 1 more has no rows of the split 'test'; its splits: train, val"):
        list(iter_manifest([tmp_path / "a.csv", tmp_path / "b.csv"], split="test"))
    (tmp_path / "c.csv").write_text("video,caption\n")
    with pytest.raises(DataError, match=r"c\.csv has no rows"):
        list(iter_manifest([tmp_path / "a.csv", tmp_path / "c.csv"]))
    with pytest.raises(DataError, match="no manifest was given"):
        iter_manifest([])


def test_rows_come_before_the_end_of_the_file_is_read(tmp_path):
    (tmp_path / "m.csv").write_text("video,caption\na.mp4,x\n" + "b.mp4,y\n" * 10_000 + 'c.mp4,"never closed\n')
    first = next(iter(iter_manifest([tmp_path / "m.csv"])))
    assert first == ClipRow("a", "a.mp4", ("x",), "train")


def test_what_a_stream_remembers_of_a_row_is_little(tmp_path):
    path = tmp_path / "m.csv"
    with path.open("w") as file:
        file.write("video,caption\n")
        for number in range(5_000):
            file.write(f"folder/{number:08d}.mp4,{'a caption ' * 20}\n")
    code = (
        "import tracemalloc\nfrom data_pipeline.manifest.read import iter_manifest\n"
        f"tracemalloc.start()\nbefore = None\n"
        f"for number, _ in enumerate(iter_manifest([{str(path)!r}])):\n"
        "    if number == 9: before = tracemalloc.get_traced_memory()[0]\n"
        "    if number == 4_998: print((tracemalloc.get_traced_memory()[0] - before) / number)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 250
