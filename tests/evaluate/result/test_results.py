"""Result files, the tables of queries beside them, and the width of ties."""

import dataclasses
import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from harvest_jax.evaluate.clips.frame_readers import VideoSpan
from harvest_jax.evaluate.result.queries import Queries
from harvest_jax.evaluate.result.results import EvaluationResult, TextFacts, queries_path, tie_spread
from harvest_jax.evaluate.scores.ranking import Ranks

RANKS = Ranks(np.array([0, 3]), np.array([1, 0]), np.array([1, 1]))
QUERIES = Queries(
    "t2v", [VideoSpan("a.mp4", 1.0, 2.5), VideoSpan("\udce9.mp4")], ["x", "y"], RANKS, np.array([False, True])
)
RESULT = EvaluationResult(
    task="retrieval",
    protocol={"frames": 4},
    model={"name": "m"},
    data={"name": "d"},
    inputs={},
    texts=TextFacts(2, 77, 0),
    n_expected=2,
    n_missing=0,
    missing=[],
    metrics={"R@1": 50.0},
    faults=["a fault"],
    notes=["a note"],
    run={},
    queries=[QUERIES],
)


def test_a_result_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "r.json"
    RESULT.write(path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == {"r.json", "r.json.queries.parquet"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(RESULT, queries=[], metrics={"a": list(range(10000)), "R@1": float("nan")}).write(path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    written = json.loads(path.read_text("utf-8"))
    assert written.pop("queries")["name"] == "r.json.queries.parquet"
    assert written == RESULT.to_dict()
    assert written["warnings"] == ["a fault", "a note"]


def test_the_table_of_queries_holds_their_ranks_and_is_named_in_the_result(tmp_path):
    RESULT.write(tmp_path / "r.json")
    table = queries_path(tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text("utf-8"))["queries"]
    assert found == {"name": table.name, "sha256": hashlib.sha256(table.read_bytes()).hexdigest()}
    first = {"part": "t2v", "video": "a", "start": 1.0, "end": 2.5, "text": "x", "type": None, "missing": False}
    second = {"part": "t2v", "video": "\\udce9", "start": None, "end": None, "text": "y", "type": None, "missing": True}
    assert pq.read_table(table).to_pylist() == [
        first | {"greater": 0, "tied": 1, "right": 1, "value": None},
        second | {"greater": 3, "tied": 0, "right": 1, "value": None},
    ]


def test_a_name_that_is_not_utf8_does_not_lose_the_result(tmp_path):
    """Such a byte in a path of the command line is a lone surrogate in Python."""
    dataclasses.replace(RESULT, model={"name": "mod\udce8le \u4e2d"}).write(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["model"]["name"] == "mod\udce8le \u4e2d"


def test_the_widest_tie_is_found_at_any_depth():
    metrics = {"a": {"optimistic": {"R@1": 9.0, "MedR": 1}, "pessimistic": {"R@1": 7.5, "MedR": 99}}, "n": 3}
    assert tie_spread(metrics) == 1.5
    assert tie_spread({"n": 3}) == 0
