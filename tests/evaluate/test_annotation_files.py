"""Finding annotation files by name, reading them, and what is said of files that are not what they should be."""

import dataclasses
import json

import pytest

from harvest_jax.errors import DataError
from harvest_jax.evaluate import annotation_files, locate_annotations
from harvest_jax.evaluate.annotation_files import (
    only,
    read_json,
    read_json_lines,
    read_lines,
    read_records,
    read_table,
    read_text,
)
from harvest_jax.evaluate.benchmark import Benchmark
from harvest_jax.evaluate.locate_annotations import locate

ONE = Benchmark(
    name="kites",
    title="Kites",
    version="1",
    task="retrieval",
    split="test",
    files={"captions": ("kites/test.json", "kites_test.json", "kites.json")},
    read=lambda files: [],
    expected={"rows": 0},
    captions="one",
    settings={},
    source="it is flown at kites.example",
    licence="not stated",
)
TWO = dataclasses.replace(ONE, files={"captions": ("data.json",), "list of videos": ("list.txt",)})


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


def test_one_file_may_have_any_name(tmp_path):
    path = put(tmp_path / "my copy.txt")
    assert locate(ONE, path) == {"captions": path}
    assert only(locate(ONE, path)) == path
    assert "Kites needs 2: give the folder with data.json, list.txt" in fault(locate, TWO, path)


def test_files_are_found_in_subfolders_in_the_order_of_their_names(tmp_path):
    last = put(tmp_path / "kites.json")
    assert locate(ONE, tmp_path) == {"captions": last}
    put(tmp_path / "other" / "test.json")  # its folder is not the one of the name
    assert locate(ONE, tmp_path) == {"captions": last}
    first = put(tmp_path / "deep" / "er" / "KITES" / "Test.json", "[1]")
    assert locate(ONE, tmp_path) == {"captions": first}
    assert locate(ONE, first.parent) == {"captions": first}  # the folder itself is the one of the name


def test_relative_folders(tmp_path, monkeypatch):
    put(tmp_path / "kites" / "test.json")
    monkeypatch.chdir(tmp_path / "kites")
    assert only(locate(ONE, annotation_files.Path("."))).samefile(tmp_path / "kites" / "test.json")


def test_a_missing_file_is_named_with_its_source(tmp_path):
    put(tmp_path / "data.json")
    message = fault(locate, TWO, tmp_path)
    assert "no file with the list of videos" in message
    assert "it is called list.txt; it is flown at kites.example" in message
    assert "kites/test.json or kites_test.json or kites.json" in fault(locate, ONE, tmp_path)
    assert "no file or folder" in fault(locate, ONE, tmp_path / "absent")


def test_two_different_files_of_one_name_are_refused_and_two_copies_are_not(tmp_path):
    put(tmp_path / "a" / "kites.json")
    put(tmp_path / "b" / "kites.json")
    assert only(locate(ONE, tmp_path)) == tmp_path / "a" / "kites.json"
    other = put(tmp_path / "c" / "kites.json", "[2]")
    message = fault(locate, ONE, tmp_path)
    assert f"{tmp_path / 'a' / 'kites.json'} and {other} are both called kites.json and differ" in message


def test_what_lies_hidden_outside_or_too_deep_is_not_found(tmp_path):
    outside = put(tmp_path / "outside" / "kites.json")
    folder = tmp_path / "folder"
    put(folder / ".trash" / "kites.json")
    (folder / "linked").symlink_to(outside.parent)
    put(folder.joinpath(*"abcdefghi") / "kites.json")
    fault(locate, ONE, folder)
    (folder / "kites.json").symlink_to(outside)
    assert "is a link that leads out of the folder" in fault(locate, ONE, folder)
    put(folder / "blobs" / "1")
    (folder / "kites.json").unlink()
    (folder / "kites.json").symlink_to(folder / "blobs" / "1")
    assert only(locate(ONE, folder)) == folder / "kites.json"
    (tmp_path / "shortcut").symlink_to(folder)
    assert only(locate(ONE, tmp_path / "shortcut")) == tmp_path / "shortcut" / "kites.json"


def test_huge_files_and_folders_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = tmp_path / "kites.json"
    with path.open("wb") as stream:
        stream.truncate(annotation_files.MAX_BYTES + 1)
    assert "no annotation file has more than" in fault(read_text, path)
    monkeypatch.setattr(locate_annotations, "_MAX_FILES", 0)
    assert "more than 0 files below it" in fault(locate, ONE, tmp_path)


def test_text(tmp_path):
    assert read_text(put(tmp_path / "t", b"\xef\xbb\xbfa\xc3\xa9")) == "aé"
    assert "t, line 3: byte 0xff is not UTF-8" in fault(read_text, put(tmp_path / "t", b"a\nb\nc\xff\n"))
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
        ('id,text\n1,"a\n2,b\n', "line 2: unexpected end of data"),
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


def test_names_that_no_file_system_takes(tmp_path):
    assert "no file or folder" in fault(locate, ONE, tmp_path / ("x" * 300))
    assert "no file or folder" in fault(locate, ONE, tmp_path / "a\0b")
    assert "no file" in fault(read_text, tmp_path / ("x" * 300))
