"""The site that `make docs` has built: its links, its reference, and what programs read of it."""

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

SITE = Path(__file__).resolve().parents[2] / "build" / "site"
pytestmark = pytest.mark.docs


class Page(HTMLParser):
    """The links of a page and the names that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names = {""}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = {name: value or "" for name, value in attributes}
        self.links += [given[name] for name in ("href", "src") if name in given]
        self.names |= {given[name] for name in ("id", "name") if name in given}


PAGES = {path: Page(path.read_text()) for path in sorted(SITE.rglob("*.html"))}


def text_of(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", "", (SITE / page).read_text())).split())


def test_links_within_the_site_lead_somewhere():
    assert len(PAGES) > 30
    for path, page in PAGES.items():
        for link in page.links:
            if re.match(r"[a-z]+:|//", link):
                continue
            name, _, anchor = unquote(link).partition("#")
            target = (path.parent / name.split("?")[0]).resolve() if name else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), (path, link)
            assert target not in PAGES or anchor in PAGES[target].names, (path, link)


def test_the_first_page_is_found_at_the_root():
    (link,) = re.findall(r"url=([^\"]+)", (SITE / "index.html").read_text())
    assert (SITE / link).is_file()


def test_llms_txt_leads_to_files():
    links = re.findall(r"\]\(([^)]+)\)", (SITE / "llms.txt").read_text())
    assert len(links) > 30
    assert all((SITE / link).is_file() for link in links)


def test_signatures_show_shapes_and_no_inner_names():
    text = text_of("docs/python.html")
    assert re.search(r"encode_video\( ?videos: Videos,? ?\) → Float\[ndarray, 'b d'\]", text)
    assert "ids: Int[ndarray, 'b l']" in text
    assert "jaxlib" not in text


def test_pages_show_no_markup_of_the_additions():
    for name in ("docs/index.html", "docs/python.html", "docs/commands/train.html"):
        assert not re.search(r"eval-rst|toctree\}|:hidden:|autofunction", text_of(name))
