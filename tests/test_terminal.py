"""Untrusted text on a terminal, and progress with and without a terminal."""

import pytest

from harvest_jax import terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain.mp4", "plain.mp4"),
        ("naïve 日本.mp4", "naïve 日本.mp4"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("two\nlines", r"two\nlines"),
        ("\udce9", r"\udce9"),
    ],
)
def test_printable(text, shown):
    assert terminal.printable(text) == shown


def test_printable_is_cut():
    assert terminal.printable("x" * 50, 10) == "xxxxxxx..."


def test_lines_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "LINE_SECONDS", 0.0)
    with terminal.progress("embedding", "clips") as update:
        update(1, 4, "1 rejected")
        update(3, 4, "1 rejected")
        update(4, 4, "")
        update(5, 0)
    first, second, third, fourth = capsys.readouterr().err.splitlines()
    assert first == "embedding: 1/4 clips, 1 rejected"
    assert second == "embedding: 3/4 clips, 0 s left, 1 rejected"
    assert third == "embedding: 4/4 clips"
    assert fourth == "embedding: 5 clips"


def test_the_time_left_counts_what_was_done_since_the_first_call(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with terminal.progress("train", "clips") as update:
        now[0] += 60  # start-up
        update(500, 1000)  # of an earlier run
        now[0] += 10
        update(600, 1000)
    assert capsys.readouterr().err.splitlines() == ["train: 500/1000 clips", "train: 600/1000 clips, 40 s left"]
