import sys
import threading
import time

import pytest

from harvest_jax.errors import ConfigError
from harvest_jax.search import watch
from tests.helpers.colour_films import film, names


def test_the_index_follows_the_folder(place, monkeypatch):
    def rounds(folder):
        film(place.folder / "new.mp4", "red", frames=9)
        yield
        (place.folder / "r.mp4").unlink()
        yield

    monkeypatch.setattr(watch, "changes", rounds)
    found = place.go("red", "--watch", "--top", "1")
    assert names(found) == ["r.mp4", "new.mp4", "new.mp4"] or names(found) == ["r.mp4", "r.mp4", "new.mp4"]
    assert found.embedded == 4
    assert [line.partition("windows")[2] for line in found.err.splitlines()] == [" (3 new)", " (1 new)", " (1 gone)"]


def test_a_folder_may_be_empty_at_first(place, monkeypatch):
    empty = place.tmp / "empty"
    empty.mkdir()

    def rounds(folder):
        film(empty / "a.mp4", "red")
        yield

    monkeypatch.setattr(watch, "changes", rounds)
    found = place.go("red", "--watch", videos=empty)
    assert f"no videos in {empty} or below it" in found.err
    assert "1 files, 1 windows (1 new)" in found.err
    assert names(found) == ["a.mp4"]


def test_changes_are_seen(tmp_path, monkeypatch):
    pytest.importorskip("watchfiles", reason="extra `search`")
    monkeypatch.setattr(watch, "QUIET_MS", 100)
    seen = threading.Event()

    def wait():
        for _ in watch.changes(tmp_path):
            seen.set()
            return

    threading.Thread(target=wait, daemon=True).start()
    for number in range(100):
        (tmp_path / "notes.txt").write_text(str(number))
        assert number > 5 or not seen.is_set()  # of no interest
        if number > 5:
            (tmp_path / "a.mp4").write_text(str(number))
        if seen.wait(0.1):
            return
        time.sleep(0.02)
    raise AssertionError("no change was seen")


def test_without_the_library_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ConfigError, match=r"pip install 'harvest_jax\[search\]'"):
        next(watch.changes(tmp_path))
