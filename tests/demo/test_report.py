import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from harvest_jax.demo import curves, pictures, report
from harvest_jax.demo.world import MOTION_PAIRS, random_scene, render_clip, render_still
from harvest_jax.input.patches import keep_positions

PAIRS = [" / ".join(sorted(pair)) for pair in MOTION_PAIRS]
VOID = {"meta", "img", "br", "link", "hr", "input"}


def choice(*accuracies):
    per_type = {name: {"n": 40, "accuracy": value} for name, value in zip(PAIRS, accuracies, strict=True)}
    return {"accuracy": float(np.mean(accuracies)), "chance": 50.0, "n": 200, "per_type": per_type}


def ranks(first, fifth, tenth, median, mean):
    return {"R@1": first, "R@5": fifth, "R@10": tenth, "MedR": median, "MnR": mean}


def figures(**changes):
    return {
        "before": {
            "retrieval": {"t2v": ranks(21.25, 62.5, 85.0, 4.0, 6.2), "v2t": ranks(20.0, 65.0, 87.5, 3.5, 5.8)},
            "motion_choice": choice(50.0, 50.0, 50.0, 50.0, 50.0),
        },
        "after": {
            "retrieval": {"t2v": ranks(72.5, 97.5, 100.0, 1.0, 1.4), "v2t": ranks(75.0, 60.0, 87.5, 1.0, 7.9)},
            "motion_choice": choice(100.0, 97.5, 95.0, 52.5, 72.5),
        },
        "text_tower_digest": {"before": "ab" * 32, "after": "ab" * 32},
        "tokens": {"all": 512, "kept": 52},
        "step_ms": {"all": 402.0, "kept": 80.0},
        "step_clips": 16,
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


def write(tmp_path, **changes):
    arguments = {
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
    assert len(addresses) == 3 + 3 + 1 + 3  # strip and two halves, hits, still, charts
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


def test_the_figures_are_on_the_page(written):
    page, text = written
    cells = [
        " ".join(re.sub(r"<[^>]+>", " ", cell).replace("\N{NO-BREAK SPACE}", " ").split())
        for cell in re.findall(r"<td[^>]*>.*?</td>", text)
    ]
    assert cells[:3] == ["21.2 %", "72.5 %", "+51.3"]
    assert cells[9:15] == ["4.0", "1.0", "−3.0", "6.2", "1.4", "−4.8"]
    assert cells[18:30] == [
        "65.0 %",
        "60.0 %",
        "−5.0",
        "87.5 %",
        "87.5 %",
        "±0",
        "3.5",
        "1.0",
        "−2.5",
        "5.8",
        "7.9",
        "+2.1",
    ]
    tones = re.findall(r'<td class="(good|bad|)">', text)
    assert tones == ["good"] * 5 + ["good", "bad", "", "good", "bad"]  # a rank that rises is worse
    for words in (
        "52 of 512 patches",
        "10.2 % of them",
        "5.0 times as fast",
        "402 → 80.0 ms",
        "50.0 → 83.5 %",
        "guessing gives 50.0 %",
        "harvest_jax 1.2.3 · seed 7",
        "for 1,200 steps",
        "write the clips 9.2 s",
        "something else 1 min 36 s",
        "1 min 45 s together",
        "The text half did not change",
        "ab" * 32,
        "make demo",
    ):
        assert words in page.text, words
    assert "trains longer" not in page.text


def test_commands_and_a_changed_text_tower(tmp_path):
    page, _ = write(
        tmp_path,
        report=figures(
            text_tower_digest={"before": "ab" * 32, "after": "cd" * 32},
            command="harvest demo --workdir 'my runs'",
            longer_command="harvest demo --steps 6000",
        ),
    )
    assert "The text half changed, and should not have" in page.text
    assert "did not change" not in page.text
    assert "ab" * 32 in page.text
    assert "cd" * 32 in page.text
    assert "harvest demo --workdir 'my runs' and this trains longer: harvest demo --steps 6000" in page.text


def test_what_resists_is_named(tmp_path, written):
    page, _ = written
    assert (
        f"These pairs of motions resist: {PAIRS[4]} (72.5 %), {PAIRS[3]} (52.5 %, within noise of guessing)."
        in page.text
    )
    assert page.words.count("resists") == 2
    solved = figures()
    solved["after"]["motion_choice"] = choice(100.0, 97.5, 95.0, 92.5, 99.0)
    page, _ = write(tmp_path, report=solved)
    assert f"Every pair of motions is told apart; the hardest is {PAIRS[3]} with 92.5 %." in page.text
    assert "resist" not in page.text


def test_pairs_are_judged_against_chance():
    found = {pair.name: pair for pair in report.pairs({"per_type": {}}, choice(50.0, 65.0, 66.0, 74.9, 75.0))}
    # two standard errors of 40 fair coins: 15.8 points
    assert [found[name].noise for name in PAIRS] == [True, True, False, False, False]
    assert [found[name].resists for name in PAIRS] == [True, True, True, True, False]
    assert [pair.after for pair in report.pairs({"per_type": {}}, choice(50.0, 65.0, 66.0, 74.9, 75.0))] == [
        75.0,
        74.9,
        66.0,
        65.0,
        50.0,
    ]
    assert found[PAIRS[0]].before is None


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
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Before and after", "What it cost", "Do it again, go on"]


def test_a_missing_figure_is_an_error_and_leaves_no_page(tmp_path):
    broken = figures()
    del broken["version"]
    with pytest.raises(Exception, match="version"):
        write(tmp_path, report=broken)
    assert not list(tmp_path.iterdir())


def test_kept_patches_are_as_they_were_and_dropped_ones_dark():
    rng = np.random.default_rng(1)
    frames = rng.integers(60, 256, (3, 16, 24, 3), dtype=np.uint8)
    kept = np.array([0, 7, 17], np.int32)  # of 3 x 2 x 3 cells
    lit = pictures.light_kept(frames, kept, patch=8, scale=2)
    assert lit.shape == (3, 32, 48, 3)
    for position in range(18):
        frame, row, column = position // 6, position // 3 % 2, position % 3
        cell = lit[frame, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        own = frames[frame, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].repeat(2, axis=0).repeat(2, axis=1)
        if position in kept:
            np.testing.assert_array_equal(cell[1:-1, 1:-1], own[1:-1, 1:-1])
            assert (cell[0] == 255).all()
            assert (cell[:, -1] == 255).all()
        else:
            assert cell.max() < 110
            assert cell.std() > 0  # where it was can still be seen
    with pytest.raises(ValueError, match=r"0\.\.18 do not lie in 3 x 2 x 3"):
        pictures.light_kept(frames, np.array([0, 18], np.int32), patch=8)
    assert pictures.light_kept(frames, np.zeros(0, np.int32), patch=8).max() < 110


def test_a_strip_shows_frames_in_order():
    frames = np.arange(16, dtype=np.uint8).repeat(4 * 6 * 3).reshape(16, 4, 6, 3)
    whole = pictures.strip(frames[:3], gap=1)
    assert whole.shape == (4, 20, 3)
    assert whole[0, :, 0].tolist() == [0] * 6 + [255] + [1] * 6 + [255] + [2] * 6
    assert pictures.strip(frames, most=4, gap=0)[0, ::6, 0].tolist() == [2, 6, 10, 14]


def test_a_chart_leaves_out_what_was_not_measured():
    words = curves.CHARTS[1]
    assert curves.draw(words, []) is None
    assert curves.draw(words, [{"step": 1, "loss": 2.0}]) is None
    assert curves.draw(words, [{"step": 1, "mlm_loss": None}]) is None
    rows = [{"step": 1, "mlm_loss": 3.0}, {"step": 2, "mlm_loss": None}, {"step": 3, "mlm_loss": 2.0}]
    assert curves.draw(words, rows) == curves.draw(words, rows)
    assert curves.draw(words, rows) != curves.draw(words, [rows[0], {"step": 2, "mlm_loss": 2.5}, rows[2]])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.0"), (12.345, "12.3"), (99.94, "99.9"), (99.96, "100"), (1234.5, "1,234"), (100.0, "100")],
)
def test_numbers(value, shown):
    assert report.number(value) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.44, "0.4 s"), (9.96, "10 s"), (59.4, "59 s"), (185.0, "3 min 5 s")])
def test_spans(seconds, shown):
    assert report.span(seconds) == shown
