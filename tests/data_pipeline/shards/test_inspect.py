"""`harvest inspect` on shards: the numbers are those of the records, the page shows every text and runs none."""

import base64
import html.parser
import io
import json
import re
import time

import numpy as np
import pytest
from PIL import Image

from data_pipeline.shards import contact_sheet, statistics
from data_pipeline.shards.shard_format import Record, encode, encode_jpeg, open_shards
from harvest_jax import cli
from harvest_jax.errors import DataError
from tests.helpers.shard_files import write_records
from tests.helpers.video_files import numbered_frames, write_video

HOSTILE = '<script>alert(1)</script><img src="http://x.test/a.png" onerror=alert(2)> &lt; "q" \'q\''
TEXTS = (
    HOSTILE,
    "一只狗跳过木头，日本語と 한국어",
    "👩‍🚀 a dog 🏳️‍🌈",
    "مرحبا",
    "\u202eturned round",
    "two\nlines",
    "bell \x07 \x1b[31m",
)

EMPTY = {"edges": [], "counts": []}
SPLIT = {  # the numbers of `describe`, of nothing
    "train": dict.fromkeys(("clips", "shards", "bytes", "sampled"), 0)
    | {"frames": {}, "captions_per_clip": {"mean": 0}, "source_sizes": {}, "columns": []}
    | {"rejects": {"count": 0}, "histograms": {"record_bytes": EMPTY, "caption_characters": EMPTY}}
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A split of eleven clips with one or two captions, among them all of TEXTS, and three rejects; read only."""
    folder = tmp_path_factory.mktemp("inspect")
    write_video(folder / "v.mp4", numbered_frames(8))
    captions = [["x" * 50, text] for text in TEXTS] + [["a dog"]] * 4
    rows = [{"id": f"r{index}", "video": "v.mp4", "caption": texts} for index, texts in enumerate(captions)]
    rows += [{"id": f"gone{index}", "video": f"{index}.mp4", "caption": "x"} for index in range(2)]
    rows += [{"id": "silent", "video": "v.mp4", "caption": " "}]
    lines = [json.dumps(row | {"site\x1b[31m": HOSTILE}) for row in rows]
    (folder / "m.jsonl").write_text("\n".join(lines))
    words = [
        "--manifest",
        folder / "m.jsonl",
        "--out",
        folder / "out",
        "--frames",
        4,
        "--short_side",
        48,
        "--workers",
        1,
    ]
    assert cli.main(["shards", *map(str, words), "--max_rejects", "0.5"]) == 0
    return folder / "out"


class Page(html.parser.HTMLParser):
    """What a browser would find: tags with their attributes, texts of `bdi` elements, pictures."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.sources: list[str] = []
        self.texts: list[str] = []
        self._open = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag == "bdi":
            self._open = True
            self.texts.append("")

    def handle_endtag(self, tag):
        self._open = self._open and tag != "bdi"

    def handle_data(self, data):
        if self._open:
            self.texts[-1] += data


def test_histograms_count_every_value(shards):
    train = statistics.describe(shards)["splits"]["train"]
    source = open_shards(shards, "train")
    values = {
        "record_bytes": [len(source[index]) for index in range(len(source))],
        "caption_characters": [50] * len(TEXTS) + [len(text) for text in TEXTS] + [5] * 4,
    }
    for name, numbers in values.items():
        edges, counts = train["histograms"][name]["edges"], train["histograms"][name]["counts"]
        expected = np.histogram(numbers, [*edges, np.inf])[0]
        assert counts == expected.tolist()
        assert sum(counts) == len(numbers)
        assert edges[0] <= min(numbers)
    assert train["rejects"] == {"count": 3, "reasons": {"not found": 2, "empty caption": 1}}


@pytest.mark.parametrize(
    ("lengths", "edges", "counts"),
    [
        ([], [], []),
        ([7], [7], [1]),
        ([0, 0], [0], [2]),
        ([*range(100), 1_000_000], [0, 20, 40, 60, 80], [20, 20, 20, 20, 21]),  # a giant does not take all bins
    ],
)
def test_bins_of_a_histogram(tmp_path, lengths, edges, counts):
    captions = tuple("x" * length for length in lengths)
    record = Record("a", captions, (encode_jpeg(numbered_frames(1)[0]),), (0.0,), 64, 48, {})
    write_records(tmp_path, "train", [encode(record)])
    split = statistics.describe(tmp_path)["splits"]["train"]
    assert split["histograms"]["caption_characters"] == {"edges": edges, "counts": counts}


def test_text_has_bars(shards):
    text = statistics.format_description(statistics.describe(shards))
    assert "kB per clip" in text
    assert "characters  " in text
    bars = [
        (int(count), len(bar))
        for count, bar in re.findall(r"(?:to \S+|and more) +(\d+)(?: (#+))?$", text, re.MULTILINE)
    ]
    assert sum(count for count, _ in bars) == 11 + 2 * len(TEXTS) + 4
    assert max(length for _, length in bars) == 30
    assert all((count > 0) == (length > 0) for count, length in bars)
    assert r"other columns   site\x1b[31m" in text


def test_page_shows_every_caption_and_runs_none(shards, tmp_path, capsys):
    target = tmp_path / "page.html"
    command = ["inspect", str(shards), "--contact_sheet", str(tmp_path / "sheet.png"), "--html", str(target), "--json"]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert json.loads(said)["splits"]["train"]["clips"] == 11
    text = target.read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.isdisjoint({"script", "iframe", "object", "link", "form", "a", "svg", "base"})
    assert not [name for name in page.attributes if name.startswith("on")]
    assert "default-src 'none'" in text
    shown = [caption.replace("�", "\x07", 1).replace("�", "\x1b", 1) for caption in page.texts]
    assert set(TEXTS) <= set(shown)  # whole, and nothing but
    assert not any(letter < " " and letter not in "\n\t" for letter in text)
    assert len(page.sources) == 11 * 4
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    picture = Image.open(io.BytesIO(base64.b64decode(page.sources[0].split(",")[1])))
    assert picture.size == (171, 128)


def test_no_page_unless_asked_for(shards, tmp_path):
    before = set(shards.iterdir())
    statistics.describe(shards, tmp_path / "sheet.png")
    assert set(shards.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_an_enormous_caption_costs_no_time():
    jpegs = (encode_jpeg(numbered_frames(1)[0]),)
    clip = ("train", Record("r", ("long\n" * 2000,), jpegs, (0.0,), 64, 48, {}))
    began = time.process_time()
    sheet = contact_sheet.draw_contact_sheet([clip])
    assert time.process_time() - began < 2
    assert sheet.size == (496, 128 + 44 + 8)
    dark = np.argwhere(np.asarray(sheet.convert("L")) < 60)
    text = dark[dark[:, 0] < 8 + 36]
    assert text[:, 1].max() < 496 - 4  # the line ends within the picture
    assert text[:, 0].min() > 8 + 15  # and is one line


@pytest.mark.parametrize(
    "content", [b"id\tvideo\nx\ty\n", b"id\tvideo\treason\nx\n", b"id\tvideo\treason\nx\ty\t\xff\n"]
)
def test_a_damaged_list_of_rejects(shards, tmp_path, capsys, content):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in shards.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "rejects-train.tsv").write_bytes(content)
    assert cli.main(["inspect", str(folder)]) == 3
    error = capsys.readouterr().err
    assert error == f"harvest inspect: {folder}/rejects-train.tsv is damaged: it is not a table of id, video, reason\n"


@pytest.mark.parametrize(
    "draw", [contact_sheet.draw_contact_sheet, lambda clips: contact_sheet.html_sheet("x", SPLIT, clips)]
)
def test_a_damaged_picture(draw):
    clip = ("train", Record("r7", ("a dog",), (b"\xff\xd8\xff nothing",), (0.0,), 64, 48, {}))
    with pytest.raises(DataError, match="frame 0 of r7 is damaged"):
        draw([clip])
