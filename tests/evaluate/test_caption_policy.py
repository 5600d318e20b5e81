"""Captions as queries: one each, several, a paragraph; and the refusal of what is not the benchmark's way."""

import pytest

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate import caption_policy

ROWS = [0, 1, 0, 2]
CAPTIONS = [("a b", "c"), ("d",), ("e",), ("f",)]


def test_by_default_each_caption_is_a_query():
    texts, owner = caption_policy.queries("", "set.csv", ROWS, CAPTIONS)
    assert (texts, owner.tolist()) == (["a b", "c", "d", "e", "f"], [0, 0, 1, 0, 2])
    again, same = caption_policy.queries("several", "set.csv", ROWS, CAPTIONS)
    assert (again, same.tolist()) == (texts, owner.tolist())


def test_a_paragraph_joins_the_captions_of_a_clip_in_the_order_of_the_rows():
    texts, owner = caption_policy.queries("paragraph", "set.csv", ROWS, CAPTIONS)
    assert (texts, owner.tolist()) == (["a b c e", "d", "f"], [0, 1, 2])


def test_one_caption_each():
    texts, owner = caption_policy.queries("one", "set.csv", [1, 0], [("x",), ("y",)])
    assert (texts, owner.tolist()) == (["x", "y"], [1, 0])


@pytest.mark.parametrize(
    ("wanted", "clips", "captions", "message"),
    [
        ("one", ROWS, CAPTIONS, "captions=one, but set.csv has 5 captions of 3 clips: write captions=several"),
        ("several", [0, 1], [("x",), ("y",)], "captions=several, but every clip of set.csv has one caption"),
    ],
)
def test_rows_that_contradict_the_policy(wanted, clips, captions, message):
    with pytest.raises(DataError, match=message) as error:
        caption_policy.queries(wanted, "set.csv", clips, captions)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("benchmark", ["one", "several", "paragraph", "none"])
@pytest.mark.parametrize("wanted", ["", "one", "several", "paragraph"])
def test_only_the_policy_of_the_benchmark_passes(wanted, benchmark):
    if wanted in ("", benchmark):
        caption_policy.check(wanted, benchmark, "MSVD")
    else:
        with pytest.raises(ConfigError, match=rf"captions={wanted} \(.*\) is not how MSVD is scored") as error:
            caption_policy.check(wanted, benchmark, "MSVD")
        assert "\n" not in str(error.value)


def test_a_query_bank_is_one_caption_in_a_line(tmp_path):
    path = tmp_path / "bank.txt"
    path.write_bytes("\ufeffa dog\r\n\r\n  ein Hund läuft \na dog\n".encode())
    assert caption_policy.read_bank(path) == ["a dog", "ein Hund läuft", "a dog"]


@pytest.mark.parametrize(
    ("content", "message"), [(None, ""), (b"\n \n", "the file has none"), (b"\xff\xfe\x00", "is not UTF-8 text")]
)
def test_a_query_bank_that_cannot_be_read(content, message, tmp_path):
    path = tmp_path / "bank.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"captions of the query bank.*bank\.txt.*{message}") as error:
        caption_policy.read_bank(path)
    assert "\n" not in str(error.value)
