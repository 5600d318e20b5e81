"""The command as a process: it says where it is, ends by signals with the statuses of all commands, and by mistakes."""

import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
import time

import pytest

import harvest_jax
from harvest_jax import cli
from harvest_jax.serve import command
from tests.helpers.colour_films import ColourModel, film
from tests.helpers.model_folders import save_random_model
from tests.helpers.processes import is_running, running, wait_until
from tests.helpers.train_command import HARVEST, environment

PORT = re.compile(r"http://127\.0\.0\.1:(\d+)/")


def start(folder, cache, *options, **variables):
    """A server as a process, on a free port."""
    arguments = ["--model", str(folder / "model"), "--videos", str(folder / "films"), "--port", "0", *options]
    variables |= {"XDG_CACHE_HOME": str(cache)}
    return running([*HARVEST, "serve", *arguments], stderr=subprocess.PIPE, env=environment() | variables)


def port_of(process):
    for line in process.stderr:
        if found := PORT.search(line):
            return int(found[1])
    raise AssertionError("it did not start")


def get(port, path, **headers):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def children(pid):
    return subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model of random parameters and two films."""
    folder = tmp_path_factory.mktemp("place")
    save_random_model(folder / "model")
    film(folder / "films" / "r.mp4", "red", frames=16)
    film(folder / "films" / "g.mp4", "green", frames=16)
    return folder


def test_it_answers_and_sigterm_ends_it_with_143_and_without_its_children(place, tmp_path):
    with start(place, tmp_path, HARVEST_TOKEN="a-token-of-the-test") as process:
        port = port_of(process)
        bearer = {"Authorization": "Bearer a-token-of-the-test"}
        assert get(port, "/api/progress")[0] == 401
        wait_until(lambda: json.loads(get(port, "/api/progress", **bearer)[1])["state"] == "ready")
        status, answer = get(port, "/api/search?q=anything", **bearer)
        found = json.loads(answer)
        assert (status, len(found["results"])) == (200, 2)
        assert get(port, found["results"][0]["poster"], **bearer)[0] == 200
        begun = children(process.pid)
        assert begun  # a decoding process
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert process.wait(60) == 143
        assert said.splitlines()[-1] == "harvest serve: stopped by SIGTERM"
        assert "Traceback" not in said
        assert not any(is_running(pid) for pid in begun)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
@pytest.mark.slow
def test_other_signals_while_it_embeds(place, tmp_path, number, status):
    """The stream of an open connection is given up, too; the next start finds a whole index."""
    with start(place, tmp_path) as process:
        port = port_of(process)
        hanging = http.client.HTTPConnection("127.0.0.1", port)
        hanging.request("POST", "/api/search", headers={"Content-Length": "1000"})
        process.send_signal(number)
        began = time.monotonic()
        said = process.stderr.read()
        assert process.wait(60) == status
        assert time.monotonic() - began < 60
        assert "Traceback" not in said
        hanging.close()
    with start(place, tmp_path) as process:
        port = port_of(process)
        wait_until(lambda: json.loads(get(port, "/api/progress")[1])["state"] == "ready")
        assert json.loads(get(port, "/api/progress")[1])["files"] == 2


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--port", "99999999"], 2, "--port 99999999: must be from 0 to 65535"),
        (["--port", "-1"], 2, "--port -1: must be from 0"),
        (["--host", "192.0.2.1"], 2, "cannot listen on 192.0.2.1"),
        (["--workers", "0"], 2, "--workers 0: at least 1"),
        (["--max_upload", "0"], 2, "--max_upload 0: at least 1"),
        (["--window", "0"], 2, "a window of 0 s"),
        (["--videos", "/nowhere/films"], 3, "/nowhere/films is not a folder"),
    ],
)
def test_mistakes_get_one_line(place, tmp_path, monkeypatch, capsys, options, code, words):
    monkeypatch.setattr(harvest_jax, "load", ColourModel)
    arguments = ["--model", "model", "--videos", str(place / "films"), "--port", "0", *options]
    assert cli.main(["serve", *arguments]) == code
    said = capsys.readouterr().err
    assert said.startswith("harvest serve: ")
    assert words in said
    assert said.count("\n") == 1


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(place, monkeypatch, capsys):
    monkeypatch.setattr(harvest_jax, "load", lambda folder: pytest.fail("loaded"))
    with command._listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["serve", "--model", "model", "--videos", str(place / "films"), "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize(("token", "words"), [("short", "at least 16"), ("a token with spaces in it", "no space")])
def test_a_token_that_is_none_is_refused(place, monkeypatch, capsys, token, words):
    monkeypatch.setenv("HARVEST_TOKEN", token)
    assert cli.main(["serve", "--model", "model", "--videos", str(place / "films")]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert token not in said


def test_on_another_address_there_is_always_a_token(monkeypatch):
    monkeypatch.delenv("HARVEST_TOKEN", raising=False)
    assert command._token("127.0.0.1") == command._token("localhost") == command._token("::1") == ""
    first, second = command._token("0.0.0.0"), command._token("192.168.1.7")
    assert len(first) > 30
    assert first != second
    monkeypatch.setenv("HARVEST_TOKEN", "a-token-of-the-test")
    assert command._token("127.0.0.1") == command._token("0.0.0.0") == "a-token-of-the-test"


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["serve", "--model", "model", "--videos", "films"]) == 2
    assert capsys.readouterr().err == ("harvest serve: uvicorn is not installed: pip install 'harvest_jax[serve]'\n")
