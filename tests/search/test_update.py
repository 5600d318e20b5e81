import json
import os

from harvest_jax.search import index as index_file
from harvest_jax.search import update as folder_update
from harvest_jax.search.index import Entry
from tests.helpers.colour_films import ColourModel, film, names


def test_nothing_is_embedded_twice(place, monkeypatch):
    assert place.go("red").embedded == 3
    before = place.index.stat()
    monkeypatch.setattr(folder_update, "VideoDecoder", None)  # starting it would fail
    again = place.go("blue")
    assert again.embedded == 0
    assert names(again)[0] == "b.MP4"
    assert again.err == f"index {place.index}: 3 videos\n"
    assert place.index.stat().st_mtime_ns == before.st_mtime_ns


def test_what_is_new_changed_or_gone_is_noticed(place):
    place.go("red")
    (place.folder / "b.MP4").unlink()
    film(place.folder / "below" / "new.mp4", "grey")
    film(place.folder / "r.mp4", "green", frames=6)
    found = place.go("green")
    assert found.embedded == 2
    assert found.err == f"index {place.index}: 3 videos (1 new, 1 changed, 1 gone)\n"
    assert set(names(found)[:2]) == {"r.mp4", "g.mp4"}
    assert names(found)[2] == "new.mp4"
    (place.folder / "r.mp4").unlink()
    gone = place.go("green")  # nothing to embed, but the index has to be written
    assert gone.err == f"index {place.index}: 2 videos (1 gone)\n"
    assert set(index_file.read(place.index).entries) == {"below/deep/g.mp4", "below/new.mp4"}


def test_a_file_of_the_same_size_and_a_new_time_is_read_again(place):
    place.go("red")
    path = place.folder / "r.mp4"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert place.go("red").embedded == 1


def test_unreadable_videos_are_said_once_and_stop_nothing(place):
    (place.folder / "text.mp4").write_text("no film")
    (place.folder / "cut.mp4").write_bytes((place.folder / "r.mp4").read_bytes()[:300])
    (place.folder / "old.wmv").write_bytes(b"\x30\x26\xb2\x75" * 50)
    found = place.go("red")
    assert len(found.out.splitlines()) == 3
    lines = found.err.splitlines()
    assert [line.split(": ")[:3] for line in lines[:3]] == [
        ["cannot be read", str(place.folder / "cut.mp4"), "damaged"],
        ["cannot be read", str(place.folder / "old.wmv"), "not a video"],
        ["cannot be read", str(place.folder / "text.mp4"), "not a video"],
    ]
    assert lines[3:] == [f"index {place.index}: 6 videos (6 new, 3 not readable)"]

    again = place.go("red", "--json")
    assert again.err == f"index {place.index}: 6 videos (3 not readable)\n"
    listed = json.loads(again.out)["unreadable"]
    assert [os.path.basename(entry["path"]) for entry in listed] == ["cut.mp4", "old.wmv", "text.mp4"]
    assert listed[2]["reason"].startswith("not a video")

    film(place.folder / "text.mp4", "red")
    mended = place.go("red", "--top", "4")
    assert mended.embedded == 1
    assert set(names(mended)[:2]) == {"r.mp4", "text.mp4"}
    assert "cannot be read" not in mended.err


def test_what_could_not_be_opened_is_tried_each_time(place):
    place.go("red")
    index = index_file.read(place.index)
    entry = index.entries["r.mp4"]
    passing = ("cannot be opened: Permission denied", "timeout: more than 60 s of processor time", "crash: signal 9")
    for reason, embedded in (*((reason, 1) for reason in passing), ("damaged: its header is cut off", 0)):
        index.entries["r.mp4"] = Entry(entry.size, entry.mtime_ns, None, reason)
        index_file.write(place.index, index)
        assert place.go("red").embedded == embedded


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
    assert set(index_file.read(place.index).entries) == {"b.MP4", "below/deep/g.mp4"}
    assert place.go("red").embedded == 1


def test_a_long_search_saves_on_the_way(place, monkeypatch):
    monkeypatch.setattr(folder_update, "BATCH", 1)
    monkeypatch.setattr(folder_update, "SAVE_EVERY", -1.0)
    sizes = []
    write = index_file.write
    monkeypatch.setattr(index_file, "write", lambda path, index: (sizes.append(len(index.entries)), write(path, index)))
    place.go("red")
    assert sizes[:3] == [1, 2, 3]


def test_an_index_that_cannot_be_saved_stops_no_search(place, monkeypatch):
    (place.tmp / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.tmp / "file"))
    for _ in range(2):  # nothing was kept
        found = place.go("red")
        assert found.embedded == 3
        assert names(found)[0] == "r.mp4"
        assert "warning: the index cannot be saved" in found.err
        assert "Not a directory" in found.err


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
    found = folder_update.find_videos(place.folder)
    assert list(found.videos) == ["alias.mp4", "b.MP4", "below/deep/g.mp4", "r.mp4"]
    assert found.links == ["elsewhere", "out.mp4", "round"]
    assert "skipped: 3 links to folders or out of this folder (elsewhere, out.mp4, round)" in place.go("red").err


def test_what_is_no_video_by_its_name_is_counted_and_listed(place):
    for name in ("notes.txt", "old.rm", "older.RM", "README", ".hidden.rm"):
        (place.folder / name).write_text("no film")
    shown = "README, notes.txt, old.rm, older.RM"
    line = f"skipped: 4 files that are no videos by their names (2 x .rm, 1 x no ending, 1 x .txt): {shown}"
    assert place.go("red").err.splitlines()[0] == line
    assert json.loads(place.go("red", "--json").out)["skipped"] == {"": 1, ".txt": 1, ".rm": 2}


def test_names_that_are_no_utf_8_are_searched_too(place):
    odd = os.fsdecode(b"Jos\xe9.mp4")
    (place.folder / "r.mp4").rename(place.folder / odd)
    (place.folder / "b.MP4").rename(place.folder / " back\\slash.mp4")
    found = place.go("red")
    assert names(found)[0] == "Jos\\udce9.mp4"
    assert place.go("red").embedded == 0
    assert os.path.basename(json.loads(place.go("red", "--json").out)["results"][0]["path"]) == odd
    assert names(place.go("blue"))[0] == " back\\slash.mp4"
