"""What an installer relies on: bounded dependencies, pins that satisfy them, and nothing that names an index."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harvest_jax.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = {
    canonicalize_name(line.split("==")[0]): line.split("==")[1]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
}
# The accelerators' plugins come at jax's own version; scenic is a commit.
REQUIREMENTS = [Requirement(text) for text in PROJECT["dependencies"]] + [
    Requirement(text)
    for extra, texts in EXTRAS.items()
    for text in texts
    if extra != "scenic" and not text.startswith("harvest_jax")
]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_dependency_is_bounded_and_pinned_inside_its_bounds(requirement):
    operators = {specifier.operator for specifier in requirement.specifier}
    assert ">=" in operators
    # regex is numbered by dates: no version of it is the next major one.
    assert "<" in operators or requirement.name == "regex"
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_the_pins_name_no_index():
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    assert all(line.startswith("#") or (line.count("==") == 1 and " " not in line) for line in text.splitlines())


def test_the_scenic_extra_is_one_commit():
    (text,) = EXTRAS["scenic"]
    url = Requirement(text).url
    assert url is not None
    assert len(url.rpartition("@")[2]) == 40


def test_the_console_script_and_every_command_module_exist():
    assert PROJECT["scripts"] == {"harvest": "harvest_jax.cli:main"}
    for module, _ in COMMANDS.values():
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module


def test_licences_lie_where_the_metadata_says():
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])
    assert "Apache License" in (ROOT / "LICENSE").read_text()
