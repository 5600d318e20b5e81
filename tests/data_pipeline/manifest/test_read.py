"""Manifest files: their columns, and the reason for every row that cannot be used."""

import datetime
import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from data_pipeline.manifest.read import iter_manifest, read_manifest
from data_pipeline.manifest.rows import MAX_CAPTION, ClipRow, Reject
from harvest_jax.errors import DataError
from tests.helpers.source_files import only_reason, reasons, write_jsonl, write_text


def test_csv_with_every_column(tmp_path):
    path = write_text(
        tmp_path / "m.csv",
        "\ufeffid,video,caption,split,start,end,category\n"
        'a,clips/a.mp4,"A dog, running ""fast""",train,1.5,0:01:02.5,Animal\n'
        "b,b.webm,  Zwei Bären ,test,,,\n",
    )
    manifest = read_manifest(path)
    assert manifest.rows == [
        ClipRow("a", "clips/a.mp4", ('A dog, running "fast"',), "train", 1.5, 62.5, {"category": "Animal"}),
        ClipRow("b", "b.webm", ("Zwei Bären",), "test", None, None, {"category": ""}),
    ]
    assert manifest.rejects == []
    assert manifest.splits == ["test", "train"]
    assert manifest.root == Path(os.path.realpath(tmp_path))


def test_the_same_rows_in_all_four_kinds_of_file(tmp_path):
    table = [{"video": "a.mp4", "caption": "one"}, {"video": "b.mp4", "caption": "two words"}]
    write_text(tmp_path / "m.csv", "video,caption\na.mp4,one\n\nb.mp4,two words\n")
    write_text(tmp_path / "m.tsv", "video\tcaption\na.mp4\tone\nb.mp4\ttwo words\n")
    write_jsonl(tmp_path / "m.jsonl", table)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "m.parquet")
    manifests = [read_manifest(tmp_path / f"m.{kind}") for kind in ("csv", "tsv", "jsonl", "parquet")]
    assert manifests[0].rows == [
        ClipRow("a", "a.mp4", ("one",), "train"),
        ClipRow("b", "b.mp4", ("two words",), "train"),
    ]
    assert all(manifest.rows == manifests[0].rows and not manifest.rejects for manifest in manifests)


def test_several_captions_and_typed_columns(tmp_path):
    day = datetime.date(2026, 1, 31)
    rows = [{"id": 7, "video": "a.mp4", "caption": [" one ", "", "two"], "score": float("nan"), "day": day, "n": 3}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "m.parquet")
    (row,) = read_manifest(tmp_path / "m.parquet").rows
    assert (row.id, row.captions) == ("7", ("one", "two"))
    assert row.extra == {"score": None, "day": "2026-01-31", "n": 3}
    json.dumps(row.extra, allow_nan=False)


def test_splits_are_chosen_or_named(tmp_path):
    with_column = write_text(
        tmp_path / "m.csv", "video,caption,split\na.mp4,x,train\nb.mp4,y,test\nc.mp4,z,\n,w,test\n"
    )
    everything = read_manifest(with_column)
    assert [(row.id, row.split) for row in everything.rows] == [("a", "train"), ("b", "test")]
    assert [(r.id, r.reason, r.split) for r in everything.rejects] == [
        ("line 4", "bad split: the cell is empty", "train"),
        ("line 5", "bad path: the cell video is empty", "test"),
    ]
    test = read_manifest(with_column, split="test")
    assert [row.id for row in test.rows] == ["b"]
    assert {reject.split for reject in test.rejects} == {"test"}
    with pytest.raises(DataError, match=r"no rows of the split 'val'; its splits: test, train"):
        read_manifest(write_text(tmp_path / "n.csv", "video,caption,split\na.mp4,x,train\nb.mp4,y,test\n"), split="val")
    without_column = write_text(tmp_path / "o.csv", "video,caption\na.mp4,x\n")
    assert read_manifest(without_column, split="val").rows[0].split == "val"


