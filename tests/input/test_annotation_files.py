"""Reading annotation files, and what is said of files that are not what they should be."""

import json

import pytest

from harvest_jax.errors import DataError
from harvest_jax.input import annotation_files
from harvest_jax.input.annotation_files import (
    read_json,
    read_json_lines,
    read_lines,
    read_records,
    read_table,
    read_text,
)


def fault(call, *args, **options):
    """The message, which is one line."""
    with pytest.raises(DataError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def put(path, text="[]"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_huge_files_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "kites.json"
    with path.open("wb") as stream:
        stream.truncate(annotation_files.MAX_BYTES + 1)
    assert "no annotation file has more than" in fault(read_text, path)


def test_text(tmp_path):
    assert read_text(put(tmp_path / "t", b"\xef\xbb\xbfa\xc3\xa9")) == "aé"
    assert "t, line 3: byte 0xff is not UTF-8" in fault(read_text, put(tmp_path / "t", b"a\nb\nc\xff\n"))
    assert "0xff is not UTF-8 text: this is no text file" in fault(read_text, put(tmp_path / "t", b"\0\0\xff"))
    assert "it is a folder" in fault(read_text, tmp_path)


def test_lines(tmp_path):
    assert read_lines(put(tmp_path / "t", "a\r\n\n b \nc d")) == ["a", "b", "c d"]
    assert "line 3: 'a' is in line 1 already" in fault(read_lines, put(tmp_path / "t", "a\nb\na\n"))
    assert "has no lines" in fault(read_lines, put(tmp_path / "t", "\n \n"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "column 1: not JSON"),
        ("[1,\n2", "line 2, column 2: not JSON"),
        ("key,video_id\n", "not JSON"),
        ('{"a": 1}', "holds an object, where the official file has a list"),
        ("12", "holds a number, where"),
        ("null", "holds null, where"),
        ("[NaN]", "NaN is not a number"),
        ('[{"a": 1, "b": 2, "a": 3}]', "has the key 'a' twice"),
        ("[" * 100_000, "not JSON that can be used"),
        ("[" + "9" * 5000 + "]", "not JSON that can be used"),
        ("\x89PNG", "not JSON"),
    ],
)
def test_broken_json(tmp_path, text, words):
    message = fault(read_json, put(tmp_path / "t.json", text), list)
    assert "t.json" in message
    assert words in message
    assert len(message) < 300 + len(str(tmp_path))


def test_records(tmp_path):
    path = put(tmp_path / "t.json", json.dumps([{"a": " x "}, {"a": 3}, {"b": ""}]))
    records = read_records(path)
    assert [record.where for record in records] == [f"{path}, entry {n}" for n in (1, 2, 3)]
    assert records[0].text("a") == "x"
    assert f"{path}, entry 2: 'a' must be a text, is 3" in fault(records[1].text, "a")
    assert "entry 3: no 'a'; it has b" in fault(records[2].text, "a")
    assert "entry 3: 'b' is empty" in fault(records[2].text, "b")
    assert "entry 2: must be an object" in fault(read_records, put(path, '[{}, ["a"]]'))
    assert "has no entries" in fault(read_records, put(path, "[]"))


def test_json_lines(tmp_path):
    path = put(tmp_path / "t.jsonl", '{"a": 1}\n\n{"a": "line\u2028separator"}\r\n')
    first, second = read_json_lines(path)
    assert (first.where, second.where) == (f"{path}, line 1", f"{path}, line 3")
    assert second.text("a") == "line\u2028separator"
    assert "line 2, column 7: not JSON" in fault(read_json_lines, put(path, '{"a": 1}\n{"a": \n'))
    assert "line 1: must be an object" in fault(read_json_lines, put(path, "[1]\n"))
    assert "has no lines" in fault(read_json_lines, put(path, ""))


def test_tables_with_a_header(tmp_path):
    path = put(tmp_path / "t.csv", 'id,text,more\r\n1,"a, ""b""\nc",x\r\n\r\n2,d\u2028e,\r\n')
    first, second = read_table(path, ("text", "id"))
    assert first.cells == {"id": "1", "text": 'a, "b"\nc', "more": "x"}
    assert (first.where, second.where) == (f"{path}, line 2", f"{path}, line 5")
    assert second.text("text") == "d\u2028e"
    assert "line 1: the first line must name the columns id, word; word not in: id, text" in fault(
        read_table, path, ("id", "word")
    )
    tabs = put(path, "id\ttext\n1\ta\n")
    assert "separated by tabs, in the official file by commas" in fault(read_table, tabs, ("id", "text"))
    assert [record.cells for record in read_table(tabs, ("id", "text"), "\t")] == [{"id": "1", "text": "a"}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,text\n1,a\n2,b,c\n", "line 3: 3 cells, but 2 columns"),
        ("id,text\n1,a\n2\tb\n", "line 3: 1 cells, but 2 columns (cells are separated by tabs"),
        ("id,id\n1,a\n", "line 1: the column 'id' is named twice"),
        ('id,text\n1,"a\n2,b\n', "line 2: unexpected end of data (is a quote not closed?"),
        ("id,text\n", "has no rows"),
        ("", "has no rows"),
        ("id\n1\x002\n", "line 2: byte 0x00 is not text"),
    ],
)
def test_broken_tables(tmp_path, text, words):
    assert words in fault(read_table, put(tmp_path / "t.csv", text), ("id",))


def test_tables_without_header_and_quotes(tmp_path):
    path = put(tmp_path / "t.csv", 'a\t"He said\nb\tsays "no", twice"\n')
    rows = read_table(path, ("id", "text"), "\t", header=False, quotes=False)
    assert [row.cells for row in rows] == [
        {"id": "a", "text": '"He said'},
        {"id": "b", "text": 'says "no", twice"'},
    ]
    assert rows[1].where == f"{path}, line 2"
    wrong = put(path, "a,b\n")
    message = fault(read_table, wrong, ("id", "text"), "\t", header=False, quotes=False)
    assert "line 1: 1 cells, but 2 columns (cells are separated by commas, in the official file by tabs)" in message
