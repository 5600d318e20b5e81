import json
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from harvest_jax.errors import ConfigError
from harvest_jax.files import locked
from harvest_jax.search import index as index_file
from harvest_jax.search import writer as index_writer
from harvest_jax.search.index import File, content_of
from harvest_jax.search.writer import BusyError, open_writer
from tests.helpers.colour_films import film, names, scenes

MADE_BY = {"model": "m" * 64, "windows": {"seconds": 8}}


def unit(count, seed=0, width=6):
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def add(writer, name, count, seed=0):
    spans = np.stack([np.arange(count), np.arange(count) + 1.0], axis=1).astype(np.float64)
    number = writer.add(f"content of {name!a}", spans, unit(count, seed), "" if count else "damaged: cut off")
    writer.name(name, File(5, 1_700_000_000_123_456_789, 6, 7, number))


def way(place):
    (folder,) = [entry for entry in place.index.iterdir() if entry.is_dir() and not entry.name.endswith(".damaged")]
    return folder


def test_an_index_comes_back_as_it_was(tmp_path):
    path = tmp_path / "index"
    odd = ["ä/b.mp4", "c\udcff\n.mp4", "-'\"; a.mp4"]
    with open_writer(path, MADE_BY) as writer:
        for number, name in enumerate(odd):
            add(writer, name, number, number)
        writer.commit()
    back = index_file.open_index(path, MADE_BY)
    assert sorted(back.files) == sorted(odd)
    assert back.unreadable() == [("ä/b.mp4", "damaged: cut off")]
    for number, name in enumerate(odd):
        clip = back.clips[back.files[name].clip]
        assert clip.spans.tolist() == [[step, step + 1] for step in range(number)]
        rows = back.rows.exact[clip.first : clip.first + number]
        assert rows.dtype == np.float16
        np.testing.assert_allclose(rows, unit(number, number), atol=5e-4)
    assert isinstance(back.rows.exact, np.memmap)
    assert back.owners().tolist() == [2, 3, 3]
    with pytest.raises(ConfigError, match="there is no index of this model"):
        index_file.open_index(path, {**MADE_BY, "windows": {"seconds": 4}})


def test_one_process_writes_and_others_read(tmp_path):
    path = tmp_path / "index"
    with open_writer(path, MADE_BY) as writer:
        add(writer, "a.mp4", 2)
        writer.commit()
        with pytest.raises(BusyError, match="another process"), open_writer(path, MADE_BY):
            pass
        assert list(index_file.open_index(path, MADE_BY).files) == ["a.mp4"]
        add(writer, "b.mp4", 2)
        assert list(index_file.open_index(path, MADE_BY).files) == ["a.mp4"]
    assert not (path / "lock").exists()


def test_what_leaves_is_compacted_and_readers_keep_what_they_have(tmp_path):
    path = tmp_path / "index"
    with open_writer(path, MADE_BY) as writer:
        for number in range(6):
            add(writer, f"{number}.mp4", 10, number)
        writer.commit()
        reader = index_file.open_index(path, MADE_BY)
        writer.forget([f"{number}.mp4" for number in range(4)])
        writer.tidy()
        assert len(writer.index().rows) == 20
    np.testing.assert_allclose(reader.rows.exact[:10], unit(10, 0), atol=5e-4)
    back = index_file.open_index(path, MADE_BY)
    assert len(back.rows) == 20
    for number in (4, 5):
        first = back.clips[back.files[f"{number}.mp4"].clip].first
        np.testing.assert_allclose(back.rows.exact[first : first + 10], unit(10, number), atol=5e-4)
    assert sorted(file.name for file in index_file.folder_of(path, MADE_BY).iterdir()) == [
        "index.sqlite", "rows-1.f16", "rows-1.i8", "rows-1.scales",
    ]  # fmt: skip


def test_rows_without_their_clip_are_overwritten(tmp_path):
    path = tmp_path / "index"
    with open_writer(path, MADE_BY) as writer:
        add(writer, "a.mp4", 3)
        writer.commit()
        add(writer, "b.mp4", 50)  # killed here: no commit
    with open_writer(path, MADE_BY) as writer:
        assert list(writer.files) == ["a.mp4"]
        add(writer, "c.mp4", 2, 9)
        writer.commit()
    back = index_file.open_index(path, MADE_BY)
    np.testing.assert_allclose(back.rows.exact[3:5], unit(2, 9), atol=5e-4)
    assert (index_file.folder_of(path, MADE_BY) / "rows-0.f16").stat().st_size == 5 * 6 * 2


def test_a_killed_compaction_leaves_the_old_rows(tmp_path, monkeypatch):
    path = tmp_path / "index"
    with open_writer(path, MADE_BY) as writer:
        for number in range(4):
            add(writer, f"{number}.mp4", 10, number)
        writer.commit()

    def killed(*_):
        raise KeyboardInterrupt

    with open_writer(path, MADE_BY) as writer:
        writer.forget(["0.mp4", "1.mp4"])
        with monkeypatch.context() as patch:
            patch.setattr(index_writer.RowFiles, "sync", killed)
            with pytest.raises(KeyboardInterrupt):
                writer.tidy()
    back = index_file.open_index(path, MADE_BY)
    assert list(back.files) == ["2.mp4", "3.mp4"]
    first = back.clips[back.files["3.mp4"].clip].first
    np.testing.assert_allclose(back.rows.exact[first : first + 10], unit(10, 3), atol=5e-4)


def _no_database(folder):
    (folder / "index.sqlite").write_bytes(b"garbage" * 500)


def _empty_database(folder):
    (folder / "index.sqlite").write_bytes(b"")


