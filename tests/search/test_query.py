import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from harvest_jax.errors import ConfigError
from harvest_jax.search.query import Part, parsed
from tests.helpers.colour_films import COLOURS, names, scenes


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a dog  jumps ", [Part(1.0, "a dog jumps")]),
        ("a dog - on a beach", [Part(1.0, "a dog"), Part(-1.0, "on a beach")]),
        ("- rain + 0.5*a dog", [Part(-1.0, "rain"), Part(0.5, "a dog")]),
        ("black-white film", [Part(1.0, "black-white film")]),
        ("2 * cats", [Part(2.0, "cats")]),
        ("🐕 @home", [Part(1.0, "🐕 @home")]),
        ("@ noon", [Part(1.0, "@ noon")]),
    ],
)
def test_words_and_weights(text, parts):
    assert parsed(text) == parts


def test_files_and_their_seconds():
    picture, clip = parsed("@a b.jpg + @c.mp4#t=12,20.5")
    assert (str(picture.path), picture.start, picture.end) == ("a b.jpg", None, None)
    assert (str(clip.path), clip.start, clip.end) == ("c.mp4", 12.0, 20.5)
    assert (parsed("@c.mp4#t=,3")[0].start, parsed("@c.mp4#t=,3")[0].end) == (None, 3.0)
    assert str(parsed("@c#4.mp4")[0].path) == "c#4.mp4"


@pytest.mark.parametrize("text", ["", "  ", "-", "a dog -", "a dog - + b", "0*a dog", "0.5*"])
def test_what_is_no_query(text):
    with pytest.raises(ConfigError):
        parsed(text)


def test_a_minus_takes_away(place):
    scenes(place.folder / "both.mp4", ("red", 1), ("blue", 1))
    assert names(place.go("red blue", "--top", "1")) == ["both.mp4"]
    assert names(place.go("red blue", "-", "blue", "--top", "1")) == ["r.mp4"]
    assert "the parts of the query cancel each other" in place.go("red", "-", "red", code=3).err


def test_pictures_are_found_and_asked_with(place):
    Image.fromarray(np.full((40, 60, 3), COLOURS["grey"], np.uint8)).save(place.folder / "grey.jpg")
    picture = place.tmp / "what is this.png"
    Image.fromarray(np.full((40, 60, 3), COLOURS["green"], np.uint8)).save(picture)
    assert names(place.go(f"@{picture}", "--top", "1")) == ["g.mp4"]
    found = json.loads(place.go("grey", "--top", "1", "--json").out)["results"][0]
    assert (os.path.basename(found["path"]), found["start"], found["end"]) == ("grey.jpg", 0, 0)
    long = scenes(place.tmp / "long.mp4", ("red", 2), ("blue", 2))
    assert names(place.go(f"@{long}#t=2,4", "--top", "1")) == ["b.MP4"]
    assert "no.jpg: not found" in place.go("@no.jpg", code=3).err


def test_many_queries_in_one_start(place, monkeypatch):
    queries = place.tmp / "queries.txt"
    queries.write_text("red\n\n green \n- \nblue - red\n", encoding="utf-8")
    found = place.go("--queries", str(queries), "--top", "1", "--json", code=2)
    objects = [json.loads(line) for line in found.out.splitlines()]
    assert [one["words"] for one in objects] == ["red", "green", "blue - red"]
    assert [os.path.basename(one["results"][0]["path"]) for one in objects] == ["r.mp4", "g.mp4", "b.MP4"]
    assert "nothing follows a '-'" in found.err
    plain = place.go("--queries", str(queries), "--top", "1", code=2).out.splitlines()
    assert plain[0] == "# red"


def test_a_terminal_gets_a_prompt(place, monkeypatch):
    lines = iter(["green", "", "@missing.jpg", "blue"])

    def typed(_):
        line = next(lines, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", typed)
    found = place.go("--top", "1")
    assert [os.path.basename(line.split("\t")[2]) for line in found.out.split("\n") if line] == ["g.mp4", "b.MP4"]
    assert "missing.jpg: not found" in found.err


def test_queries_of_any_length_and_letters(place):
    place.go("red")
    for words in ("x" * 10_000, "🐕🐈 " * 40, "a\x00b", "'; DROP TABLE file; --"):
        found = place.go(words)
        assert len(found.out.splitlines()) == 3
        assert found.embedded == 0
