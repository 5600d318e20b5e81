"""Text of strangers on a terminal, and progress where there is none."""

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
        update(4, 4, "")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("embedding: 1/4 clips, 1 rejected, ")
    assert second == "embedding: 4/4 clips"
