"""What is found by words, by a moment, by a picture, by a clip; and what is not taken."""

import html
import io
import os
import re

import jsonschema
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from data_pipeline.decode.window_rule import WindowRule
from harvest_jax.serve import openapi
from tests.helpers.colour_films import COLOURS, film, scenes
from tests.helpers.processes import wait_until
from tests.helpers.served_films import app_of


def paths(answer):
    assert answer.status_code == 200, answer.text
    schema = {"$ref": "#/components/schemas/Found", "components": openapi.DESCRIPTION["components"]}
    jsonschema.validate(answer.json(), schema)
    return [result["path"] for result in answer.json()["results"]]


def picture(colour):
    content = io.BytesIO()
    Image.new("RGB", (60, 40), COLOURS[colour]).save(content, "PNG")
    return content.getvalue()


def search(client, **fields):
    return client.get("/api/search", params=fields)


def test_words_find_the_film(client):
    answer = search(client, q="green thing")
    assert paths(answer)[0] == "below/deep/g.mp4"
    first, *others = answer.json()["results"]
    assert (first["rank"], first["start"], first["end"]) == (1, 0, 0.5)
    assert first["score"] > 0.99 > 0.5 > max(other["score"] for other in others)
    assert paths(search(client, q="blue", top=1)) == ["b.MP4"]


def test_words_that_should_not_be_in_it(client):
    assert paths(search(client, q="grey", minus="red"))[-1] == "r.mp4"
    assert paths(search(client, q="grey - red"))[-1] == "r.mp4"
    assert search(client, q="red", minus="red").status_code == 400


def test_more_like_a_moment_that_was_found(client):
    (found,) = search(client, q="blue", top=1).json()["results"]
    assert paths(search(client, like=found["id"]))[0] == "b.MP4"
    file = found["id"].partition("@")[0]
    for like in ("0123456789abcdef0123@0,1", file, f"{file}@", f"{file}@x,y", f"{file}@90,99", f"{file}@nan,nan", "@,"):
        gone = search(client, like=like)
        assert (gone.status_code, list(gone.json())) == (404, ["error"])


def test_a_picture_and_a_clip_are_questions(client, tmp_path):
    files = {"file": ("a.png", picture("blue"))}
    assert paths(client.post("/api/search", files=files))[0] == "b.MP4"
    clip = film(tmp_path / "q.mp4", "green").read_bytes()
    assert paths(client.post("/api/search", files={"file": ("q", clip)}, data={"top": "1"})) == ["below/deep/g.mp4"]
    page = client.post("/results", files={"file": ("a.png", picture("red"))}).text
    assert page.index("r.mp4") < page.index("g.mp4")


def test_filters(client):
    assert paths(search(client, q="red", folder="below")) == ["below/deep/g.mp4"]
    assert paths(search(client, q="red", folder="/below/deep/")) == ["below/deep/g.mp4"]
    assert paths(search(client, q="red", folder="belo")) == []
    assert paths(search(client, q="red", group="file", max_duration="0.7")) == ["b.MP4", "below/deep/g.mp4"]
    assert paths(search(client, q="red", min_duration="0.7")) == ["r.mp4"]
    assert paths(search(client, q="red", after="2001-01-01", top=1)) == ["r.mp4"]
    assert paths(search(client, q="red", before="2001-01-01T10:00")) == []
    best, second, _ = search(client, q="red").json()["results"]
    assert paths(search(client, q="red", min_score=(best["z"] + second["z"]) / 2)) == ["r.mp4"]
    page = client.get("/", params={"q": "red", "min_score": "1000", "after": "2001-01-01"}).text
    assert "Nothing fits with a z of 1000.0 or more" in page
    assert 'value="2001-01-01"' in page
    assert "Nothing fits" in client.get("/results", params={"q": "red", "folder": "belo"}).text


def test_a_moment_in_a_long_file_is_found_at_its_second(tmp_path):
    scenes(tmp_path / "films" / "long.mp4", ("grey", 6), ("red", 3), ("grey", 6))
    rule = WindowRule(2.0, 1.0)
    with (
        app_of(tmp_path / "films", tmp_path / "index", rule=rule) as served,
        TestClient(served.app, "http://127.0.0.1") as client,
    ):
        first = search(client, q="red").json()["results"][0]
        assert (first["start"], first["end"]) == (6, 9)
        poster = Image.open(io.BytesIO(client.get(first["poster"]).content)).convert("RGB")
        assert poster.getpixel((5, 5))[0] > 150
        assert paths(search(client, like=first["id"], group="file")) == ["long.mp4"]
        assert search(client, like=first["id"]).json()["results"][0]["start"] == 6
        page = client.get("/", params={"q": "red"}).text
        assert "0:06–0:09" in page
        assert 'data-start="6.0"' in page


