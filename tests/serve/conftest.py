import types

import pytest
from starlette.testclient import TestClient

from tests.helpers.colour_films import film
from tests.helpers.served_films import app_of

BASE = "http://127.0.0.1:8017"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    film(folder / "r.mp4", "red", frames=8)
    film(folder / "below" / "deep" / "g.mp4", "green")
    film(folder / "b.MP4", "blue")
    return folder


@pytest.fixture(scope="module")
def served(films, tmp_path_factory):
    """The application over three films; `client` asks it."""
    with (
        app_of(films, tmp_path_factory.mktemp("index") / "index") as served,
        TestClient(served.app, BASE, follow_redirects=False) as client,
    ):
        yield types.SimpleNamespace(**vars(served), client=client)


@pytest.fixture
def client(served):
    return served.client
