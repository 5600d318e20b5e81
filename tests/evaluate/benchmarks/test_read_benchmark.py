"""What is checked of every benchmark, and that each retrieval benchmark is described as it must be."""

import dataclasses

import pytest

from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import Benchmark, Row, counts
from harvest_jax.evaluate.benchmarks.read_benchmark import read
from harvest_jax.evaluate.datasets import activitynet, didemo, lsmdc, msrvtt, msvd, vatex
from tests.helpers import benchmark_miniatures as miniatures
from tests.helpers.benchmark_reading import fault

MODULES = (activitynet, didemo, lsmdc, msrvtt, msvd, vatex)
BENCHMARKS = {benchmark.name: benchmark for module in MODULES for benchmark in module.BENCHMARKS}


def with_rows(rows, **changes):
    benchmark = Benchmark(
        name="kites",
        title="Kites",
        version="1",
        task="retrieval",
        split="test",
        files={"captions": ("kites.json",)},
        read=lambda files: rows,
        expected={},
        captions="one",
        settings={},
        source="kites.example has it",
        licence="not stated",
    )
    return dataclasses.replace(benchmark, **changes)


def test_every_retrieval_benchmark_has_a_miniature():
    assert BENCHMARKS.keys() == miniatures.RETRIEVAL.keys()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_is_described_whole(name):
    benchmark = BENCHMARKS[name]
    assert benchmark.task == "retrieval"
    assert benchmark.expected.keys() == {"rows", "videos", "captions"}
    words = (benchmark.title, benchmark.version, benchmark.split, benchmark.source, benchmark.licence)
    assert all(text and text == text.strip() and "\n" not in text for text in words)
    assert benchmark.captions in ("one", "several", "paragraph")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_miniature_is_read_and_its_counts_are_refused_unless_partial(name, tmp_path):
    benchmark, folder = BENCHMARKS[name], miniatures.RETRIEVAL[name](tmp_path)
    rows = read(benchmark, folder, partial=True)
    found = counts(rows)
    assert found["rows"] == found["videos"] > 1
    assert (found["captions"] > found["rows"]) == (benchmark.captions == "several")
    with pytest.raises(DataError) as caught:
        read(benchmark, folder)
    message = str(caught.value)
    assert f"expected {benchmark.expected['videos']:,} videos, found {found['videos']} in " in message
    assert message.endswith("--config.data.partial=True scores them as another set")
    assert "\n" not in message
    assert read(dataclasses.replace(benchmark, expected=found), folder) == rows


def test_other_counts(tmp_path):
    path = miniatures.write_json(tmp_path / "kites.json", [])
    rows = [Row("a", "a", captions=("a kite", "a goat")), Row("b", "b", captions=("a kite",))]
    benchmark = with_rows(rows, captions="several", expected={"rows": 2, "videos": 2, "captions": 1200})
    with pytest.raises(DataError, match=r"Kites: expected 1,200 captions, found 3 in .*kites\.json"):
        read(benchmark, path)


@pytest.mark.parametrize(
    ("rows", "policy", "words"),
    [
        ([], "one", "no rows in"),
        ([Row("a", "a", captions=("x",)), Row("a", "b", captions=("y",))], "one", "the id 'a' is used already"),
        ([Row("a", "a", captions=("x", "y"))], "one", "a has 2 captions, but in Kites each video has one text"),
        ([Row("a", "a", captions=("x", "y"))], "paragraph", "a has 2 captions"),
        ([Row("a", "a")], "one", "a has 0 captions"),
        ([Row("a", "a")], "several", "a has no caption"),
        ([Row("a", "a", captions=("x", " "))], "several", "a has an empty caption"),
        ([Row("a", "a", 3.0, 3.0, ("x",))], "one", "a has an empty span, 3.0 to 3.0 s"),
        ([Row("a", "a", -1.0, None, ("x",))], "one", "a has an empty span"),
        ([Row("a", "a", float("nan"), None, ("x",))], "one", "a has an empty span"),
    ],
)
def test_rows_that_are_refused(tmp_path, rows, policy, words):
    path = miniatures.write_json(tmp_path / "kites.json", [])
    assert words in fault(with_rows(rows, captions=policy), path)


def test_rows_without_captions_are_accepted_where_there_are_none(tmp_path):
    path = miniatures.write_json(tmp_path / "kites.json", [])
    rows = [Row("a", "a", extra={"label": "kite"})]
    assert read(with_rows(rows, captions="none", expected={"rows": 1}), path) == rows


@pytest.mark.parametrize("name", BENCHMARKS)
def test_damaged_files_are_refused_or_read_but_never_crash(name, tmp_path):
    """Each file cut at many places, and with one byte replaced at many places."""
    folder = miniatures.RETRIEVAL[name](tmp_path)
    refused = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        places = range(0, len(content), max(1, len(content) // 15))
        for damaged in (
            *(content[:at] for at in places),
            *(content[:at] + bytes([byte]) + content[at + 1 :] for at in places for byte in (0, 34, 92, 255)),
        ):
            path.write_bytes(damaged)
            try:
                assert read(BENCHMARKS[name], folder, partial=True)
            except DataError as error:
                refused.append(str(error))
        path.write_bytes(content)
    assert len(refused) > 20
    assert not any("\n" in message for message in refused)
    assert read(BENCHMARKS[name], folder, partial=True)


def test_files_of_several_benchmarks_below_one_folder(tmp_path):
    for name in ("msvd", "didemo", "vatex"):
        folder = tmp_path / name
        folder.mkdir()
        miniatures.RETRIEVAL[name](folder)
    (tmp_path / "msvd" / "test_list.txt").write_text("-0kites_0A_0_9\n")
    for name in ("msvd", "didemo", "vatex"):
        assert len(read(BENCHMARKS[name], tmp_path, partial=True)) == (4 if name == "didemo" else 3)
    (tmp_path / "vatex").rename(tmp_path / "videos_of_ten_seconds")
    assert "are both called test_list.txt and differ" in fault(BENCHMARKS["vatex"], tmp_path)