def test_the_page_shows_the_results_of_its_address(client):
    empty = client.get("/")
    assert empty.status_code == 200
    assert 'class="card tile"' not in empty.text
    page = client.get("/", params={"q": "red"}).text
    assert page.index("r.mp4") < page.index("g.mp4")
    assert page.count('class="card tile"') == 3
    assert not re.search(r"""(?:src|href|action)=["'](?!/|#|data:,)""", page), "an address of another machine"
    assert "style=" not in page, "the content security policy forbids it"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "nothing to look for"),
        ({"q": ""}, "nothing to look for"),
        ({"q": " \n "}, "nothing to look for"),
        ({"q": "x" * 10_001}, "q has 10,001 letters"),
        ({"q": "red", "top": "0"}, "top must be a number from 1 to 200"),
        ({"q": "red", "top": "1e9"}, "top must be a number"),
        ({"q": "red", "top": "many"}, "top must be a number"),
        ({"q": "red", "min_score": "nan"}, "min_score must be a number"),
        ({"q": "red", "min_duration": "-1"}, "min_duration must be a number"),
        ({"q": "red", "group": "all"}, "group must be moment or file"),
        ({"q": "red", "after": "soon"}, "after must be a date"),
        ({"q": "red -"}, "nothing follows a '-'"),
        ({"q": "0*red"}, "a weight of 0"),
        ({"q": "red - red"}, "cancel each other"),
        ({"q": "@/etc/passwd"}, "a file cannot be named here"),
        ({"q": "red + 0.5*@r.mp4#t=0,1"}, "a file cannot be named here"),
    ],
)
def test_bad_questions_get_one_line(client, fields, words):
    answer = search(client, **fields)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    if fields.get("q", "").strip():
        assert client.get("/", params=fields).status_code == 400
        assert words in html.unescape(client.get("/results", params=fields).text)


@pytest.mark.parametrize(
    "words", ["👩‍🚀🎈" * 50, "x" * 10_000, "a " * 5_000, "\x00\x1b[31m", "<script>alert(1)</script>", "红色"]
)
def test_odd_words_are_words(client, words):
    assert len(paths(client.post("/api/search", data={"q": words}))) == 3
    page = client.post("/", data={"q": words}).text
    assert "<script>alert" not in page


def test_words_too_long_are_said_to_be_cut(client):
    assert search(client, q="red " * 6).json()["notes"] == []
    assert "reads 8 tokens" in search(client, q="red " * 7).json()["notes"][0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"GIF89a", ""),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, ""),
        (b"#EXTM3U\nfile:///etc/passwd\n", ""),
        (b"no picture" * 1000, ""),
    ],
)
def test_a_file_that_is_no_picture_is_422(client, content, reason):
    for path in ("/api/search", "/api/embed"):
        answer = client.post(path, files={"file": ("a.jpg", content)})
        assert answer.status_code == 422
        assert answer.json()["error"].startswith(f"The file cannot be used: {reason}")
        assert "/tmp" not in answer.text
    assert "The file cannot be used" in client.post("/results", files={"file": ("a.jpg", content)}).text


def test_forms_that_are_none(client):
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/api/search", content=b"no form", headers=kind).status_code == 400
    assert client.post("/api/search", content=b"", headers={"content-type": "multipart/form-data"}).status_code == 400
    many = [("file", (f"{number}.png", b"x")) for number in range(3)]
    assert client.post("/api/search", files=many).status_code == 400
    assert client.post("/api/search", data={f"f{number}": "" for number in range(40)}).status_code == 400
    assert client.post("/results", content=b"no form", headers=kind).status_code == 400