def _cut_database(folder):
    content = (folder / "index.sqlite").read_bytes()
    (folder / "index.sqlite").write_bytes(content[: len(content) // 2])


def _cut_rows(folder):
    with (folder / "rows-0.f16").open("r+b") as file:
        file.truncate(5)


def _flipped_row(folder):
    content = bytearray((folder / "rows-0.f16").read_bytes())
    content[1] ^= 1
    (folder / "rows-0.f16").write_bytes(content)


def _missing_rows(folder):
    (folder / "rows-0.i8").unlink()


@pytest.mark.parametrize(
    "damage", [_no_database, _empty_database, _cut_database, _cut_rows, _flipped_row, _missing_rows]
)
def test_a_damaged_index_is_built_again(place, damage):
    whole = place.go("red").out
    damage(way(place))
    found = place.go("red")
    assert found.out == whole
    assert found.embedded == (1 if damage is _flipped_row else 3)
    assert damage is _empty_database or "warning: " in found.err
    if damage not in (_empty_database, _flipped_row):
        assert f"is built again; the old one is now {way(place)}.damaged" in found.err
        assert Path(f"{way(place)}.damaged").is_dir()
    assert place.go("red").embedded == 0


def test_each_model_has_its_own(place):
    place.go("red")
    assert place.go("red", model="other").embedded == 3
    assert place.go("red").embedded == 0
    assert place.go("red", model="other").embedded == 0


def test_an_index_of_another_method_is_replaced_when_the_new_one_is_whole(place, monkeypatch):
    whole = place.go("red").out
    old = way(place)
    method = index_file.METHOD + 1
    for module in (index_file, index_writer):
        monkeypatch.setattr(module, "METHOD", method)
    with monkeypatch.context() as patch:
        patch.setattr(index_writer.IndexWriter, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        place.go("red", code=130)
    assert old.is_dir()
    found = place.go("red")
    assert (found.out, found.embedded) == (whole, 3)
    assert f"the index {old} is of an earlier version: it is built again" in found.err
    assert not old.exists()
    assert place.go("red").err.count("\n") == 1


@pytest.mark.parametrize("asked", [True, False])
def test_the_file_of_version_0_1_0_is_replaced(place, asked):
    old = place.tmp / "films.index" if asked else Path(f"{place.index}.safetensors")
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_bytes(b"\x10\0\0\0\0\0\0\0{'format': 'harvest_jax search index 2'}")
    options = ["--index", str(old)] if asked else []
    found = place.go("red", *options)
    assert f"the index {old} is of an earlier version" in found.err
    assert old.is_dir() if asked else not old.exists()
    again = place.go("red", *options)
    assert (again.embedded, again.out) == (0, found.out)
    assert "earlier version" not in again.err


def test_what_another_version_could_not_read_is_tried_again(place, monkeypatch):
    (place.folder / "text.mp4").write_text("no film")
    assert "text.mp4" in place.go("red").err
    assert "text.mp4" not in place.go("red").err
    monkeypatch.setattr(index_writer, "__version__", "another")
    assert "text.mp4" in place.go("red").err


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


def test_an_index_of_ones_own_and_searching_it_alone(place):
    mine = str(place.tmp / "some" / "where" / "films.index")
    assert "there is no index" in place.go("red", "--index", mine, "--no_update", code=2).err
    whole = place.go("red", "--index", mine)
    assert whole.embedded == 3
    film(place.folder / "new.mp4", "red")
    alone = place.go("red", "--index", mine, "--no_update")
    assert (alone.embedded, alone.out) == (0, whole.out)
    assert not place.index.exists()
    with locked(Path(mine) / "lock", wait=False):
        assert "is being brought up to date by another process" in place.go("red", "--index", mine, code=1).err
        assert place.go("red", "--index", mine, "--no_update").out == whole.out


def test_content_is_known_by_blocks_all_over_the_file(tmp_path):
    path = tmp_path / "a"
    content = bytearray(np.random.default_rng(0).bytes(1_000_000))
    path.write_bytes(content)
    before = content_of(str(path))
    for at in (0, 999_999):
        changed = bytearray(content)
        changed[at] ^= 1
        path.write_bytes(changed)
        assert content_of(str(path)) != before
    path.write_bytes(content[:-1])
    assert content_of(str(path)) != before
    for size in (0, 1, 4096, 60_000):  # of a small one every byte counts
        path.write_bytes(content[:size])
        small = content_of(str(path))
        for at in range(0, size, 1001):
            changed = bytearray(content[:size])
            changed[at] ^= 1
            path.write_bytes(changed)
            assert content_of(str(path)) != small


def test_many_files_are_one_small_database(tmp_path):
    with open_writer(tmp_path / "index", MADE_BY) as writer:
        number = writer.add("c", np.zeros((1, 2)), unit(1), "")
        for name in range(3000):
            writer.name(f"{name:06d}.mp4", File(1, 2, 3, 4, number))
        writer.commit()
    assert len(index_file.open_index(tmp_path / "index", MADE_BY).files) == 3000
    with sqlite3.connect(index_file.folder_of(tmp_path / "index", MADE_BY) / "index.sqlite") as base:
        assert json.loads(base.execute("SELECT value FROM meta WHERE key = 'made_by'").fetchone()[0])["windows"]
    base.close()


def test_a_moved_file_in_a_long_film_costs_nothing(place):
    scenes(place.folder / "long.mp4", ("grey", 10), ("red", 10))
    place.go("red")
    os.makedirs(place.folder / "new place")
    os.rename(place.folder / "long.mp4", place.folder / "new place" / "other.mp4")
    found = place.go("red", "--group", "file")
    assert found.embedded == 0
    assert "(1 new, 1 moved or copied, 1 gone)" in found.err
    assert "other.mp4" in names(found)
    assert "long.mp4" not in names(found)
