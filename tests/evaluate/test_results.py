"""Result files, and the width of ties."""

import dataclasses
import json

import pytest

from harvest_jax.evaluate.results import EvaluationResult, tie_spread

RESULT = EvaluationResult("retrieval", {"frames": 4}, 2, 0, [], {"R@1": 50.0}, [], "m", 0)


def test_a_result_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "r.json"
    RESULT.write(path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(RESULT, metrics={"a": list(range(10000)), "R@1": float("nan")}).write(path)
    assert json.loads(path.read_text("utf-8")) == RESULT.to_dict()
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.json"]


def test_a_name_that_is_not_utf8_does_not_lose_the_result(tmp_path):
    """Such a byte in a path of the command line is a lone surrogate in Python."""
    dataclasses.replace(RESULT, model="mod\udce8le \u4e2d").write(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["model"] == "mod\udce8le \u4e2d"


def test_the_widest_tie_is_found_at_any_depth():
    metrics = {"a": {"optimistic": {"R@1": 9.0, "MedR": 1}, "pessimistic": {"R@1": 7.5, "MedR": 99}}, "n": 3}
    assert tie_spread(metrics) == 1.5
    assert tie_spread({"n": 3}) == 0
