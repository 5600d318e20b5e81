"""Tables as other programs write them, and rows of which one cell or one byte is wrong: each costs its own row."""

import datetime
import decimal
import json

import pyarrow
import pyarrow.parquet
import pytest

from data_pipeline.manifest.read import iter_manifest, read_manifest
from data_pipeline.manifest.rows import ClipRow, Reject
from harvest_jax.errors import ConfigError, DataError
from tests.helpers.source_files import only_reason, reasons, write_jsonl, write_text

UNCLOSED = "bad row: a quote is not closed (a quote inside a quoted cell is doubled)"
FOLLOWED = "bad row: text follows a closing quote (a quote inside a quoted cell is doubled)"


@pytest.mark.parametrize(
    ("name", "text", "used", "faults"),
    [
        ("m.tsv", 'video\tcaption\nc1.mp4\t"hello" she said\nc2.mp4\tok\n', ["c2"], {"line 2": FOLLOWED}),
        ("m.tsv", 'video\tcaption\na.mp4\t"big dog\nb.mp4\ty\nc.mp4\tz\n', ["b", "c"], {"line 2": UNCLOSED}),
        ("m.tsv", 'video\tcaption\na.mp4\t"big dog\nb.mp4\tsay "x"\nc.mp4\tz\n', ["b", "c"], {"line 2": UNCLOSED}),
        ("m.tsv", 'video\tcaption\na.mp4\t"big dog\nb.mp4\ty\nc.mp4\t6"\n', ["b", "c"], {"line 2": UNCLOSED}),
        ("m.csv", 'video,caption\na.mp4,"x\nb.mp4,y\n', ["b"], {"line 2": UNCLOSED}),
        ("m.csv", 'video,caption\na.mp4,"x\nb.mp4,y\nc.mp4,6"\nd.mp4,z\n', ["b", "c", "d"], {"line 2": UNCLOSED}),
        ("m.csv", 'video,caption\na.mp4,x\nb.mp4,"y', ["a"], {"line 3": UNCLOSED}),
        ("m.csv", 'video,caption\na.mp4,"x\nb.mp4,"y\nc.mp4,"z"\n', ["c"], {"line 2": UNCLOSED, "line 3": UNCLOSED}),
    ],
)
def test_a_quote_that_is_not_closed_costs_its_row(tmp_path, name, text, used, faults):
    manifest = read_manifest(write_text(tmp_path / name, text))
    assert [row.id for row in manifest.rows] == used
    found = reasons(manifest)
    assert found.keys() == faults.keys()
    assert all(found[line].startswith(reason) for line, reason in faults.items())
    assert all(reject.video for reject in manifest.rejects)


def test_captions_of_several_lines_are_no_fault(tmp_path):
    text = 'video,caption,note\r\na.mp4,"A man,\r\nwalks, slowly\r\naway",x\r\nb.mp4,"say ""hi""",y\r\n'
    manifest = read_manifest(write_text(tmp_path / "m.csv", text))
    assert manifest.rejects == []
    assert [row.captions for row in manifest.rows] == [("A man,\r\nwalks, slowly\r\naway",), ('say "hi"',)]
    assert manifest.rows[0].extra == {"note": "x"}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json"])
def test_a_byte_that_is_no_utf_8_costs_its_row(tmp_path, kind):
    rows = [("a.mp4", "Jos\xe9"), ("b.mp4", "fine"), ("Jos\xe9.mp4", "x")]
    if kind in ("csv", "tsv"):
        mark = {"csv": ",", "tsv": "\t"}[kind]
        text = "".join(f"{mark.join(row)}\n" for row in [("video", "caption"), *rows])
    else:
        lines = [json.dumps({"video": name, "caption": said}, ensure_ascii=False) for name, said in rows]
        text = "\n".join(lines) if kind == "jsonl" else f"[{', '.join(lines)}]"
    (tmp_path / f"m.{kind}").write_bytes(text.encode("latin-1"))
    manifest = read_manifest(tmp_path / f"m.{kind}")
    assert [row.id for row in manifest.rows] == ["b"]
    assert [(reject.video, reject.reason) for reject in manifest.rejects] == [
        ("a.mp4", "bad text: the caption is not UTF-8 (byte 0xe9): save the file as UTF-8"),
        ("Jos\\udce9.mp4", "bad path: it is not UTF-8 (byte 0xe9): rename the file"),
    ]


def test_a_text_in_parquet_that_is_no_utf_8_costs_its_row(tmp_path):
    raw = pyarrow.array([b"Jos\xe9", b"fine"], pyarrow.binary())
    captions = pyarrow.Array.from_buffers(pyarrow.string(), 2, raw.buffers())  # as a program without checks writes it
    table = pyarrow.table({"video": ["a.mp4", "b.mp4"], "caption": captions})
    pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
    manifest = read_manifest(tmp_path / "m.parquet")
    assert [row.id for row in manifest.rows] == ["b"]
    assert manifest.rejects[0].video == "a.mp4"
    assert only_reason(manifest).startswith("bad row: the cell caption cannot be read ('utf-8' codec can't decode")


