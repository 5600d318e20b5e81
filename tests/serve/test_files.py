"""Files of the folder: parts of them, and files that change, disappear or are replaced after they were indexed."""

import io
import os
import shutil
import types

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.helpers.colour_films import film
from tests.helpers.served_films import app_of


@pytest.fixture
def mine(tmp_path):
    """A folder of a test's own, with a file beside it that nobody may read; `url(path)`."""
    folder = tmp_path / "films"
    film(folder / "r.mp4", "red", frames=8)
    film(folder / "below" / "g.mp4", "green")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "g.mp4").write_bytes(b"secret")
    with app_of(folder, tmp_path / "index") as served, TestClient(served.app, "http://127.0.0.1") as client:
        results = client.get("/api/search?q=red").json()["results"]
        yield types.SimpleNamespace(
            folder=folder,
            beside=tmp_path,
            client=client,
            video={result["path"]: result["video"] for result in results},
            poster={result["path"]: result["poster"] for result in results},
        )


def test_a_file_whole_and_in_parts(client, films):
    (found,) = client.get("/api/search?q=red&top=1").json()["results"]
    content = (films / "r.mp4").read_bytes()
    whole = client.get(found["video"])
    assert whole.content == content
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    part = client.get(found["video"], headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(content)}"
    assert client.get(found["video"], headers={"range": "bytes=-5"}).content == content[-5:]
    assert client.get(found["video"], headers={"range": f"bytes={len(content)}-"}).status_code == 416
    assert client.head(found["video"]).headers["content-length"] == str(len(content))
    stale = {"range": "bytes=0-3", "if-range": '"other"'}
    assert client.get(found["video"], headers=stale).content == content


def test_a_poster_is_a_picture_of_the_moment_and_is_asked_for_once(client):
    (found,) = client.get("/api/search?q=red&top=1").json()["results"]
    answer = client.get(found["poster"])
    assert answer.headers["content-type"] == "image/jpeg"
    red, green, _ = Image.open(io.BytesIO(answer.content)).convert("RGB").resize((1, 1)).getpixel((0, 0))
    assert red > 150 > 60 > green
    again = client.get(found["poster"], headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(found["video"].replace("video", "poster") + "?start=0.2&end=0.4").status_code == 200


@pytest.mark.parametrize("query", ["?start=-1", "?start=nan", "?start=x", "?end=-1", "?start=5&end=2", "?start=99999"])
def test_a_span_that_is_none_has_no_poster(client, query):
    (found,) = client.get("/api/search?q=red&top=1").json()["results"]
    answer = client.get(found["poster"].partition("?")[0] + query)
    assert answer.status_code in (400, 422)
    assert list(answer.json()) == ["error"]


def test_a_file_that_is_gone_is_404(mine):
    (mine.folder / "r.mp4").unlink()
    for url in (mine.video["r.mp4"], mine.poster["r.mp4"]):
        answer = mine.client.get(url)
        assert answer.status_code == 404
        assert str(mine.folder) not in answer.text


def test_a_file_replaced_by_a_link_out_of_the_folder_is_404(mine):
    (mine.folder / "r.mp4").unlink()
    (mine.folder / "r.mp4").symlink_to("../secret.mp4")
    shutil.rmtree(mine.folder / "below")
    (mine.folder / "below").symlink_to("../other")
    for url in (*mine.video.values(), *mine.poster.values()):
        answer = mine.client.get(url)
        assert answer.status_code == 404
        assert "secret" not in answer.text


def test_a_link_within_the_folder_is_followed(mine):
    content = (mine.folder / "r.mp4").read_bytes()
    (mine.folder / "r.mp4").rename(mine.folder / "moved")
    (mine.folder / "r.mp4").symlink_to("moved")
    assert mine.client.get(mine.video["r.mp4"]).content == content


def test_a_file_replaced_by_a_pipe_or_a_folder_is_404(mine):
    (mine.folder / "r.mp4").unlink()
    os.mkfifo(mine.folder / "r.mp4")
    (mine.folder / "below" / "g.mp4").unlink()
    (mine.folder / "below" / "g.mp4").mkdir()
    for url in (*mine.video.values(), *mine.poster.values()):
        assert mine.client.get(url).status_code == 404


def test_a_file_that_is_broken_since_has_no_poster_and_is_still_sent(mine):
    (mine.folder / "r.mp4").write_bytes(b"no film")
    assert mine.client.get(mine.poster["r.mp4"]).status_code == 422
    assert mine.client.get(mine.video["r.mp4"]).content == b"no film"


def test_a_file_that_grows_is_sent_as_it_was_when_asked_for(mine):
    url = mine.video["r.mp4"]
    before = (mine.folder / "r.mp4").read_bytes()
    with (mine.folder / "r.mp4").open("ab") as file:
        file.write(b"more")
    assert mine.client.get(url).content == before + b"more"
