import json
import os

from harvest_jax.search import folder as folder_module
from harvest_jax.search import update as folder_update
from harvest_jax.search import writer as index_writer
from tests.helpers.colour_films import ColourModel, film, names, scenes


def test_nothing_is_embedded_twice(place, monkeypatch):
    assert place.go("red").embedded == 3
    files = [path for path in place.index.rglob("*") if path.is_file()]
    before = [(path, path.stat().st_mtime_ns) for path in files]
    monkeypatch.setattr(folder_update, "WindowDecoder", None)  # starting it would fail
    again = place.go("blue")
    assert again.embedded == 0
    assert names(again)[0] == "b.MP4"
    assert again.err == f"index {place.index}: 3 files, 3 windows\n"
    assert [(path, path.stat().st_mtime_ns) for path in files] == before


def test_what_is_new_changed_or_gone_is_noticed(place):
    place.go("red")
    (place.folder / "b.MP4").unlink()
    film(place.folder / "below" / "new.mp4", "grey")
    film(place.folder / "r.mp4", "green", frames=6)
    found = place.go("green")
    assert found.embedded == 2
    assert found.err == f"index {place.index}: 3 files, 3 windows (1 new, 1 changed, 1 gone)\n"
    assert set(names(found)[:2]) == {"r.mp4", "g.mp4"}
    assert names(found)[2] == "new.mp4"
    (place.folder / "r.mp4").unlink()
    gone = place.go("green")  # nothing to embed, but the index has to be written
    assert gone.err == f"index {place.index}: 2 files, 2 windows (1 gone)\n"
    assert set(place.opened().files) == {"below/deep/g.mp4", "below/new.mp4"}


def test_a_file_with_another_time_and_the_same_content_is_not_embedded_again(place):
    place.go("red")
    path = place.folder / "r.mp4"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    found = place.go("red")
    assert found.embedded == 0
    assert "1 changed, 1 moved or copied" in found.err
    assert place.go("red").err.count("changed") == 0


def test_a_file_that_was_replaced_by_one_of_equal_size_and_time_is_noticed(place):
    path = place.folder / "r.mp4"
    other = film(place.tmp / "other.mp4", "green", frames=5)
    size = max(path.stat().st_size, other.stat().st_size)
    for file in (path, other):  # what follows an MP4's last box is ignored
        file.write_bytes(file.read_bytes().ljust(size, b"\0"))
    os.utime(path, ns=(1, 1_700_000_000 * 10**9))
    place.go("red")
    os.utime(other, ns=(1, 1_700_000_000 * 10**9))
    os.replace(other, path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (size, 1_700_000_000 * 10**9)
    found = place.go("green", "--top", "2")
    assert found.embedded == 1
    assert "1 changed" in found.err
    path.chmod(0o600)  # the system notes a change, and the content is the same
    assert place.go("green").embedded == 0


def test_copies_are_embedded_once(place):
    for name in ("copy.mp4", "deep/copy.mp4"):
        (place.folder / name).parent.mkdir(exist_ok=True)
        (place.folder / name).write_bytes((place.folder / "r.mp4").read_bytes())
    found = place.go("red", "--json")
    assert found.embedded == 3
    first = json.loads(found.out)["results"][0]
    assert [os.path.relpath(path, place.folder) for path in (first["path"], *first["copies"])] == [
        "copy.mp4", "deep/copy.mp4", "r.mp4",
    ]  # fmt: skip


def test_unreadable_videos_are_said_once_and_stop_nothing(place):
    (place.folder / "text.mp4").write_text("no film")
    (place.folder / "cut.mp4").write_bytes((place.folder / "r.mp4").read_bytes()[:300])
    (place.folder / "old.wmv").write_bytes(b"\x30\x26\xb2\x75" * 50)
    found = place.go("red")
    assert len(found.out.splitlines()) == 3
    lines = found.err.splitlines()
    assert sorted(line.split(": ")[:3] for line in lines[:3]) == [
        ["cannot be read", str(place.folder / "cut.mp4"), "damaged"],
        ["cannot be read", str(place.folder / "old.wmv"), "not a video"],
        ["cannot be read", str(place.folder / "text.mp4"), "not a video"],
    ]
    assert lines[3:] == [f"index {place.index}: 6 files, 3 windows (6 new, 3 not readable)"]

    again = place.go("red", "--json")
    assert again.err == f"index {place.index}: 6 files, 3 windows (3 not readable)\n"
    listed = json.loads(again.out)["unreadable"]
    assert [os.path.basename(entry["path"]) for entry in listed] == ["cut.mp4", "old.wmv", "text.mp4"]
    assert listed[2]["reason"].startswith("not a video")

    film(place.folder / "text.mp4", "red", frames=6)
    mended = place.go("red", "--top", "4")
    assert mended.embedded == 1
    assert set(names(mended)[:2]) == {"r.mp4", "text.mp4"}
    assert "cannot be read" not in mended.err


def test_what_could_not_be_opened_is_tried_each_time(place, monkeypatch):
    (place.folder / "text.mp4").write_text("no film")
    ends = folder_update.WindowDecoder.decode_all
    passing = ("cannot be opened: Permission denied", "timeout: more than 60 s of processor time", "crash: signal 9")
    for reason in passing:
        with monkeypatch.context() as patch:
            patch.setattr(
                folder_update.WindowDecoder,
                "decode_all",
                lambda self, paths, reason=reason: (
                    item._replace(reason=reason) if item.reason else item for item in ends(self, paths)
                ),
            )
            assert f"text.mp4: {reason}" in place.go("red").err
    assert "text.mp4: not a video" in place.go("red").err
    assert "text.mp4" not in place.go("red").err


def test_windows_of_several_files_fill_the_batches(place, monkeypatch):
    scenes(place.folder / "long.mp4", ("grey", 30), ("red", 30))
    sizes = []
    embed = ColourModel.encode_clips
    monkeypatch.setattr(ColourModel, "encode_clips", lambda self, clips: sizes.append(len(clips)) or embed(self, clips))
    place.go("red", "--window", "2")
    assert sizes == [16, 16, 16, 14]


def test_an_interrupted_search_keeps_what_it_has(place, monkeypatch):
    monkeypatch.setattr(folder_update, "BATCH", 2)
    embed = ColourModel.encode_clips

    def interrupted(self, clips):
        if ColourModel.embedded:
            raise KeyboardInterrupt
        return embed(self, clips)

    with monkeypatch.context() as patch:
        patch.setattr(ColourModel, "encode_clips", interrupted)
        found = place.go("red", code=130)
    assert "interrupted" in found.err
    assert len(place.opened().files) == 2
    assert place.go("red").embedded == 1


def test_a_file_that_grows_while_it_is_read_is_not_kept(place, monkeypatch):
    embed = ColourModel.encode_clips

    def grown(self, clips):
        with (place.folder / "r.mp4").open("ab") as file:
            file.write(b"\0" * 8)
        return embed(self, clips)

    with monkeypatch.context() as patch:
        patch.setattr(ColourModel, "encode_clips", grown)
        found = place.go("red")
    assert "r.mp4: changed while it was read" in found.err
    assert "r.mp4" not in place.opened().files
    assert place.go("red").embedded == 1


def test_a_file_that_disappears_while_others_are_read_stops_nothing(place, monkeypatch):
    find = folder_module.find_media

    def found_and_gone(folder):
        found = find(folder)
        (place.folder / "r.mp4").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(folder_module, "find_media", found_and_gone)
    found = place.go("red")
    assert len(found.out.splitlines()) == 2


def test_an_index_that_cannot_be_saved_stops_no_search(place, monkeypatch):
    (place.tmp / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.tmp / "file"))
    for _ in range(2):  # nothing was kept
        found = place.go("red")
        assert found.embedded == 3
        assert names(found)[0] == "r.mp4"
        assert "warning: the index cannot be saved" in found.err
        assert "Not a directory" in found.err


