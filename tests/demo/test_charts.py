import base64
import itertools

import pytest

from harvest_jax.demo import charts


def test_a_chart_leaves_out_what_was_not_measured():
    words = charts.CHARTS[1]
    assert charts.draw(words, []) is None
    assert charts.draw(words, [{"step": 1, "loss": 2.0}]) is None
    assert charts.draw(words, [{"step": 1, "mlm_loss": None}]) is None
    rows = [{"step": 1, "mlm_loss": 3.0}, {"step": 2, "mlm_loss": None}, {"step": 3, "mlm_loss": 2.0}]
    assert charts.draw(words, rows) == charts.draw(words, rows)
    assert charts.draw(words, rows) != charts.draw(words, [rows[0], {"step": 2, "mlm_loss": 2.5}, rows[2]])


def test_the_limit_that_repeated_captions_set():
    """Against every batch that can be drawn."""
    captions = ["a", "a", "a", "b", "b", "c"]
    for size in (1, 2, 3, 5, 6):
        batches = list(itertools.combinations(captions, size))
        expected = sum(len(set(batch)) for batch in batches) / len(batches) / size
        assert charts.first_guess_limit(captions, size) == pytest.approx(expected)
    assert charts.first_guess_limit(captions, 60) == pytest.approx(3 / 6)
    assert charts.first_guess_limit(list("abcdef"), 4) == pytest.approx(1.0)
    demo = [str(number % 80) for number in range(1280)]
    assert charts.first_guess_limit(demo, 64) == pytest.approx(0.7026, abs=1e-4)


def test_only_the_chart_of_first_guesses_has_the_limit_and_each_page_its_colours():
    rows = [{"step": 1, "mlm_loss": 3.0, "batch_R@1_v2t": 0.5}, {"step": 2, "mlm_loss": 2.0, "batch_R@1_v2t": 0.6}]
    words, guesses = charts.CHARTS[1], charts.CHARTS[2]
    assert charts.draw(words, rows, 0.7) == charts.draw(words, rows)
    assert charts.draw(guesses, rows, 0.7) != charts.draw(guesses, rows)
    for colours in (charts.LIGHT, charts.DARK):
        picture = base64.b64decode(charts.draw(guesses, rows, 0.7, colours).split(",")[1]).decode()
        assert colours.first in picture
        assert colours.ink in picture
