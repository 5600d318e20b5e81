"""Cells of records: what they may be, and what is said of others."""

import pytest

from harvest_jax.input.annotation_records import Record
from tests.helpers.faults import fault


def of(value):
    return Record("t.json, entry 7", {"x": value})


@pytest.mark.parametrize(("value", "number"), [(3, 3), ("3", 3), (" 3 ", 3), (3.0, 3), (0, 0), ("+4", 4)])
def test_whole_numbers(value, number):
    found = of(value).whole("x", 0, 4)
    assert (found, type(found)) == (number, int)


@pytest.mark.parametrize("value", [5, -1, "5", "a", "", None, True, 1.5, "1.5", [1], "1" * 400, "٣", float("inf")])
def test_what_is_no_whole_number_of_the_range(value):
    message = fault(of(value).whole, "x", 0, 4)
    assert message.startswith("t.json, entry 7: 'x' must be a whole number from 0 to 4, is ")
    assert len(message) < 150


@pytest.mark.parametrize("value", [None, "x", "", True, "nan", float("inf"), [1], 10**400])
def test_what_is_no_number(value):
    assert "'x' must be a number" in fault(of(value).number, "x")
    assert of("2.5").number("x") == 2.5


def test_seconds():
    assert of("0.28").seconds("x") == 0.28
    assert "'x' must be a time in seconds, is -1" in fault(of(-1).seconds, "x")
    assert "must be a time" in fault(of(1e9).seconds, "x")


def test_texts():
    assert of([" a ", "b"]).texts("x") == ["a", "b"]
    assert "'x' must be a list of texts, is 'a'" in fault(of("a").texts, "x")
    assert "'x' is an empty list" in fault(of([]).texts, "x")
    assert "'x[1]' must be a text, is 2" in fault(of(["a", 2]).texts, "x")
    assert "'x[1]' is empty" in fault(of(["a", " "]).texts, "x")
    assert "half a character" in fault(of(["a\ud800"]).texts, "x")


def test_spans():
    assert of([[0, 1.5], ["2", 3]]).spans("x") == [(0, 1.5), (2, 3)]
    for value in ([[0]], [0, 1], "ab", {"a": 1}):
        assert "must be a list of pairs of numbers" in fault(of(value).spans, "x")
    assert "'x' must be a number, is 'a'" in fault(of([[0, "a"]]).spans, "x")


def test_messages_stay_short_and_printable():
    message = fault(of("a\x1b[31m\n" * 1000).whole, "x", 0, 1)
    assert len(message) < 200
    assert message.isprintable()