def test_ids_come_from_file_names(tmp_path):
    lines = [
        "one/a.mp4,x,,",
        "two/a.mp4,x,,",
        "one/b.c.mp4,x,,",
        "one/a.mp4,x,1,2.5",
        "one/a.webm,x,,",
        "two/a.webm,x,,",
    ]
    manifest = read_manifest(write_text(tmp_path / "m.csv", "video,caption,start,end\n" + "\n".join(lines) + "\n"))
    assert [row.id for row in manifest.rows] == ["a", "two/a", "b.c", "a_1_2.5", "one/a", "two/a.webm"]
    lines.append("two/a.webm,again,,")
    manifest = read_manifest(write_text(tmp_path / "m.csv", "video,caption,start,end\n" + "\n".join(lines) + "\n"))
    assert only_reason(manifest).startswith("duplicate id: 'two/a.webm' is line 7's (several captions of one clip go")
    same = "video,caption\nb.mp4,x\nb.mp4,again\n"  # no folder to tell them apart, and nothing to
    assert only_reason(read_manifest(write_text(tmp_path / "n.csv", same))).startswith("duplicate id: 'b' is line 2's")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"caption": ""}, "empty caption"),
        ({"caption": "   "}, "empty caption"),
        ({"caption": None}, "empty caption"),
        ({"caption": []}, "empty caption"),
        ({"caption": 5}, "bad caption: expected a text or a list of texts"),
        ({"caption": ["x", 5]}, "bad caption: expected a text or a list of texts"),
        ({"caption": "x" * 1_000_000}, "enormous caption: 1,000,000 characters, more than 10,000"),
        ({"caption": "half \ud800 a character"}, "bad text: the caption contains a lone surrogate"),
        ({"note": "x" * 200_000}, "too much text: the other columns hold more than 100,000"),
        ({"note": "\udc00"}, "bad text: a column contains a lone surrogate"),
        ({"id": "good"}, "duplicate id: 'good' is line 1's"),
        ({"id": "x" * 300}, "bad id: it is empty, longer than 256 characters or holds control"),
        ({"id": "a\tb"}, "bad id: it is empty, longer than 256 characters or holds control"),
        ({"id": " "}, "bad id: it is empty"),
        ({"id": float("nan")}, "bad id: expected a text or a whole number"),
        ({"id": [1]}, "bad id: expected a text or a whole number"),
        ({"id": True}, "bad id: expected a text or a whole number"),
        ({"id": "a\u2028b"}, "bad id: it is empty, longer than 256 characters or holds control"),
        ({"video": "a\u2029.mp4"}, "bad path: it is empty, longer than 4,096 characters or holds control"),
        ({"video": ""}, "bad path: the cell video is empty"),
        ({"video": 5}, "bad path: the cell video is not a text: it is the name of a file, not its content"),
        ({"video": {"bytes": "", "path": "b.mp4"}}, "bad path: the cell video is not a text"),
        ({"video": "http://127.0.0.1/a.mp4"}, "bad path: it looks like an address"),
        ({"video": "file:/etc/passwd"}, "bad path: it looks like an address"),
        ({"video": "concat:a.mp4|b.mp4"}, "bad path: it looks like an address"),
        ({"video": "subfile,,start,0,end,0,,:/etc/passwd"}, "bad path: it looks like an address"),
        ({"video": "C:\\videos\\a.mp4"}, "bad path: it begins with a drive; give it relative to the root (--root)"),
        ({"video": "d:/videos/a.mp4"}, "bad path: it begins with a drive"),
        ({"video": "\\\\server\\a.mp4"}, "bad path: it is absolute"),
        ({"video": "sub\\c1.mp4"}, "bad path: no file has this name; write folders with /, not with backslashes"),
        ({"video": "/etc/passwd"}, "bad path: it is absolute; give it relative to the root (--root)"),
        ({"video": "../secret.mp4"}, "bad path: it contains '..'"),
        ({"video": "clips/../../secret.mp4"}, "bad path: it contains '..'"),
        ({"video": "linked.mp4"}, "bad path: a link leads out of the root"),
        ({"video": "linked/secret.mp4"}, "bad path: a link leads out of the root"),
        ({"video": "a\x00.mp4"}, "bad path: it is empty, longer than 4,096 characters or holds control"),
        ({"video": "a" * 5000}, "bad path: it is empty, longer than 4,096 characters or holds control"),
        ({"video": "."}, "bad path: it is the name of a folder"),
        ({"video": "clips/"}, "bad path: it is the name of a folder"),
        ({"start": "soon"}, "bad span: start 'soon' is not a time: write seconds or h:m:s"),
        ({"start": -1}, "bad span: start -1 s is outside 0..10,000,000"),
        ({"start": "inf"}, "bad span: start inf s is outside 0..10,000,000"),
        ({"start": True}, "bad span: start 'True' is not a time"),
        ({"start": "1,500"}, "bad span: start '1,500' may be a decimal or thousands: write it with a point"),
        ({"start": "00:00:01:12"}, "bad span: start '00:00:01:12' is a timecode that counts frames: write seconds"),
        ({"end": "00:00:01;12"}, "bad span: end '00:00:01;12' is a timecode that counts frames"),
        ({"start": "3 min"}, "bad span: start '3 min' is not a time: write seconds or h:m:s"),
        ({"start": [1]}, "bad span: start '[1]' is not a time: write seconds or h:m:s"),
        ({"start": 5, "end": 5}, "bad span: it ends at 5 s, not after its start at 5 s"),
        ({"end": 0}, "bad span: it ends at 0 s, not after its start at 0 s"),
        ({"split": ""}, "bad split: the cell is empty"),
    ],
)
def test_a_bad_row_costs_itself_only(tmp_path, row, reason):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (root / "linked.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "linked").symlink_to(tmp_path)
    good = {"id": "good", "video": "a.mp4", "caption": "fine"}
    bad = {"id": "bad", "video": "b.mp4", "caption": "fine"} | row
    manifest = read_manifest(write_jsonl(root / "m.jsonl", [good, bad, good | {"id": "also good"}]))
    assert [row.id for row in manifest.rows] == ["good", "also good"]
    assert only_reason(manifest).startswith(reason)


def test_links_inside_the_root_are_fine(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.mp4").write_bytes(b"x")
    (tmp_path / "alias.mp4").symlink_to(tmp_path / "real" / "a.mp4")
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    rows = [{"video": name, "caption": "x", "id": name} for name in ("alias.mp4", "folder/a.mp4", "./a:b.mp4")]
    assert not read_manifest(write_jsonl(tmp_path / "m.jsonl", rows)).rejects


def test_lines_of_csv_that_do_not_fit_the_header(tmp_path):
    text = "video,caption,split\na.mp4,one,train,oops\nb.mp4,two,train\nc.mp4\n"
    manifest = read_manifest(write_text(tmp_path / "m.csv", text))
    assert [row.id for row in manifest.rows] == ["b"]
    assert reasons(manifest) == {
        "line 2": "bad row: 4 cells under 3 columns",
        "line 4": "bad row: 1 cells under 3 columns",
    }


def test_a_stray_comma_costs_its_row_only_and_makes_no_split(tmp_path):
    text = "video,caption,split\na.mp4,hello, world,val\nb.mp4,x,val\nc.mp4,a man, with a dog,val\nd.mp4\ne.mp4,z,val\n"
    for split in (None, "val"):
        manifest = read_manifest(write_text(tmp_path / "m.csv", text), split=split)
        assert [row.id for row in manifest.rows] == ["b", "e"]
        assert manifest.splits == ["val"]
        assert [(reject.id, reject.reason) for reject in manifest.rejects] == [
            ("line 2", "bad row: 4 cells under 3 columns"),
            ("line 4", "bad row: 4 cells under 3 columns"),
            ("line 5", "bad row: 1 cells under 3 columns"),
        ]
    ragged = read_manifest(write_text(tmp_path / "n.csv", "video,caption\na.mp4\nb.mp4,x\n"))
    assert [row.id for row in ragged.rows] == ["b"]
    assert only_reason(ragged) == "bad row: 1 cells under 2 columns"


@pytest.mark.parametrize("split", [None, "val"])
def test_a_bad_split_costs_its_row_unless_there_is_no_good_one(tmp_path, split):
    rows = [{"video": f"{name}.mp4", "caption": "x", "split": name} for name in ("all", "a b", "val", "a-b")]
    rows += [{"video": "y.mp4", "caption": "x", "split": ["val"]}, {"split": "val"}]
    manifest = read_manifest(write_jsonl(tmp_path / "m.jsonl", rows), split=split)
    assert [row.id for row in manifest.rows] == ["val"]
    assert {reject.split for reject in manifest.rejects} == {"val"}
    assert [reject.reason.split(" cannot")[0] for reject in manifest.rejects] == [
        "bad split: 'all'",
        "bad split: 'a b'",
        "bad split: 'a-b'",
        "bad split: \"['val']\"",
        "bad row: no video",
    ]
    with pytest.raises(DataError, match=r"n\.jsonl: 'all' cannot name a split"):
        read_manifest(write_jsonl(tmp_path / "n.jsonl", [*rows[:2], {}]), split=split)


@pytest.mark.parametrize(("rejects", "split"), [(9_999, "val"), (10_001, "train")])
def test_rejects_before_the_first_split_wait_for_it_in_bounded_memory(tmp_path, rejects, split):
    text = "video,caption,split\n" + "a.mp4,x,y,z\n" * rejects + "b.mp4,x,val\na.mp4\n"
    manifest = read_manifest(write_text(tmp_path / "m.csv", text))
    assert [row.split for row in manifest.rows] == ["val"]
    assert len(manifest.rejects) == rejects + 1
    assert {reject.split for reject in manifest.rejects} == {split}


def test_spans_of_one_video_that_look_alike(tmp_path):
    text = "video,caption,start,end\nv.mp4,a,5,\nv.mp4,b,,5\nv.mp4,c,10000.01,10000.04\nv.mp4,d,10000.02,10000.03\n"
    rows = read_manifest(write_text(tmp_path / "m.csv", text)).rows
    assert [row.id for row in rows] == ["v_5", "v_0_5", "v_10000.01_10000.04", "v_10000.02_10000.03"]
    rows = read_manifest(write_text(tmp_path / "n.csv", "video,caption,start,end\nv.mp4,b,,5\nv.mp4,a,5,\n")).rows
    assert [row.id for row in rows] == ["v_5", "v_5_end"]


def test_captions_where_caption_is_empty(tmp_path):
    rows = [{"video": "a.mp4", "caption": empty, "captions": ["one", "two"]} for empty in (None, "", " ", [], [""])]
    manifest = read_manifest(write_jsonl(tmp_path / "m.jsonl", [row | {"id": n} for n, row in enumerate(rows)]))
    assert [row.captions for row in manifest.rows] == [("one", "two")] * 5


def test_a_link_at_the_root_is_not_one_in_the_manifest_s_folder(tmp_path):
    for name in ("root/sub/x", "root/other", "outside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root" / "x").symlink_to(tmp_path / "outside")
    sources = [tmp_path / "root" / "sub" / "m.csv", tmp_path / "root" / "other" / "n.csv"]
    write_text(sources[0], "video,caption\nx/a.mp4,x\n")
    write_text(sources[1], "video,caption\nb.mp4,x\n../x/a.mp4,x\n/b.mp4,x\n")
    found = list(iter_manifest(sources))
    assert [one.video for one in found if isinstance(one, ClipRow)] == ["sub/x/a.mp4", "other/b.mp4"]
    assert [one.reason.split(";")[0] for one in found if isinstance(one, Reject)] == [
        "bad path: it contains '..'",
        "bad path: it is absolute",
    ]


def test_lines_of_jsonl_that_are_no_objects(tmp_path):
    text = '{"video": "a.mp4", "caption": "x"}\n{"video": \n[1, 2]\n{"caption": "y"}\n{"video": "b.mp4"}\n{}\n'
    manifest = read_manifest(write_text(tmp_path / "m.jsonl", text + '{"a":' * 100_000 + "\n"))
    assert [row.id for row in manifest.rows] == ["a"]
    found = reasons(manifest)
    assert found["line 2"].startswith("bad row: not JSON (")
    assert found["line 3"] == "bad row: not a JSON object"
    assert found["line 4"] == "bad row: no video"
    assert found["line 5"] == "empty caption"
    assert found["line 6"] == "bad row: no video"
    assert found["line 7"].startswith("bad row: not JSON (")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", b"", "m.csv is empty: the first line names the columns"),
        ("m.csv", b"video,caption\n", "m.csv has no rows"),
        (
            "m.csv",
            b"video,text\na.mp4,x\n",
            r"m.csv lacks columns: it needs video and caption .* it has video, text \(name others with --columns",
        ),
        ("m.csv", b'video,"te\nxt"\na.mp4,x\n', r"m.csv lacks columns: .* it has video, te\\nxt \("),
        ("m.csv", b"file,caption\na.mp4,x\n", r"lacks columns: .* it has file, caption"),
        ("m.csv", b"video,caption,video\na.mp4,x,b.mp4\n", "names the column 'video' twice"),
        ("m.csv", "video,caption,Größe\na.mp4,x,y\n".encode("latin-1"), r"m.csv is not UTF-8 text \(byte 0xf6\)"),
        ("m.csv", "video,caption\na.mp4,x\n".encode("utf-16"), r"m.csv is not UTF-8 text \(byte 0xff\)"),
        ("m.csv", b'video,"caption\na.mp4,x\n', r"m.csv, line 1: a quote is not closed"),
        ("m.csv", b"video,caption,split\na.mp4,x,my split\n", "m.csv: 'my split' cannot name a split"),
        ("m.csv", b"video,caption,split\na.mp4,x,all\n", "m.csv: 'all' cannot name a split"),
        ("m.jsonl", b"hello\nworld\n", r"m.jsonl, line 1: not JSON"),
        ("m.jsonl", b"\xff\xfe{", "m.jsonl is not UTF-8 text"),
        ("m.parquet", b"PAR1 but not really", "m.parquet is not a readable Parquet file"),
        ("m.parquet", b"", "m.parquet is not a readable Parquet file"),
        ("m.json", b"[1, ", r"m.json is not JSON"),
        ("m.json", b'"video"', r"m.json is not a list of objects: a manifest in JSON is \[{...}, ...\]"),
        ("m.json", b'{"videos": [],\n"sentences": []}', r"m.json lacks columns: .* it has videos, sentences"),
        ("m.json", b'{"videos": [],\n"sentences": [', r"m.json, line 1: not JSON"),
        ("m.json", '[{"video": "a.mp4"}]'.encode("utf-16"), r"m.json is not UTF-8 text \(byte 0xff\)"),
        (
            "m.xlsx",
            b"PK",
            r"m.xlsx: a manifest is a .csv, .tsv, .jsonl, .json, .parquet or .tar file or a folder, not .xlsx",
        ),
        (
            "manifest",
            b"video,caption\n",
            "a manifest is a .csv, .tsv, .jsonl, .json, .parquet or .tar file or a folder, not without suffix",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(DataError, match=r"no manifest .*none\.csv"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"is a folder without clips: no \.tar files.* \.avif\)$"):
        read_manifest(tmp_path)
    path = write_text(tmp_path / "m.csv", "video,caption\na.mp4,x\n")
    with pytest.raises(DataError, match=r"no folder .*nowhere to read videos from"):
        read_manifest(path, root=tmp_path / "nowhere")
    with pytest.raises(DataError, match="'a-b' cannot name a split"):
        read_manifest(path, split="a-b")


def test_a_manifest_of_questions_or_labels_needs_no_captions(tmp_path):
    rows = [
        {"video": "a.mp4", "question": "what?", "answer": "that", "options": ["this", "that"]},
        {"video": "b.mp4", "question": "", "category": "x"},
    ]
    manifest = read_manifest(write_jsonl(tmp_path / "m.jsonl", rows))
    assert manifest.rows[0].captions == ()
    assert manifest.rows[0].extra == {"question": "what?", "answer": "that", "options": ["this", "that"]}
    assert reasons(manifest) == {"line 2": "empty caption"}
    labels = read_manifest(write_text(tmp_path / "l.csv", "video,label\na.mp4,archery\n"))
    assert labels.rows == [ClipRow("a", "a.mp4", (), "train", extra={"label": "archery"})]


def test_an_enormous_cell_in_a_csv_costs_one_row(tmp_path):
    text = f"video,caption\na.mp4,x\nb.mp4,{'y' * 1_000_000}\nc.mp4,z\n"
    manifest = read_manifest(write_text(tmp_path / "m.csv", text))
    assert [row.id for row in manifest.rows] == ["a", "c"]
    assert only_reason(manifest) == f"enormous caption: 1,000,000 characters, more than {MAX_CAPTION:,}"