def test_a_full_disk_stops_no_search_and_keeps_what_was_written(place, monkeypatch):
    place.go("red")
    film(place.folder / "new.mp4", "red", frames=9)
    write = index_writer.RowFiles.write

    def full(self, first, rows):
        write(self, first, rows)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(index_writer.RowFiles, "write", full)
        found = place.go("red", "--top", "4")
        assert set(names(found)[:2]) == {"r.mp4", "new.mp4"}
        assert "warning: the index cannot be saved" in found.err
        assert "No space left on device" in found.err
    assert set(place.opened().files) == {"r.mp4", "b.MP4", "below/deep/g.mp4"}
    assert place.go("red").embedded == 1


def test_the_folder_is_left_as_it_was(place):
    before = sorted(place.folder.rglob("*"))
    place.go("red")
    assert sorted(place.folder.rglob("*")) == before
    assert place.index.parent == place.tmp / "cache" / "harvest_jax" / "search"
    assert place.index.name.startswith("films-")


def test_links_do_not_lead_out_and_hidden_files_are_left_alone(place):
    outside = film(place.tmp / "outside" / "o.mp4", "red")
    (place.folder / "out.mp4").symlink_to(outside)
    (place.folder / "alias.mp4").symlink_to("r.mp4")
    (place.folder / "dangling.mp4").symlink_to("nowhere.mp4")
    (place.folder / "round").symlink_to(place.folder)
    (place.folder / "elsewhere").symlink_to(outside.parent)
    film(place.folder / ".trash" / "t.mp4", "red")
    film(place.folder / "._r.mp4", "red")
    (place.folder / "folder.mp4").mkdir()
    os.mkfifo(place.folder / "pipe.mp4")
    found = folder_module.find_media(place.folder)
    assert list(found.files) == ["alias.mp4", "b.MP4", "below/deep/g.mp4", "r.mp4"]
    assert found.links == ["elsewhere", "out.mp4", "round"]
    assert "skipped: 3 links to folders or out of this folder (elsewhere, out.mp4, round)" in place.go("red").err
