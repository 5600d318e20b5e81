"""What an installer relies on: bounded dependencies, pins that satisfy them, and nothing that names an index."""

import importlib.metadata
import os
import re
import subprocess
import sys
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
LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK, re.MULTILINE))
# The accelerators' plugins come at jax's own version.
REQUIREMENTS = [Requirement(text) for text in PROJECT["dependencies"]] + [
    Requirement(text) for texts in EXTRAS.values() for text in texts if not text.startswith("harvest_jax")
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


def test_the_lock_has_the_versions_of_the_pins_and_names_no_index():
    assert {name: PINS.get(name) for name in LOCKED} == LOCKED, "make lock"
    assert "://" not in LOCK
    assert "--index" not in LOCK
    assert "--find-links" not in LOCK


def test_each_locked_version_has_hashes():
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(LOCKED)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry) for entry in entries)


def test_the_lock_has_everything_that_an_installation_brings():
    """The dependencies of the dependencies, too, as this environment's packages name them."""
    missing, seen = set(), set()
    todo = [Requirement(text) for text in PROJECT["dependencies"]]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, *requirement.extras) in seen:
            continue
        seen.add((name, *requirement.extras))
        if name not in LOCKED:
            missing.add(name)
        for text in importlib.metadata.requires(name) or []:
            further = Requirement(text)
            if not further.marker or any(further.marker.evaluate({"extra": e}) for e in ("", *requirement.extras)):
                todo.append(further)
    assert len(seen) > 50
    assert not missing, "make lock"


def test_no_dependency_is_a_direct_reference():
    """A package index refuses metadata that has one."""
    assert not [requirement for requirement in REQUIREMENTS if requirement.url]
    assert "allow-direct-references" not in (ROOT / "pyproject.toml").read_text()


def test_scenic_is_installed_from_one_commit():
    lines = (ROOT / "tests/weights/requirements_scenic.txt").read_text().splitlines()
    (text,) = (line for line in lines if not line.startswith("#"))
    url = Requirement(text).url
    assert url is not None
    assert re.fullmatch(r"git\+https://.*@[0-9a-f]{40}", url)


def test_the_console_script_and_every_command_module_exist():
    assert PROJECT["scripts"] == {"harvest": "harvest_jax.cli:main"}
    for module, _ in COMMANDS.values():
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module


def test_licences_lie_where_the_metadata_says():
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])
    assert "Apache License" in (ROOT / "LICENSE").read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Runs a command with the wheel's own files alone, from a folder that is not the checkout."""
    pytest.importorskip("hatchling")  # of the extra dev
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-compile", "--target", folder / "site", wheel], check=True)
    (folder / "elsewhere").mkdir()
    environment = os.environ | {"PYTHONPATH": str(folder / "site"), "JAX_PLATFORMS": "cpu"}

    def run(*words):
        return subprocess.run(
            [sys.executable, *words],
            cwd=folder / "elsewhere",
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_an_installed_wheel_brings_two_packages_and_no_other_top_level_name(installed):
    found = installed("-c", "import harvest_jax, pathlib; print(pathlib.Path(harvest_jax.__file__).parents[1])")
    site = Path(found.stdout.strip())
    assert site.name == "site"
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info" and path.name != "bin"} == {
        "harvest_jax",
        "data_pipeline",
    }


def test_an_installed_wheel_has_types_and_the_cards_of_its_model(installed):
    found = installed("-c", "import harvest_jax, data_pipeline; print(*harvest_jax.__path__, *data_pipeline.__path__)")
    folders = [Path(name) for name in found.stdout.split()]
    assert all((folder / "py.typed").is_file() for folder in folders)
    data = folders[0] / "demo/data"
    for card in (data / "README.md", data / "image_clip/README.md"):
        assert card.read_text().startswith("---\nlicense: apache-2.0\n")
    metadata = next(folders[0].parent.glob("*.dist-info/METADATA")).read_text()
    assert not re.search(r"^Requires-Dist:.* @ ", metadata, re.MULTILINE)


@pytest.mark.parametrize("name", ["demo", "configs/demo.py", "harvest_b16"])
def test_an_installed_wheel_finds_its_configs(name, installed):
    done = installed("-m", "harvest_jax", "plan", "--config", name, "--topology", "none")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--topology none" in done.stderr  # the config was found and checked before


def test_an_installed_wheel_finds_the_configs_of_evaluations_and_sweeps(installed):
    done = installed("-m", "harvest_jax", "eval", "--config", "eval/retrieval", "--model", "x")
    assert (done.returncode, "data.manifest" in done.stderr) == (2, True)
    words = ["--config", "sweeps/keep_ratio", "--workdir-root", "runs", "--dry_run", "--config.data.shards=x"]
    done = installed("-m", "harvest_jax.launch.sweep", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("to do") == 5


def test_an_installed_wheel_launches_several_processes(installed):
    words = ["--processes", "2", "--dry_run", "--", "--config", "demo", "--workdir", "runs/x"]
    done = installed("-m", "harvest_jax.launch.local", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("--config demo") == 2
    done = installed(
        "-c", "import harvest_jax, pathlib; print(*pathlib.Path(harvest_jax.__file__).parent.glob('launch/*'))"
    )
    assert {"slurm.sbatch", "tpu_vm.sh", "README.md"} <= {Path(name).name for name in done.stdout.split()}
