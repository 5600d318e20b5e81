import argparse
import dataclasses
import json
import os
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

import harvest_jax
from harvest_jax import cli, load
from harvest_jax.demo.clips import write_video
from harvest_jax.model.config import HarvestConfig, Preprocessing, TextConfig, VideoConfig
from harvest_jax.model.harvest import Harvest
from harvest_jax.search import command
from harvest_jax.search import index as index_file
from harvest_jax.search import update as folder_update
from harvest_jax.search.index import DamagedIndexError, Entry, SearchIndex
from harvest_jax.weights.folder import save_model
from tests.helpers import video_files

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200), "grey": (90, 90, 90)}


def film(path, colour, frames=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.full((frames, 32, 48, 3), COLOURS[colour], np.uint8))
    return path


class ColourModel:
    """Embeds a clip as its mean colour and words as the colour they name; counts the clips."""

    num_frames = 2
    config = types.SimpleNamespace(
        video=types.SimpleNamespace(image_size=32),
        text=types.SimpleNamespace(context_length=8),
        preprocessing=types.SimpleNamespace(resize="crop"),
        to_dict=lambda: {"name": "colours"},
    )
    tokenizer = types.SimpleNamespace(encode=str.split)
    embedded = 0

    def __init__(self, folder):
        self.params = {"name": np.frombuffer(str(folder).encode(), np.uint8)}

    def encode_clips(self, clips):
        assert clips.shape[1:] == (2, 32, 32, 3)
        ColourModel.embedded += len(clips)
        return self._unit(clips.mean(axis=(1, 2, 3)))

    def encode_text(self, texts):
        return self._unit(np.array([COLOURS[text.split()[0]] for text in texts], np.float32))

    @staticmethod
    def _unit(rows):
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def save_small_model(folder, seed):
    config = HarvestConfig(
        name="small",
        video=VideoConfig(image_size=32, patch_size=16, num_frames=2, width=16, layers=1, heads=2, embed_dim=8),
        text=TextConfig(vocab_size=600, context_length=8, width=16, layers=1, heads=2, embed_dim=8),
        decoder=None,
    )
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(Harvest(config).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    save_model(folder, config, params, {"made_by": f"test {folder}"})
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch, capsys):
    """A folder of three films, a cache of its own, a model that sees colours, and `go(words, ...)`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(harvest_jax, "load", ColourModel)
    monkeypatch.setattr(ColourModel, "embedded", 0)
    folder = tmp_path / "films"
    film(folder / "r.mp4", "red")
    film(folder / "below" / "deep" / "g.mp4", "green")
    film(folder / "b.MP4", "blue")
    (folder / "notes.txt").write_text("no film")

    def go(*words, model="colours", videos=folder, code=0):
        capsys.readouterr()
        ColourModel.embedded = 0
        arguments = ["--model", str(model), "--videos", str(videos), "--workers", "1"]
        assert cli.main(["search", *arguments, *words]) == code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return types.SimpleNamespace(out=out, err=err, embedded=ColourModel.embedded)

    return types.SimpleNamespace(folder=folder, go=go, index=command.default_place(folder), tmp=tmp_path)


def names(found):
    return [os.path.basename(line.split("\t")[2]) for line in found.out.splitlines()]


def test_the_best_video_comes_first(place):
    found = place.go("green thing")
    rows = [line.split("\t") for line in found.out.splitlines()]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert rows[0][2] == str(place.folder / "below" / "deep" / "g.mp4")
    scores = [float(row[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.99
    assert scores[1] < 0.5
    assert found.err == f"index {place.index}: 3 videos (3 new)\n"
    assert names(place.go("blue", "--top", "1")) == ["b.MP4"]


def test_the_model_scores_as_it_does_elsewhere(place, monkeypatch):
    monkeypatch.setattr(harvest_jax, "load", load)  # the real one
    folder = save_small_model(place.tmp / "model", 0)
    video_files.write_video(
        place.folder / "n.mp4", video_files.numbered_frames(8, 90, 122)
    )  # one that has to be resized
    found = json.loads(place.go("a dog", "--json", model=folder).out)
    model = load(folder)
    paths = [result["path"] for result in found["results"]]
    assert sorted(map(os.path.basename, paths)) == ["b.MP4", "g.mp4", "n.mp4", "r.mp4"]
    wanted = model.encode_video(paths) @ model.encode_text(["a dog"])[0]
    np.testing.assert_allclose([result["score"] for result in found["results"]], wanted, atol=1e-6)
    assert list(wanted) == sorted(wanted, reverse=True)
    assert [result["rank"] for result in found["results"]] == [1, 2, 3, 4]


def test_nothing_is_embedded_twice(place, monkeypatch):
    assert place.go("red").embedded == 3
    before = place.index.stat()
    monkeypatch.setattr(folder_update, "VideoDecoder", None)  # nobody may start it
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


def test_another_model_builds_anew(place):
    place.go("red")
    found = place.go("red", model="other")
    assert found.embedded == 3
    assert f"the index {place.index} is of another model: it is built anew\n" in found.err
    assert place.go("red", model="other").embedded == 0


def test_an_index_of_frames_prepared_otherwise_is_built_anew(place):
    whole = place.go("red").out
    content = place.index.read_bytes()
    place.index.write_bytes(content.replace(index_file.FORMAT.encode(), b"harvest_jax search index 1"))
    with pytest.raises(index_file.OutdatedIndexError):
        index_file.read(place.index)
    found = place.go("red")
    assert (found.out, found.embedded) == (whole, 3)
    assert f"the index {place.index} is of another version, which showed frames" in found.err
    assert place.go("red").embedded == 0
    assert os.listdir(place.index.parent) == [place.index.name]  # nothing was set aside: it was no damage


def test_the_digest_is_of_the_weights_not_of_the_folder(tmp_path):
    models = [load(save_small_model(tmp_path / name, seed)) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    digests = [command.model_digest(model) for model in models]
    assert digests[0] == digests[1] != digests[2]
    other = types.SimpleNamespace(
        params=models[0].params, config=dataclasses.replace(models[0].config, name="another name")
    )
    assert command.model_digest(other) != digests[0]
    for changed in (Preprocessing(resize="squash"), Preprocessing(mean=(0.5, 0.5, 0.5))):
        other.config = dataclasses.replace(models[0].config, preprocessing=changed)
        assert command.model_digest(other) != digests[0]


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
    with pytest.raises(DamagedIndexError):
        index_file.read(place.index)
    found = place.go("red")
    assert found.out == whole
    assert found.embedded == 3
    aside = place.index.with_name(place.index.name + ".damaged")
    assert f"warning: the index {place.index} cannot be used" in found.err
    assert f"is built anew; the old file is now {aside}" in found.err
    assert aside.read_bytes() == damaged  # it may have been something else of the user's
    assert place.go("red").embedded == 0


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
    for reason, embedded in (("cannot be opened: Permission denied", 1), ("damaged: its header is cut off", 0)):
        index.entries["r.mp4"] = Entry(entry.size, entry.mtime_ns, None, reason)
        index_file.write(place.index, index)
        assert place.go("red").embedded == embedded


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
    monkeypatch.setattr(command, "write", lambda path, index: (sizes.append(len(index.entries)), write(path, index)))
    place.go("red")
    assert sizes[:3] == [1, 2, 3]


def test_an_index_that_cannot_be_written_stops_no_search(place, monkeypatch):
    def full(path, index):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(command, "write", full)
    found = place.go("red")
    assert names(found)[0] == "r.mp4"
    assert "warning: the index is not kept" in found.err
    assert "No space left on device" in found.err


def test_the_folder_is_left_as_it_was(place):
    before = sorted(place.folder.rglob("*"))
    place.go("red")
    assert sorted(place.folder.rglob("*")) == before
    assert place.index.parent == place.tmp / "cache" / "harvest_jax" / "search"
    assert place.index.name.startswith("films-")


def test_the_default_place_goes_by_the_real_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "a" / "films").mkdir(parents=True)
    (tmp_path / "b" / "films").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/films")
    monkeypatch.chdir(tmp_path / "a")
    assert command.default_place(Path("films")) == command.default_place(tmp_path / "link")
    assert command.default_place(Path("films")) != command.default_place(tmp_path / "b" / "films")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command.default_place(Path("films")).parent == tmp_path / ".cache" / "harvest_jax" / "search"


def test_an_index_file_of_ones_own(place):
    mine = place.tmp / "some" / "where" / "films.index"
    assert place.go("red", "--index", str(mine)).embedded == 3
    assert place.go("red", "--index", str(mine)).embedded == 0
    assert not place.index.exists()


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
    assert "passed by: 3 links to folders or out of this one (elsewhere, out.mp4, round)" in place.go("red").err


def test_odd_names_stay_on_one_line_and_exact_in_json(place):
    odd = ["new\nline\ttab.mp4", "esc\x1b[31m.mp4", os.fsdecode(b"latin\xe9.mp4"), "[bold]ünï.mp4", " space .mp4"]
    for number, name in enumerate(odd):
        film(place.folder / name, "red", frames=3 + number)
    found = place.go("red", "--top", "6")
    assert len(found.out.splitlines()) == 6
    assert {"new\\nline\\ttab.mp4", "esc\\x1b[31m.mp4", "latin\\udce9.mp4", "[bold]ünï.mp4", " space .mp4"} < set(
        names(found)
    )
    listed = json.loads(place.go("red", "--top", "6", "--json").out)["results"]
    assert {os.path.basename(result["path"]) for result in listed} == {*odd, "r.mp4"}
    assert all(os.path.exists(result["path"]) for result in listed)


def test_on_a_terminal_it_is_a_table(place, monkeypatch):
    film(place.folder / "[red] film.mp4", "red")
    place.go("red")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")  # no colours
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    lines = place.go("red").out.splitlines()
    assert lines[0].split() == ["rank", "score", "video"]
    assert "[red] film.mp4" in lines[1]
    assert len(lines) == 5


def test_words_too_long_are_said_to_be_cut(place):
    found = place.go("red", *["very"] * 6)
    assert "only the beginning of these words is used: the model reads 8 tokens" in found.err
    assert "only the beginning" not in place.go("red", *["very"] * 5).err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ({"words": " "}, 2, "there are no words to search for"),
        ({"words": ""}, 2, "there are no words to search for"),
        ({"top": "0"}, 2, "--top 0: at least 1"),
        ({"workers": "0"}, 2, "--workers 0: at least 1"),
        ({"videos": "missing"}, 3, "missing is not a folder"),
        ({"videos": "films/r.mp4"}, 3, "r.mp4 is not a folder"),
        ({"videos": "empty"}, 3, "no videos in"),
        ({"videos": "broken"}, 3, "none of the 1 videos in"),
        ({"index": "films"}, 2, "is a folder: name a file"),
        ({"index": "films/r.mp4"}, 2, "named like a video"),
        ({"index": "films/r.mp4/index"}, 1, "r.mp4"),
    ],
)
def test_mistakes_get_one_line(place, monkeypatch, arguments, code, message):
    (place.tmp / "empty").mkdir()
    (place.tmp / "broken").mkdir()
    (place.tmp / "broken" / "x.mp4").write_text("no film")
    monkeypatch.chdir(place.tmp)
    words = arguments.pop("words", "red")
    videos = Path(arguments.pop("videos", "films"))
    options = [word for name, value in arguments.items() for word in (f"--{name}", value)]
    found = place.go(words, *options, videos=videos, code=code)
    assert found.out == ""
    last = found.err.splitlines()[-1]
    assert last.startswith("harvest search: ")
    assert message in last
    if "broken" not in str(videos):
        assert len(found.err.splitlines()) == 1


def test_a_missing_model_gets_one_line(place, monkeypatch):
    monkeypatch.setattr(harvest_jax, "load", load)
    found = place.go("red", model=place.tmp / "nothing", code=3)
    assert found.err == f"harvest search: {place.tmp / 'nothing'} is not a model folder: it holds no config.json\n"


def test_equal_scores_come_in_the_order_of_their_names():
    row = np.array([1.0, 0.0], np.float32)
    index = SearchIndex("m", {name: Entry(1, 1, row) for name in ("c.mp4", "a.mp4", "b.mp4")})
    index.entries["0.mp4"] = Entry(1, 1, np.array([0.0, 1.0], np.float32))
    index.entries["bad.mp4"] = Entry(1, 1, None, "damaged")
    found = command.rank(index, row, Path("films"), 10)
    assert [(result.rank, result.path) for result in found] == [
        (1, "films/a.mp4"),
        (2, "films/b.mp4"),
        (3, "films/c.mp4"),
        (4, "films/0.mp4"),
    ]
    assert len(command.rank(index, row, Path("films"), 2)) == 2


def test_the_help_says_where_the_index_lies():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_arguments(parser)
    text = parser.format_help()
    assert "~/.cache/harvest_jax/search" in text
    assert max(map(len, text.splitlines())) <= 120