@pytest.mark.parametrize(
    ("start", "seconds"),
    [
        ("1,5", 1.5),
        ("3.5 s", 3.5),
        ("3.5s", 3.5),
        ("2 Seconds", 2.0),
        ("12,3456 sec", 12.3456),
        ("0:01:02,500", 62.5),
        (" 7 ", 7.0),
        ("1e1", 10.0),
    ],
)
def test_times_as_people_write_them(tmp_path, start, seconds):
    (row,) = read_manifest(write_jsonl(tmp_path / "m.jsonl", [{"video": "a.mp4", "caption": "x", "start": start}])).rows
    assert row.start == seconds


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.time32("ms"),
        pyarrow.time64("us"),
        pyarrow.time64("ns"),
        pyarrow.duration("ms"),
        pyarrow.duration("us"),
        pyarrow.decimal128(10, 3),
        pyarrow.float32(),
        pyarrow.string(),
    ],
    ids=str,
)
def test_times_in_parquet(tmp_path, kind):
    if "time" in str(kind):
        values = [datetime.time(0, 1, 2, 500_000), datetime.time(1, 0, 0), None]
    elif "duration" in str(kind):
        values = [datetime.timedelta(seconds=62.5), datetime.timedelta(hours=1), None]
    else:
        values = [decimal.Decimal("62.5"), decimal.Decimal(3600), None]
        values = values if "decimal" in str(kind) else [value and float(value) for value in values]
        values = [value and str(value) for value in values] if kind == pyarrow.string() else values
    table = {"video": ["a.mp4", "b.mp4", "c.mp4"], "caption": ["x"] * 3, "start": pyarrow.array(values, kind)}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "m.parquet")
    manifest = read_manifest(tmp_path / "m.parquet")
    assert manifest.rejects == []
    assert [row.start for row in manifest.rows] == [62.5, 3600.0, None]


def test_binary_columns_and_captions_with_a_null(tmp_path):
    table = {
        "video": pyarrow.array([b"a.mp4", b"b.mp4"], pyarrow.binary()),
        "caption": pyarrow.array([["one", None, "two"], [None]], pyarrow.list_(pyarrow.string())),
        "thumbnail": pyarrow.array([b"\xff\xd8\xff", b"text"], pyarrow.large_binary()),
    }
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "m.parquet")
    manifest = read_manifest(tmp_path / "m.parquet")
    assert manifest.rows == [ClipRow("a", "a.mp4", ("one", "two"), "train", extra={"thumbnail": None})]
    assert [(reject.video, reject.reason) for reject in manifest.rejects] == [("b.mp4", "empty caption")]


def test_large_rows_of_parquet_are_read_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("data_pipeline.manifest.tables._BATCH_BYTES", 1 << 20)
    rows = [{"video": f"{number}.mp4", "caption": "x", "blob": bytes([255]) * (300 << 10)} for number in range(9)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "m.parquet", use_dictionary=False)
    sizes = []
    real = pyarrow.parquet.ParquetFile.iter_batches

    def watched(file, **options):
        sizes.append(options["batch_size"])
        return real(file, **options)

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", watched)
    assert len(read_manifest(tmp_path / "m.parquet").rows) == 9
    assert sizes == [3]


@pytest.mark.parametrize(
    "text",
    [
        "video;caption;start\na.mp4;a dog, running;1,5\n",
        "sep=;\nvideo;caption;start\na.mp4;a dog, running;1,5\n",
        "video\tcaption\tstart\na.mp4\ta dog, running\t1.5\n",
        'video,caption,start\na.mp4,"a dog, running",1.5\n',
    ],
)
def test_a_csv_file_is_separated_by_what_its_first_line_is(tmp_path, text):
    manifest = read_manifest(write_text(tmp_path / "m.csv", text))
    assert manifest.rows == [ClipRow("a_1.5", "a.mp4", ("a dog, running",), "train", 1.5)]


def test_json_is_a_list_or_has_an_object_a_line(tmp_path):
    rows = [{"video": "a.mp4", "caption": "x"}, 5, {"video": "b.mp4", "caption": ["y", None]}]
    (tmp_path / "m.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, rows)))
    for name in ("m.json", "lines.json"):
        manifest = read_manifest(tmp_path / name)
        assert [row.captions for row in manifest.rows] == [("x",), ("y",)]
        assert reasons(manifest) == {"line 2": "bad row: not a JSON object"}


def test_columns_of_others_are_named(tmp_path):
    path = write_text(tmp_path / "m.csv", "path,text,from,caption,n\na.mp4,a dog,2,theirs,1\n,x,,,2\nb.mp4,y\n")
    found = list(iter_manifest([path], columns="video=path,caption=text,start=from"))
    assert found[0] == ClipRow("a_2", "a.mp4", ("a dog",), "train", 2.0, extra={"n": "1"})
    assert [one.reason for one in found if isinstance(one, Reject)] == [
        "bad path: the cell video is empty",
        "bad row: 2 cells under 5 columns",
    ]
    assert found[2].video == "b.mp4"
    write_text(tmp_path / "w.csv", "videoid,page_dir,name,path\n1,p,theirs,c.mp4\n")  # WebVid's, but for --columns
    (row,) = iter_manifest([tmp_path / "w.csv"], columns="video=path,caption=name")
    assert (row.video, row.captions, row.extra) == ("c.mp4", ("theirs",), {"videoid": "1", "page_dir": "p"})
    with pytest.raises(DataError, match=r"m\.csv has no column 'file', which --columns names; it has path, text, from"):
        list(iter_manifest([path], columns="video=file"))
    for wrong in ("video", "video=", "film=path", "video=path,video=text", "video=path,caption=path"):
        with pytest.raises(ConfigError, match="write it like video=path,caption=text"):
            iter_manifest([path], columns=wrong)


def test_spaces_around_a_name_are_no_part_of_it_unless_the_file_has_them(tmp_path):
    (tmp_path / " a.mp4").touch()
    text = "video,caption\n a.mp4,x\n b.mp4 ,y\n"
    assert [row.video for row in read_manifest(write_text(tmp_path / "m.csv", text)).rows] == [" a.mp4", "b.mp4"]
