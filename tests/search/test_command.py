import argparse
import json
import os
import sys
from pathlib import Path

import pytest

import harvest_jax
from harvest_jax import load
from harvest_jax.search import command
from tests.helpers.colour_films import film, names


def test_odd_names_stay_on_one_line_and_exact_in_json(place):
    odd = ["new\nline\ttab.mp4", "esc\x1b[31m.mp4", os.fsdecode(b"latin\xe9.mp4"), "[bold]ünï.mp4", " space .mp4"]
    for number, name in enumerate(odd):
        film(place.folder / name, "red", frames=5 + number)
    found = place.go("red", "--top", "6")
    assert len(found.out.splitlines()) == 6
    assert {"new\\nline\\ttab.mp4", "esc\\x1b[31m.mp4", "latin\\udce9.mp4", "[bold]ünï.mp4", " space .mp4"} < set(
        names(found)
    )
    listed = json.loads(place.go("red", "--top", "6", "--json").out)["results"]
    assert {os.path.basename(result["path"]) for result in listed} == {*odd, "r.mp4"}
    assert all(os.path.exists(result["path"]) for result in listed)


def test_on_a_terminal_it_is_a_table(place, monkeypatch):
    film(place.folder / "[red] film.mp4", "red", frames=5)
    (place.folder / "copy.mp4").write_bytes((place.folder / "b.MP4").read_bytes())
    place.go("red")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")  # no colours
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    lines = place.go("red").out.splitlines()
    assert lines[0].split() == ["rank", "score", "z", "start", "end", "file"]
    assert "0:00.0     0:00.6" in lines[1]
    assert "[red] film.mp4" in lines[1]
    assert len(lines) == 5
    assert sum(line.endswith("b.MP4  (and 1 copies)") for line in lines) == 1


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
        ({"videos": "broken"}, 3, "none of the 1 files in"),
        ({"index": "films"}, 2, "is a folder that holds something else: name a new one"),
        ({"index": "films/notes.txt"}, 2, "is a file, and not an index of an earlier version"),
        ({"window": "0"}, 2, "a window of 0 s is outside"),
        ({"stride": "9"}, 2, "a stride of 9 s is outside"),
        ({"time_limit": "0"}, 2, "--time_limit 0: must be above 0"),
        ({"queries": "missing.txt", "words": None}, 2, "missing.txt is not a file"),
        ({"queries": "films/notes.txt"}, 2, "give a query or --queries, not both"),
        ({"below": ".."}, 2, "--below .. is not within films"),
        ({"index": "films/r.mp4"}, 2, "named like a video"),
        ({"index": "films/r.mp4/index"}, 1, "r.mp4"),
    ],
)
def test_mistakes_get_one_line(place, monkeypatch, arguments, code, message):
    (place.tmp / "empty").mkdir()
    (place.tmp / "broken").mkdir()
    (place.tmp / "broken" / "x.mp4").write_text("no film")
    monkeypatch.chdir(place.tmp)
    words = [word for word in [arguments.pop("words", "red")] if word is not None]
    videos = Path(arguments.pop("videos", "films"))
    options = [word for name, value in arguments.items() for word in (f"--{name}", value)]
    found = place.go(*words, *options, videos=videos, code=code)
    assert found.out == ""
    last = found.err.splitlines()[-1]
    assert last.startswith("harvest search: ")
    assert message in last
    if "broken" not in str(videos) and "--below" not in options:
        assert len(found.err.splitlines()) == 1


def test_a_date_is_one(place, capsys):
    with pytest.raises(SystemExit):
        place.go("red", "--after", "yesterday")
    assert "expected a date like 2024-05-31, got 'yesterday'" in capsys.readouterr().err
    assert "for the filters leave no file" in place.go("red", "--before", "1990-01-01").err
    assert len(place.go("red", "--after", "1990-01-01T12:00").out.splitlines()) == 3
    assert names(place.go("red", "--below", "below")) == ["g.mp4"]


def test_a_missing_model_gets_one_line(place, monkeypatch):
    monkeypatch.setattr(harvest_jax, "load", load)
    found = place.go("red", model=place.tmp / "nothing", code=3)
    assert found.err == f"harvest search: {place.tmp / 'nothing'} does not exist\n"


def test_the_help_says_where_the_index_lies():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_arguments(parser)
    text = parser.format_help()
    assert "~/.cache/harvest_jax/search" in text
    assert max(map(len, text.splitlines())) <= 120