def test_embeddings_are_the_models(client, served):
    answer = client.post("/api/embed", json={"texts": ["red", "green", "no colour"]})
    schema = {"$ref": "#/components/schemas/Embeddings", "components": openapi.DESCRIPTION["components"]}
    jsonschema.validate(answer.json(), schema)
    assert answer.json()["model"] == served.model.digest
    rows = np.array(answer.json()["embeddings"], np.float32)
    np.testing.assert_array_equal(rows, served.model.encode_text(["red", "green", "grey"]))
    files = [("file", ("r.png", picture("red"))), ("file", ("b.png", picture("blue")))]
    rows = np.array(client.post("/api/embed", files=files).json()["embeddings"])
    np.testing.assert_allclose(rows, served.model.encode_text(["red", "blue"]), atol=0.02)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"texts": "red"}',
        b'{"texts": []}',
        b'{"texts": [1]}',
        b"[" * 100_000,
        b"\xff",
        b'{"texts": [""',
    ],
)
def test_bad_texts_get_one_line(client, body):
    answer = client.post("/api/embed", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


def test_too_many_texts_and_no_file(client):
    assert client.post("/api/embed", json={"texts": ["a"] * 257}).status_code == 400
    form = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/api/embed", content=b"--x--\r\n", headers=form).status_code == 400


def test_hostile_names_are_escaped(tmp_path):
    odd = ["new\nline.mp4", "<img src=x onerror=alert(1)>.mp4", "'\"&.mp4", "-rf.mp4", "esc\x1b[31m.mp4", "ünï 猫.mp4"]
    odd += [os.fsdecode(b"latin\xe9.mp4")]
    for number, name in enumerate(odd):
        film(tmp_path / "films" / "<b>below" / name, "red", frames=3 + number)
    with app_of(tmp_path / "films", tmp_path / "index") as served, TestClient(served.app, "http://127.0.0.1") as client:
        assert set(paths(search(client, q="red"))) == {f"<b>below/{name}" for name in odd}
        page = client.get("/", params={"q": "red"}).text
        assert "<img src=x" not in page
        assert "<b>" not in page
        assert html.escape("latin\\udce9.mp4") in page
        assert "new\\nline.mp4" in page
        for result in search(client, q="red").json()["results"]:
            assert client.get(result["video"]).content == (served.folder / result["path"]).read_bytes()
            assert client.get(result["poster"]).headers["content-type"] == "image/jpeg"


def test_the_description_names_every_route_of_the_api(client, served):
    described = client.get("/api/openapi.json").json()
    routes = {route.path: route.methods - {"HEAD"} for route in served.routes}
    assert described["paths"].keys() <= routes.keys()
    wanted = {path for path in routes if path.startswith("/api/")} - {"/api/openapi.json"}
    assert wanted <= described["paths"].keys()
    for path, methods in described["paths"].items():
        assert {method.upper() for method in methods} == routes[path]
        assert path in html.unescape(client.get("/api").text)


def test_progress_is_described_and_refresh_finds_new_files(tmp_path):
    film(tmp_path / "films" / "r.mp4", "red")
    (tmp_path / "films" / "broken.mp4").write_bytes(b"no film")
    with app_of(tmp_path / "films", tmp_path / "index") as served, TestClient(served.app, "http://127.0.0.1") as client:
        schema = {"$ref": "#/components/schemas/Progress", "components": openapi.DESCRIPTION["components"]}
        now = client.get("/api/progress").json()
        jsonschema.validate(now, schema)
        assert (now["state"], now["files"], now["unreadable"]) == ("ready", 1, 1)
        film(tmp_path / "films" / "g.mp4", "green")
        (tmp_path / "films" / "r.mp4").unlink()
        assert client.post("/api/refresh").status_code == 202
        wait_until(lambda: paths(search(client, q="green")) == ["g.mp4"])


def test_a_folder_that_is_gone_is_said_and_the_rest_still_found(tmp_path):
    film(tmp_path / "films" / "r.mp4", "red")
    with app_of(tmp_path / "films", tmp_path / "index") as served, TestClient(served.app, "http://127.0.0.1") as client:
        (tmp_path / "films").rename(tmp_path / "away")
        client.post("/api/refresh")
        wait_until(lambda: client.get("/api/progress").json()["state"] == "failed")
        assert "is not a folder" in client.get("/api/progress").json()["problem"]
        (found,) = search(client, q="red").json()["results"]
        assert client.get(found["video"]).status_code == 404
        assert client.get(found["poster"]).status_code == 404
