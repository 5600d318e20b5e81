"""Who may ask, for what, and how much a request may send."""

import re
import socket
import time

import pytest
from starlette.testclient import TestClient

from harvest_jax.serve import guard
from tests.helpers.served_films import MAX_BODY, app_of, on_a_socket

TOKEN = "correct horse battery".replace(" ", "-")


@pytest.fixture(scope="module")
def locked(films, tmp_path_factory):
    """The application with a token, as with --host 0.0.0.0 --name films.lan."""
    index = tmp_path_factory.mktemp("index") / "index"
    with (
        app_of(films, index, TOKEN, names=("films.lan",), loopback=False) as served,
        TestClient(served.app, "http://films.lan:8017", follow_redirects=False) as client,
    ):
        yield client


@pytest.fixture
def client(served):
    return served.client


@pytest.mark.parametrize("host", ["127.0.0.1:8017", "localhost", "LOCALHOST:9", "[::1]:8017", "127.8.8.8"])
def test_this_machine_by_its_names(client, host):
    assert client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:8017", "10.0.0.1", "", "[", "a b", "127.0.0.1@evil"]
)
def test_another_host_is_refused(client, host):
    for path in ("/", "/healthz", "/api/search?q=red"):
        answer = client.get(path, headers={"host": host})
        assert answer.status_code == 421
        assert "films" not in answer.text


def test_a_server_on_a_network_is_asked_by_address_or_name(locked):
    assert locked.get("/healthz", headers={"host": "192.168.1.7:8017"}).status_code == 200
    assert locked.get("/healthz", headers={"host": "films.lan"}).status_code == 200
    assert locked.get("/healthz", headers={"host": "other.lan"}).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9000", "http://127.0.0.1", "x"])
def test_a_page_of_another_origin_is_refused(client, origin):
    for method, path in (("GET", "/api/search?q=red"), ("POST", "/api/refresh"), ("POST", "/api/embed")):
        assert client.request(method, path, headers={"origin": origin}).status_code == 403
    assert client.post("/api/refresh", headers={"origin": "http://127.0.0.1:8017"}).status_code == 202


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_may_link_to_the_page_and_nothing_else(client, site):
    (found,) = client.get("/api/search?q=red&top=1").json()["results"]
    from_there = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
    assert client.get(found["video"], headers=from_there).status_code == 403
    assert client.post("/api/refresh", headers=from_there | {"sec-fetch-mode": "navigate"}).status_code == 403
    assert client.get("/", headers=from_there | {"sec-fetch-mode": "navigate"}).status_code == 200
    assert client.get(found["video"], headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_every_answer_forbids_what_the_page_does_not_need(client):
    (found,) = client.get("/api/search?q=red&top=1").json()["results"]
    for path in ("/", "/nothing", "/static/page.js", "/api/openapi.json", found["video"], found["poster"]):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == guard.POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert not re.search(r"https?:|\*|unsafe", guard.POLICY)


def test_without_the_token_nothing_is_said(locked):
    for path in (
        "/",
        "/results?q=red",
        "/api/search?q=red",
        "/api/progress",
        "/api",
        "/video/x",
        "/poster/x",
        "/nothing",
    ):
        answer = locked.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json() == {"error": "a token is required: Authorization: Bearer TOKEN"}
    assert locked.post("/api/embed", json={"texts": ["red"]}).status_code == 401
    assert locked.get("/healthz").json() == {"status": "ok"}
    led = locked.get("/", headers={"accept": "text/html"})
    assert (led.status_code, led.headers["location"]) == (303, "/login")


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer ", "Bearer wrong-wrong-wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \xff"],
)
def test_a_wrong_token_is_refused(locked, header):
    assert locked.get("/api/progress", headers={"authorization": header.encode("latin-1")}).status_code == 401


def test_the_token_opens(locked):
    for kind in ("Bearer", "bearer"):
        assert locked.get("/api/progress", headers={"authorization": f"{kind} {TOKEN}"}).status_code == 200


def test_the_form_for_the_token_gives_a_cookie_that_is_not_the_token(locked):
    form = locked.get("/login")
    assert (form.status_code, "password" in form.text) == (200, True)
    for given in (locked.post("/login", data={"token": "wrong"}), locked.get("/login?token=wrong")):
        assert given.status_code == 401
        assert "set-cookie" not in given.headers
    for given in (locked.post("/login", data={"token": TOKEN}), locked.get(f"/login?token={TOKEN}")):
        assert (given.status_code, given.headers["location"]) == (303, "/")
        cookie = given.headers["set-cookie"]
        assert TOKEN not in cookie
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        value = cookie.split(";")[0]
        locked.cookies.clear()
        assert locked.get("/api/progress", headers={"cookie": value}).status_code == 200
        assert locked.get("/api/progress", headers={"cookie": value[:-1]}).status_code == 401
    assert locked.get("/api/progress", headers={"cookie": f"harvest_serve={TOKEN}"}).status_code == 401


def test_a_body_that_says_it_is_too_large_is_refused_at_once(client):
    answer = client.post("/api/search", content=b"x" * (MAX_BODY + 1))
    assert answer.status_code == 413
    assert answer.json() == {"error": "too large: more than 2,000,000 bytes"}
    assert client.post("/api/search", content=b"", headers={"content-length": "-5"}).status_code == 413


def test_a_body_that_does_not_say_how_large_it_is_is_cut_off(client):
    def endless():
        head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield head
        for _ in range(100):
            yield b"x" * 100_000

    kind = {"content-type": "multipart/form-data; boundary=x"}
    for path in ("/api/search", "/api/embed", "/results"):
        assert client.post(path, content=endless(), headers=kind).status_code == 413
    assert client.post("/api/embed", content=endless(), headers={"content-type": "application/json"}).status_code == 413


def test_a_body_that_takes_too_long_is_cut_off(served, monkeypatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.3)
    with on_a_socket(served.app) as address, socket.create_connection(address) as slow:
        head = "POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        slow.sendall(f"{head}Content-Length: 1000\r\n\r\n--x".encode())
        began = time.monotonic()
        answer = slow.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "path",
    [
        "/video/../../etc/passwd",
        "/video/..%2f..%2fetc%2fpasswd",
        "/video/%2fetc%2fpasswd",
        "/video/r.mp4",
        "/video/below%2Fdeep%2Fg.mp4",
        "/poster/..%2f..%2fetc%2fpasswd",
        "/static/../command.py",
        "/static/..%2fcommand.py",
        "/static/page.html.j2",
        "//etc/passwd",
        "/video/\x00",
    ],
)
def test_a_path_leads_nowhere(served, path):
    """As they are, on a socket: a client would tidy them."""
    with on_a_socket(served.app) as address, socket.create_connection(address) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := raw.recv(65536):
            answer += data
    assert answer.split()[1] in (b"404", b"400")
    assert b"root:" not in answer
