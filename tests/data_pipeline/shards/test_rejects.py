"""The rejects file: read back as it was written, and harmless in a terminal and in a spreadsheet."""

from data_pipeline.shards.rejects import read_rejects, write_rejects

PLAIN = ["a", "-4wsuPCjDBc", "-1", "\u65e5\u672c\u3000\u8a9e", "a\xa0b", "'a", "it's", "", " led"]
FORMULAS = ["=1+2", "+1", "@SUM(A1)", "-1+cmd|' /C calc'!A0", "'=1", "''+x", "=\xa0"]


def test_ids_come_back_as_they_were(tmp_path):
    lines = [(text, f"{text}.mp4", "empty caption") for text in (*PLAIN, *FORMULAS)]
    write_rejects(tmp_path, "train", lines)
    assert list(read_rejects(tmp_path, "train")) == lines
    cells = [line.split("\t")[0] for line in (tmp_path / "rejects-train.tsv").read_text().splitlines()[1:]]
    assert cells == [*PLAIN, *(f"'{text}" for text in FORMULAS)]


def test_what_controls_a_terminal_or_breaks_a_line_is_shown(tmp_path):
    write_rejects(tmp_path, "train", [("\x1b[31mred", "a\tb\nc\r\x00.mp4", "bad path: Jos\udce9 \u2028")])
    raw = (tmp_path / "rejects-train.tsv").read_bytes()
    assert raw.decode().splitlines()[1] == "\\x1b[31mred\ta\\tb\\nc\\r\\x00.mp4\tbad path: Jos\\udce9 \\u2028"
    assert len(list(read_rejects(tmp_path, "train"))) == 1
