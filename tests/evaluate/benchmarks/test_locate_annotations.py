"""Finding annotation files by name."""

import dataclasses
from pathlib import Path

from harvest_jax.evaluate.benchmarks import locate_annotations
from harvest_jax.evaluate.benchmarks.benchmark import Benchmark
from harvest_jax.evaluate.benchmarks.locate_annotations import locate
from harvest_jax.input.annotation_files import only, read_text
from tests.helpers.faults import fault, put

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
    assert only(locate(ONE, Path("."))).samefile(tmp_path / "kites" / "test.json")


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


def test_names_that_no_file_system_takes(tmp_path):
    assert "no file or folder" in fault(locate, ONE, tmp_path / ("x" * 300))
    assert "no file or folder" in fault(locate, ONE, tmp_path / "a\0b")
    assert "no file" in fault(read_text, tmp_path / ("x" * 300))


def test_huge_folders_are_refused_before_they_are_searched(tmp_path, monkeypatch):
    put(tmp_path / "kites.json")
    monkeypatch.setattr(locate_annotations, "_MAX_FILES", 0)
    assert "more than 0 files below it" in fault(locate, ONE, tmp_path)
