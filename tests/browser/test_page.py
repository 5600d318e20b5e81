"""The page in a real browser: what a person does with the mouse, the keyboard, a phone and a picture."""

import re

import pytest
from PIL import Image

from tests.browser.conftest import LONG, SECONDS, frames_of, wait_for

pytestmark = pytest.mark.browser
RED = LONG.index("red triangle") * SECONDS  # the second at which it begins


@pytest.fixture
def found(visit):
    """A page with the results for a red triangle, one a file; the first is in the long film."""
    page = visit()
    wait_for(page, "document.getElementById('state').dataset.state === 'ready'")
    page.locator("#q").press_sequentially("a red triangle")
    page.wait_for_selector(".tile .play[data-name='long.mp4']")
    return page


def test_typing_finds_and_a_click_plays_at_that_second(found, look):
    first = found.locator(".tile").first
    assert first.locator(".name").inner_text() == "long.mp4"
    start = float(first.locator(".play").get_attribute("data-start"))
    end = float(first.locator(".play").get_attribute("data-end"))
    assert RED - 1 <= start < end <= RED + SECONDS + 1
    minutes = f"0:{int(start):02}–0:{int(end):02}"
    assert first.locator(".time").inner_text() == minutes
    assert "a red triangle" in found.title()
    assert "q=a+red+triangle" in found.url
    look(found, "results")
    first.locator(".play").click()
    wait_for(found, f"document.querySelector('#player video')?.currentTime > {start}")
    at = found.evaluate("document.querySelector('#player video').currentTime")
    assert start <= at < start + 5
    assert not found.evaluate("document.querySelector('#player video').muted")
    look(found, "player")
    found.keyboard.press("Escape")
    assert found.locator("#player video").count() == 0


def test_the_pointer_plays_the_moment_silently(found):
    play = found.locator(".tile .play").first
    start, end = float(play.get_attribute("data-start")), float(play.get_attribute("data-end"))
    play.hover()
    wait_for(found, f"document.querySelector('.play video')?.currentTime > {start}")
    muted, time = found.evaluate(
        "(({muted, currentTime}) => [muted, currentTime])(document.querySelector('.play video'))"
    )
    assert muted
    assert start <= time <= end + 0.5
    found.mouse.move(2, 2)
    wait_for(found, "!document.querySelector('.play video')")


def test_more_like_a_moment(found, look):
    tile = found.locator(".tile", has_text="red bar").first
    tile.locator(".like").click()
    wait_for(found, "document.querySelector('.tile .name').textContent.startsWith('red bar')")
    assert "like=" in found.url
    assert found.locator("#with-words").inner_text().startswith("like red bar <img src=x>.mp4")
    look(found, "like")
    found.locator("#with-none").click()
    found.wait_for_selector(".hint")


def test_the_keyboard_alone(found):
    found.locator("#q").press("ArrowDown")
    assert found.evaluate("document.activeElement.className") == "play"
    found.keyboard.press("ArrowRight")
    second = found.evaluate("[...document.querySelectorAll('.play')].indexOf(document.activeElement)")
    assert second == 1
    found.keyboard.press("Enter")
    found.wait_for_selector("#player[open] video")
    found.keyboard.press("Escape")
    found.wait_for_selector("#player:not([open])", state="attached")
    assert found.evaluate("[...document.querySelectorAll('.play')].indexOf(document.activeElement)") == 1
    found.keyboard.press("/")
    assert found.evaluate("document.activeElement.id") == "q"


def test_a_picture_from_the_disk_and_one_that_is_dropped(visit, look, tmp_path):
    Image.fromarray(frames_of("red triangle", 5)[8]).save(tmp_path / "red.png")
    page = visit()
    page.set_input_files("#file", tmp_path / "red.png")
    page.wait_for_selector(".tile")
    assert page.locator("#with-words").inner_text() == "like red.png"
    look(page, "picture")
    page.locator("#with-none").click()
    page.wait_for_selector(".hint")
    bytes_of = list((tmp_path / "red.png").read_bytes())
    page.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
            dispatchEvent(new DragEvent("drop", {dataTransfer: data}));
        }""",
        bytes_of,
    )
    page.wait_for_selector(".tile")
    assert page.locator("#with-words").inner_text() == "like dropped.png"


def test_a_file_that_is_no_picture_is_said(visit, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    page = visit()
    with page.expect_response(re.compile("/results")) as answer:
        page.set_input_files("#file", tmp_path / "notes.png")
    assert answer.value.status == 422
    page.wait_for_selector(".said")
    assert page.locator(".said").inner_text().startswith("The file cannot be used")


def test_the_filter(found, look):
    found.locator("summary").click()
    found.locator("#min").fill("8")
    wait_for(found, "document.querySelectorAll('.tile').length === 0")
    assert "Nothing fits with a z of 8.0 or more" in found.locator(".hint").inner_text()
    found.locator("#min").fill("-1")
    found.locator("#folder").select_option(label="short <b>films")
    wait_for(found, "[...document.querySelectorAll('.where')].length > 0")
    wait_for(found, "![...document.querySelectorAll('.name')].some((name) => name.textContent === 'long.mp4')")
    look(found, "filter")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dark", {"color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}),
        ("phone_dark", {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "color_scheme": "dark"}),
    ],
)
def test_in_the_dark_and_on_a_phone(visit, look, name, settings):
    page = visit("/?q=a+red+triangle&group=file", **settings)
    page.wait_for_selector(".tile")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 150) == ("dark" in name)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    look(page, name)


@pytest.mark.parametrize("path", ["/", "/api"])
def test_the_other_pages(visit, look, path):
    look(visit(path), path.strip("/") or "empty")


def test_without_the_script(visit):
    page = visit(java_script_enabled=False)
    page.fill("#q", "a red triangle")
    page.keyboard.press("Enter")
    page.wait_for_selector(".tile")
    assert page.locator(".tile .name").first.inner_text() == "long.mp4"
