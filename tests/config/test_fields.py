"""The checked builder of dataclasses, on one of each annotation, and the choices that base.py's comments list."""

import dataclasses
import re
import typing
from typing import Annotated, Literal

import pytest

from harvest_jax.config import run as run_config
from harvest_jax.config.fields import Range, build
from harvest_jax.config.files import config_file
from harvest_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Inner:
    share: Annotated[float, Range(0, 1)]


@dataclasses.dataclass(frozen=True)
class Outer:
    count: int
    way: Literal["near", "far"]
    texts: str | tuple[str, ...]
    pair: tuple[str, float]
    inner: Inner


VALUES = {"count": 3, "way": "far", "texts": "a", "pair": ["x", 1], "inner": {"share": 1}}


def test_values_come_out_in_the_types_of_the_annotations():
    assert build(Outer, VALUES) == Outer(3, "far", "a", ("x", 1.0), Inner(1.0))


@pytest.mark.parametrize(
    ("given", "built"),
    [
        ("a {}", "a {}"),
        (["a", "b"], ("a", "b")),
        ("['a {}', 'b']", ("a {}", "b")),
        ("('a',)", ("a",)),
        ("'a'", "'a'"),
        ("[", "["),
    ],
)
def test_a_text_or_a_list_of_texts(given, built):
    assert build(Outer, VALUES | {"texts": given}).texts == built


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": True}, "count: expected a whole number, got True"),
        ({"count": 2.0}, r"count: expected a whole number, got 2.0 \(write 2\)"),
        ({"way": "nera"}, r"way='nera' must be one of near, far \(did you mean near\?\)"),
        ({"way": ["near"]}, "must be one of near, far"),
        ({"texts": [1]}, "texts: expected a text or a list of texts"),
        ({"texts": "[1]"}, "texts: expected a text or a list of texts"),
        ({"pair": ("x",)}, "pair: expected 2 values"),
        ({"inner": {"share": float("nan")}}, "inner.share=nan is outside 0..1"),
        ({"inner": 3}, "inner is a group of fields, not 3"),
        (
            {"inner": {"shares": 1}},
            r"unknown field inner.shares \(did you mean inner.share\?\); missing field inner.sha",
        ),
    ],
)
def test_faults(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(Outer, VALUES | changes)


def choices():
    """(path of a field, its choices) of every field of a run that has choices."""
    for group, hint in typing.get_type_hints(run_config.RunConfig).items():
        if dataclasses.is_dataclass(hint):
            for name, kind in typing.get_type_hints(hint).items():
                if typing.get_origin(kind) is Literal:
                    yield f"{group}.{name}", typing.get_args(kind)


def test_the_comments_of_base_list_exactly_the_choices_that_are_checked():
    lines = config_file("base.py").read_text().splitlines()
    found = dict(choices())
    assert len(found) >= 8
    for path, names in found.items():
        (start,) = (number for number, line in enumerate(lines) if line.strip().startswith(f"{path} = "))
        comment = lines[start].split("  # ", 1)[1]
        for line in lines[start + 1 :]:
            if not line.strip().startswith("#"):
                break
            comment += " " + line.strip("# ")
        for name in names:
            assert re.search(rf"(?<![\w/]){re.escape(name)}(?![\w@/])", comment), (
                f"{path}: {name!r} is not in {comment!r}"
            )


Scale = Annotated[float, Range(0, 10)]


@dataclasses.dataclass(frozen=True)
class Later:
    scale: Scale | tuple[Scale, ...]
    newer: int = 7


@pytest.mark.parametrize(
    ("given", "built"),
    [(2, 2.0), ((1, 2.5), (1.0, 2.5)), ([], ()), ("[3]", (3.0,)), ("(1, 2)", (1.0, 2.0)), ("4", 4.0)],
)
def test_a_number_or_a_list_of_numbers(given, built):
    assert build(Later, {"scale": given}).scale == built


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("x", "scale: expected a number, got 'x'"),
        ([1, "x"], "scale: expected a number, got 'x'"),
        (11, r"scale=11.0 is outside 0\.\.10"),
        ([1, 11], r"scale=11.0 is outside 0\.\.10"),
        (True, "scale: expected a number, got True"),
    ],
)
def test_faults_of_a_number_or_a_list(given, message):
    with pytest.raises(ConfigError, match=message):
        build(Later, {"scale": given})


def test_a_field_with_a_default_may_be_missing():
    assert build(Later, {"scale": 1}) == Later(1.0, 7)
    with pytest.raises(ConfigError, match="missing field scale"):
        build(Later, {"newer": 1})
