"""On a socket: browsers that go away, and many requests at once."""

import contextlib
import os
import socket

import pytest

from benchmarks import serve_load
from tests.helpers.colour_films import film
from tests.helpers.processes import wait_until
from tests.helpers.served_films import app_of, on_a_socket, open_files


@pytest.fixture
def address(tmp_path):
    """(host, port) of a server over two films, one of 200 MB."""
    film(tmp_path / "films" / "g.mp4", "green")
    film(tmp_path / "films" / "r.mp4", "red")
    with app_of(tmp_path / "films", tmp_path / "index") as served, on_a_socket(served.app) as address:
        os.truncate(tmp_path / "films" / "r.mp4", 200_000_000)  # it has grown since it was indexed
        yield address


def ask(address, path, headers=""):
    connection = socket.create_connection(address)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
    return connection


def test_browsers_that_go_away_during_a_stream_leave_nothing(address, capfd):
    url = serve_load.first_result(address, "red")["video"]
    before = open_files()
    for number in range(20):
        with ask(address, url, "Range: bytes=5000-\r\n" if number % 2 else "") as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 20")
            if number % 4 == 0:  # a reset instead of an end
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: open_files() <= before, 60)
    assert serve_load.first_result(address, "green")["path"] == "g.mp4"
    assert "Traceback" not in "".join(capfd.readouterr())


def test_browsers_that_go_away_before_the_answer_leave_nothing(address, capfd):
    poster = serve_load.first_result(address, "green")["poster"].partition("?")[0]
    before = open_files()
    for number in range(30):
        with ask(address, f"{poster}?end=0.{number + 1:02}" if number % 2 else f"/api/search?q=red+{number}"):
            pass
    wait_until(lambda: open_files() <= before + 4, 60)  # two decoding processes may have begun
    assert serve_load.first_result(address, "green")["path"] == "g.mp4"
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_file_cut_off_while_it_is_sent_ends_the_connection(address, tmp_path, capfd):
    url = serve_load.first_result(address, "red")["video"]
    with ask(address, url) as connection:
        connection.recv(1000)
        os.truncate(tmp_path / "films" / "r.mp4", 2000)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(1 << 20):
                pass
    assert serve_load.first_result(address, "green")["path"] == "g.mp4"
    assert "Traceback" not in "".join(capfd.readouterr())


def test_200_requests_at_once_are_all_answered(address):
    """The short form; with a real model for a minute, and the memory: python -m benchmarks.serve_load."""
    load = serve_load.load(address, at_once=200, seconds=2.0, words=["red", "green", "blue"])
    assert load.answered >= 200
    assert load.failed == 0
