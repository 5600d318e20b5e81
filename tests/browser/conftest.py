"""`harvest serve` as a process, with the packaged image model and generated clips, and a Chromium that asks it."""

import os
import re
import shutil
import subprocess
import types
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from harvest_jax.demo.image_clip import SHIPPED
from harvest_jax.demo.world import random_scene, render_clip
from harvest_jax.encode import write_video
from tests.helpers.processes import running, wait_until
from tests.helpers.train_command import HARVEST, ROOT, environment

SHOTS = ROOT / "build" / "browser"  # to look at
LONG = ("green bar", "blue heart", "red triangle", "yellow bar")  # eight seconds each
SECONDS = 8
WAIT = 120_000  # milliseconds for what takes a moment on a machine that is not busy


def chromium() -> str:
    """The program; Playwright's own is a download from another site."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.exit("make browser: no Chromium: apt-get install chromium, or name one: CHROMIUM=/path", returncode=1)
    return found


def frames_of(words, seed=0):
    """Two seconds of a scene, as pixels large enough to look at."""
    color, shape = words.split()
    clip = render_clip(random_scene(np.random.default_rng(seed), color, shape, "grows"))
    return clip.repeat(3, axis=1).repeat(3, axis=2)


def wait_for(page, expression):
    """Poll until it is true. Playwright's own `wait_for_function` needs eval, which the page's policy forbids."""
    wait_until(lambda: page.evaluate(expression), WAIT / 1000)


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """A film of four scenes and, in a folder below, films of one, one of them with a name that is code."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "short <b>films").mkdir()
    long = [frames_of(words, seed) for words in LONG for seed in range(SECONDS // 2)]
    write_video(folder / "long.mp4", np.concatenate(long))
    for number, words in enumerate(("green heart", "blue bar", "yellow triangle", "red bar", "green triangle")):
        write_video(folder / "short <b>films" / f"{words} <img src=x>.mp4", frames_of(words, 10 + number))
    return folder


@pytest.fixture(scope="session")
def address(films, tmp_path_factory):
    """Where the page is, once all is embedded."""
    options = ["--model", str(SHIPPED), "--videos", str(films), "--port", "0", "--window", "2", "--stride", "1"]
    variables = environment() | {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
    with running([*HARVEST, "serve", *options], stderr=subprocess.PIPE, env=variables) as process:
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield found[0]
                return
        pytest.fail("harvest serve did not start")


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """`visit(path, ...)` opens a page; at the end nothing may have failed, and nothing have gone elsewhere."""
    faults, contexts = [], []

    def open_page(path="/", **settings):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 860}} | settings))
        context.set_default_timeout(WAIT)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda said: (
                faults.append(said.text)
                if said.type in ("error", "warning") and "status of 422" not in said.text
                else None
            ),
        )
        page.on(
            "request",
            lambda request: None if request.url.startswith((address, "blob:", "data:")) else faults.append(request.url),
        )
        page.goto(address + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


@pytest.fixture
def look():
    """`look(page, name)` keeps a screenshot and checks what a screen reader needs."""
    SHOTS.mkdir(parents=True, exist_ok=True)

    def look(page, name):
        wait_for(page, "[...document.images].every((image) => image.complete)")
        page.screenshot(path=str(Path(SHOTS, f"{name}.png")))
        found = Axe().run(page).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert not serious
        return types.SimpleNamespace(minor=[one["id"] for one in found])

    return look
