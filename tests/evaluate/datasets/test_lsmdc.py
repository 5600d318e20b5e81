"""LSMDC's table without header, with quotes that are letters."""

from harvest_jax.evaluate.benchmarks.read_benchmark import read
from harvest_jax.evaluate.datasets import lsmdc
from tests.helpers import benchmark_miniatures as miniatures
from tests.helpers.benchmark_reading import fault, of_module

LSMDC = of_module(lsmdc, "lsmdc")


def test_quotes_are_letters_and_the_first_line_is_a_row(tmp_path):
    rows = read(LSMDC, miniatures.lsmdc(tmp_path), partial=True)
    assert len(rows) == 4
    assert rows[0].id == rows[0].video == "0000_A_Film_00.00.01.100-00.00.04.250"
    assert rows[0].captions == ('SOMEONE\'s "friend" sees a kite rises over a red barn, take 0 0.',)
    assert rows[1].captions[0].startswith('"SOMEONE says no')
    assert (rows[0].start, rows[0].end) == (None, None)  # the times are in the film


def test_wrong_files(tmp_path):
    path = miniatures.write_lines(tmp_path / "a.csv", ["clip\t1\t2\t3\t4"])
    assert "line 1: 5 cells, but 6 columns" in fault(LSMDC, path)
    miniatures.write_lines(path, ["clip,1,2,3,4,a kite"])
    assert "cells are separated by commas, in the official file by tabs" in fault(LSMDC, path)
    miniatures.write_lines(path, ["clip\t1\t2\t3\t4\ta kite", "clip\t5\t6\t7\t8\ta goat"])
    header = path.read_text("utf-8")
    path.write_text("name\tstart\tend\tfrom\tto\tsentence\n" + header, "utf-8")
    assert "line 1: this is a header, and the official file has none" in fault(LSMDC, path)
    path.write_text(header, "utf-8")
    assert "line 2: the id 'clip' is used already, in line 1" in fault(LSMDC, path)  # the files of other splits
    miniatures.write_lines(path, ["clip\t1\t2\t3\t4\t "])
    assert "line 1: 'sentence' is empty" in fault(LSMDC, path)
