import base64
import functools
import io
import re
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harvest_jax.demo import report
from harvest_jax.demo.world import MOTION_PAIRS, random_scene, render_clip, render_still
from harvest_jax.evaluate.report import grids
from harvest_jax.evaluate.report.page import page as results_page
from harvest_jax.evaluate.report.result_files import read_result, read_results
from harvest_jax.input.patches import keep_positions
from tests.helpers.written_results import noisy, write_choice, write_retrieval

PAIRS = [" / ".join(sorted(pair)) for pair in MOTION_PAIRS]
VOID = {"meta", "img", "br", "link", "hr", "input", "source"}


def scored(folder, first, accuracies, **of_model):
    """task -> result of a model: 40 clips of each pair of motions, and a small retrieval."""
    types = [pair for pair in PAIRS for _ in range(40)]
    right = [clip < round(0.4 * accuracy) for accuracy in accuracies for clip in range(40)]
    seed, noise = of_model.pop("retrieval")
    return {
        "retrieval": read_result(
            write_retrieval(folder / f"{first}_retrieval.json", *noisy(seed, captions=1, noise=noise), **of_model)
        ),
        "multiple_choice": read_result(write_choice(folder / f"{first}_choice.json", right, types, **of_model)),
    }


@functools.cache
def results(*after):
    """What `write_report` needs of the results: of an image model that guesses, and of one with these accuracies."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = {"name": "image_clip", "frames": 1, "retrieval": (0, 2.0)}
        before = scored(folder, "image_model", (50.0,) * 5, **image)
        now = scored(folder, "video_model", after, model="b", name="x/export", retrieval=(1, 0.8))
        return {"before": before, "after": now, "tables": grids.report(read_results([folder]).results)}


LEARNED = (100.0, 97.5, 95.0, 52.5, 72.5)  # of `PAIRS`


def figures(**changes):
    return {
        "text_tower_digest": {"before": "ab" * 32, "after": "ab" * 32},
        "tokens": {"all": 512, "kept": 52},
        "step_ms": {"all": 402.0, "kept": 80.0},
        "attention_ms": {"all": 300.0, "kept": 20.0},
        "step_flops": {"all": 1.48e10, "kept": 1e9},
        "step_clips": 16,
        "first_guess_limit": 0.7046,
        "command": "harvest demo --workdir x --seed 7",
        "longer_command": "harvest demo --workdir x-long --seed 7 --steps 2400",
        "results_command": "harvest results x/results",
        "seconds": {"clips": 9.2, "something_else": 96.0},
        "seed": 7,
        "version": "1.2.3",
        "steps": 1200,
        **changes,
    }


def clip(motion, seed=0):
    return render_clip(random_scene(np.random.default_rng(seed), "red", "heart", motion), 8)


def hit(right, score=0.5, caption="a red heart moves left"):
    return report.Hit(caption, clip("moves left"), score, right)


CURVES = [
    {"step": step, "contrastive_loss": 4.0 / step, "mlm_loss": 9.0 / step, "batch_R@1_v2t": 0.5, "batch_R@1_t2v": 0.4}
    for step in (1, 20, 40)
]


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails where tags do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.words, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())


def write(tmp_path, accuracies=LEARNED, **changes):
    arguments = {
        **results(*accuracies),
        "report": figures(),
        "curves": [],  # drawing takes most of the time
        "clips": [
            report.ShownClip("a red heart grows", clip("grows"), keep_positions(np.random.default_rng(0), 8, 64, 0.1))
        ],
        "queries": [report.Query("a red heart moves left", [hit(False, 0.71)], [hit(True, 0.83), hit(False, -0.2)])],
        "image_stills": [
            ("a red bar grows", render_still(random_scene(np.random.default_rng(0), "red", "bar", "grows"), 0.5, True))
        ],
    } | changes
    path = tmp_path / "report.html"
    report.write_report(path, **arguments)
    text = path.read_text(encoding="utf-8")
    return Page(text), text


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("page"), curves=CURVES)


def test_the_page_needs_nothing_but_itself(written):
    page, text = written
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    addresses = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "data")]
    assert len(addresses) == 3 + 3 + 1 + 2 * 3  # strip and two halves, hits, still, charts for light and dark pages
    assert all(value.startswith("data:image/") for value in addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in text.replace("http-equiv", "")


def test_every_picture_opens_and_says_what_it_shows(written):
    page, _ = written
    sizes = []
    for tag, name, value in page.attributes:
        if tag == "img" and name == "src":
            kind, content = value.split(";base64,")
            content = base64.b64decode(content)
            if kind == "data:image/webp":
                sizes.append(Image.open(io.BytesIO(content)).size)
            else:
                assert kind == "data:image/svg+xml"
                assert b"<svg" in content
    strip = (8 * 66 - 2, 64)
    half = (4 * 132 - 4, 128)
    assert sizes == [strip, half, half, (64, 64), strip, strip, strip]
    assert all(value for tag, name, value in page.attributes if (tag, name) == ("img", "alt"))
    assert sum(tag == "img" and name == "alt" for tag, name, _ in page.attributes) == page.tags.count("img")


def test_the_tables_are_those_of_harvest_results(written):
    _, text = written
    tables = re.findall(r"<table>.*?</table>", text, re.DOTALL)
    assert len(tables) == 3  # overview, retrieval, choice
    assert tables == re.findall(r"<table>.*?</table>", results_page(results(*LEARNED)["tables"]), re.DOTALL)
    for table in tables:
        labels = re.findall(r'<th scope="row">(.*?)</th>', table)
        assert labels == ["image_clip, image model, average of frames", "x/export"]
    assert ">83.5<small>[" in tables[2]
    assert ">+33.5<small>[" in tables[2]  # the change, with the interval of the paired bootstrap


def test_the_figures_are_on_the_page(written):
    page, _ = written
    first = report.headline(results(*LEARNED)["after"]["retrieval"])
    for words in (
        "only 52 of the 512 patches of a clip",
        "10.2 % of them",
        "14.8 times less by count; times are under “What it cost”",
        "14.8 times fewer FLOPs. On this machine the step is 5.0 times as fast, and the attention of the video tower, "
        "timed by itself, 15.0 times.",
        "94 times fewer pairs",
        "Whole step all 512 patches 402 ms 52 patches kept 80 ms",
        "Attention of the video tower alone all 512 patches 300 ms 52 patches kept 20 ms",
        "a perfect model is right in at most 70.5 % (dotted line)",
        "50.0 → 83.5 %",
        f"→ {first} %",
        "The same tables on a terminal: harvest results x/results",
        "chance is 50.0 %",
        "harvest_jax 1.2.3 · seed 7",
        "for 1,200 steps",
        "write the clips 9.2 s",
        "something else 1 min 36 s",
        "1 min 45 s together",
        "The text tower did not change",
        "ab" * 32,
        "This page was made by harvest demo --workdir x --seed 7 A longer training: harvest demo --workdir x-long",
    ):
        assert words in page.text, words


def test_commands_and_a_changed_text_tower(tmp_path):
    page, _ = write(
        tmp_path,
        report=figures(
            text_tower_digest={"before": "ab" * 32, "after": "cd" * 32},
            command="harvest demo --workdir 'my runs'",
            longer_command="harvest demo --steps 6000",
        ),
    )
    assert "The text tower changed, although it was frozen" in page.text
    assert "did not change" not in page.text
    assert "ab" * 32 in page.text
    assert "cd" * 32 in page.text
    assert "harvest demo --workdir 'my runs' A longer training: harvest demo --steps 6000" in page.text


def test_pairs_that_were_not_learned_are_named(tmp_path, written):
    page, _ = written
    said = f"{PAIRS[4]} (72.5 %), {PAIRS[3]} (52.5 %, its 95 % interval includes chance)."
    assert f"Less than halfway from chance to 100 %: {said}" in page.text
    assert page.words.count("weak") == 2
    page, _ = write(tmp_path, accuracies=(100.0, 97.5, 95.0, 92.5, 100.0))
    assert f"Every pair of motions is told apart; the lowest result is {PAIRS[3]} with 92.5 %." in page.text
    assert "weak" not in page.text


def test_pairs_are_judged_against_chance():
    both = results(50.0, 60.0, 70.0, 72.5, 75.0)
    found = report.pairs(both["before"]["multiple_choice"], both["after"]["multiple_choice"])
    assert [pair.name for pair in found] == PAIRS[::-1]
    assert [pair.after for pair in found] == [75.0, 72.5, 70.0, 60.0, 50.0]
    assert [pair.noise for pair in found] == [False, False, False, True, True]
    assert [pair.weak for pair in found] == [False, True, True, True, True]
    assert {(pair.before, pair.n) for pair in found} == {(50.0, 40)}


def test_hits_are_marked_right_or_wrong(written):
    page, text = written
    frames = [value for tag, name, value in page.attributes if (tag, name) == ("figure", "class") and "hit" in value]
    assert frames == ["hit", "hit right", "hit"]
    assert re.findall(r'class="mark">(.)<', text) == ["✗", "✓", "✗"]
    assert re.findall(r'class="score">([^<]+)<', text) == ["0.71", "0.83", "-0.20"]


def test_words_cannot_become_markup(tmp_path):
    bad = '<script>alert("x")</script> & \'"'
    page, text = write(
        tmp_path,
        queries=[report.Query(bad, [hit(True, caption=bad)], [])],
        image_stills=[(bad, np.zeros((64, 64, 3), np.uint8))],
        report=figures(command=bad),
    )
    assert "script" not in page.tags
    assert "<script" not in text
    assert page.text.count(bad) == 4


def test_without_pictures_or_measurements_their_sections_are_left_out(tmp_path):
    page, text = write(tmp_path, clips=[], queries=[], image_stills=[])
    assert page.tags.count("img") == 0
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Before and after", "What it cost", "Commands"]


def test_a_missing_figure_is_an_error_and_leaves_no_page(tmp_path):
    broken = figures()
    del broken["version"]
    with pytest.raises(Exception, match="version"):
        write(tmp_path, report=broken)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("seconds", "shown"), [(0.44, "0.4 s"), (9.96, "10 s"), (59.4, "59 s"), (185.0, "3 min 5 s")])
def test_spans(seconds, shown):
    assert report.span(seconds) == shown


def test_bars_are_told_apart_without_colour_and_printed(written):
    _, text = written
    values = re.findall(r'<div class="bar (before|after)">.*?<span>(\w+) [\d.]+', text)
    assert len(values) == 2 + 2 * len(PAIRS)
    assert all(kind == word for kind, word in values)
    assert re.search(r"\.bar i[^}]*print-color-adjust: exact", text)


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_enough_contrast_on_light_and_dark_pages(written, dark):
    """WCAG 2, level AA: 4.5 to 1 for text."""
    _, text = written
    light, darker = re.findall(r":root \{(.*?)\}", text, re.DOTALL)[:2]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", light + darker if dark else light))
    for ink, ground in (
        *((ink, ground) for ink in ("ink", "faint", "after", "right", "wrong") for ground in ("paper", "ground")),
        ("code-ink", "code"),
        ("tag-ink", "tag"),
    ):
        assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    assert contrast(colours["before"], colours["paper"]) >= 3  # a bar, no text
    used = set(re.findall(r"(?<![-\w])color: var\(--([\w-]+)\)", text))
    assert used <= {"ink", "faint", "after", "right", "wrong", "code-ink", "tag-ink"}


def contrast(one, other):
    """The WCAG contrast ratio of two colours #rrggbb."""

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
