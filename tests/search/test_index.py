import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from harvest_jax.embeddings_file import DamagedFileError, OutdatedFileError, format_of
from harvest_jax.search import index as index_file
from harvest_jax.search.index import Entry, SearchIndex


def test_an_index_of_frames_prepared_otherwise_is_built_anew(place):
    whole = place.go("red").out
    content = place.index.read_bytes()
    place.index.write_bytes(content.replace(format_of(index_file.KIND).encode(), b"harvest_jax search index 1"))
    with pytest.raises(OutdatedFileError):
        index_file.read(place.index)
    found = place.go("red")
    assert (found.out, found.embedded) == (whole, 3)
    assert f"the index {place.index} is of another version, which prepared frames differently" in found.err
    assert place.go("red").embedded == 0
    assert os.listdir(place.index.parent) == [place.index.name]  # nothing was set aside: it was no damage


def _cut(content):
    return content[: len(content) // 2]


def _flip(content):
    at = content.rindex(b"r.mp4")
    return content[:at] + b"q" + content[at + 1 :]


def _other_number(content):
    at = content.index(b"}}") + 40  # within the embeddings
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("damage", [_cut, _flip, _other_number, lambda _: b"", lambda _: b"garbage" * 50])
def test_a_damaged_index_is_built_anew(place, damage):
    whole = place.go("red").out
    damaged = damage(place.index.read_bytes())
    place.index.write_bytes(damaged)
    with pytest.raises(DamagedFileError):
        index_file.read(place.index)
    found = place.go("red")
    assert found.out == whole
    assert found.embedded == 3
    aside = place.index.with_name(place.index.name + ".damaged")
    assert f"warning: the index {place.index} cannot be used" in found.err
    assert f"is built again; the old file is now {aside}" in found.err
    assert aside.read_bytes() == damaged  # it may have been something else of the user's
    assert place.go("red").embedded == 0


def test_another_model_builds_anew(place):
    place.go("red")
    found = place.go("red", model="other")
    assert found.embedded == 3
    assert f"the index {place.index} is of another model: it is built again\n" in found.err
    assert place.go("red", model="other").embedded == 0


def test_another_version_tries_again_what_could_not_be_read(tmp_path, monkeypatch):
    good, bad = Entry(1, 2, np.ones(3, np.float32)), Entry(3, 4, None, "unsupported codec")
    index_file.write(tmp_path / "index", SearchIndex("model", {"a.mp4": good, "b.mp4": bad}))
    assert list(index_file.read(tmp_path / "index").entries) == ["a.mp4", "b.mp4"]
    monkeypatch.setattr(index_file, "__version__", "another")
    assert list(index_file.read(tmp_path / "index").entries) == ["a.mp4"]


def test_an_index_comes_back_as_it_was(tmp_path):
    rng = np.random.default_rng(0)
    entries = {
        "ä/b.mp4": Entry(5, 1_700_000_000_123_456_789, rng.normal(size=4).astype(np.float32)),
        "c\udcff\n.mp4": Entry(0, -1, None, "empty file: 0 bytes"),
        "a.mp4": Entry(6, 7, rng.normal(size=4).astype(np.float32)),
    }
    path = tmp_path / "index"
    assert index_file.read(path) is None
    index_file.write(path, SearchIndex("digest", entries))
    back = index_file.read(path)
    assert back.model == "digest"
    assert back.entries.keys() == entries.keys()
    for name, entry in entries.items():
        assert dataclasses.replace(back.entries[name], embedding=None) == dataclasses.replace(entry, embedding=None)
        if entry.embedding is not None:
            np.testing.assert_array_equal(back.entries[name].embedding, entry.embedding)
    index_file.write(path, SearchIndex("digest", {"c.mp4": Entry(0, 1, None, "empty")}))
    assert index_file.read(path).entries["c.mp4"].embedding is None
    assert os.listdir(tmp_path) == ["index"]
    path.chmod(0o644)
    index_file.write(path, SearchIndex("digest", {}))
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask  # others can read a shared one


def test_the_default_place_goes_by_the_real_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "a" / "films").mkdir(parents=True)
    (tmp_path / "b" / "films").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/films")
    monkeypatch.chdir(tmp_path / "a")
    assert index_file.default_path(Path("films")) == index_file.default_path(tmp_path / "link")
    assert index_file.default_path(Path("films")) != index_file.default_path(tmp_path / "b" / "films")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert index_file.default_path(Path("films")).parent == tmp_path / ".cache" / "harvest_jax" / "search"


def test_an_index_file_of_ones_own(place):
    mine = place.tmp / "some" / "where" / "films.index"
    assert place.go("red", "--index", str(mine)).embedded == 3
    assert place.go("red", "--index", str(mine)).embedded == 0
    assert not place.index.exists()
