"""All shell scripts can be read by bash and pass shellcheck."""

import os
import shutil

import pytest

from tests.helpers.launchers import ROOT, run

SCRIPTS = [ROOT / "launch/slurm.sbatch", ROOT / "launch/tpu_vm.sh", ROOT / ".ci/run"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_are_sound(script):
    assert run("bash", "-n", script).returncode == 0
    assert os.access(script, os.X_OK)
    if shutil.which("shellcheck"):
        checked = run("shellcheck", script)
        assert checked.returncode == 0, checked.stdout
