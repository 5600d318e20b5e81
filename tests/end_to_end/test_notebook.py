"""The notebook runs from its first cell to its last (with 4 steps of training), and shows what it says it shows."""

import base64
import io
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from harvest_jax import cli

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "launch/colab/demo.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Its code cells by id, with their outputs; a cell that raises is an error here."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # this checkout, not what may be installed
        patch.setenv("HARVEST_STEPS", "4")
        patch.setenv("HARVEST_CLIPS", "1")
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.delenv("XLA_FLAGS")  # one device, as a reader has
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def printed(cell, stream="stdout"):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == stream)


def shown(cell, kind):
    return [output.data[kind] for output in cell.outputs if kind in output.get("data", {})]


def test_it_is_kept_without_outputs_and_no_cell_may_fail():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert "raises-exception" not in cell.metadata.get("tags", [])
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


INSTALL = """
import os, sys
import nbformat
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
cells = {cell.id: cell.source for cell in nbformat.read(sys.argv[1], as_version=4).cells}
for name in ("parameters", "install"):
    shell.run_cell(cells[name]).raise_error()
import harvest_jax
print("installed in", os.path.dirname(os.path.dirname(harvest_jax.__file__)))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of this checkout, made by the command that the notebook names."""
    pytest.importorskip("hatchling")  # of the extra dev
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture
def install(tmp_path):
    """Runs the first two cells in a folder, where harvest_jax is not installed and pip can reach no network."""

    def run(folder, *more, **variables):
        # Without `site` an editable install of this checkout is not seen, what it depends on is.
        found = os.pathsep.join([str(tmp_path / "site"), sysconfig.get_path("purelib"), *more])
        # pip reads the value of a flag that begins with "no" the wrong way round: 0 switches the isolation off
        pip = {
            "PIP_TARGET": str(tmp_path / "site"),
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
        }
        environment = os.environ | pip | {"PYTHONPATH": found, "IPYTHONDIR": str(tmp_path / "ipython")} | variables
        command = [sys.executable, "-S", "-c", INSTALL, NOTEBOOK]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)

    return run


@pytest.mark.parametrize("where", ["beside the notebook", "named by SOURCE"])
def test_it_installs_a_wheel(wheel, install, tmp_path, where):
    (tmp_path / "content").mkdir()
    variables = {}
    if where == "named by SOURCE":
        variables["HARVEST_SOURCE"] = str(wheel)
    else:
        (tmp_path / "content" / wheel.name).write_bytes(wheel.read_bytes())
    done = install(tmp_path / "content", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"installed in {tmp_path / 'site'}" in done.stdout


def test_it_installs_the_checkout_that_it_lies_in(install, tmp_path):
    builder = pytest.importorskip("hatchling")  # of the extra dev
    done = install(NOTEBOOK.parent, str(Path(builder.__file__).parents[1]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"installed in {tmp_path / 'site'}" in done.stdout


def test_without_a_wheel_it_says_what_to_do(install, tmp_path):
    (tmp_path / "content").mkdir()
    done = install(tmp_path / "content")
    assert done.returncode != 0
    assert (
        f"Put harvest_jax-VERSION-py3-none-any.whl into {tmp_path / 'content'} and run this cell again" in done.stderr
    )


def test_the_commands_it_names_exist_and_start_from_weights(tmp_path, monkeypatch, capsys):
    """In an empty folder each command gets as far as the first file that is missing."""
    monkeypatch.chdir(tmp_path)
    text = next(cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.id == "next")
    commands = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("harvest ")]
    assert [command[0] for command in commands] == ["shards", "weights", "train", "search"]
    assert any(word.startswith("--config.model.init_from=") for word in commands[2])
    for command in commands:
        assert cli.main(command) == 3, command
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "pictures"), [("world", 2), ("shards", 1), ("dropping", 2), ("image-model", 1), ("search", 6)]
)
def test_pictures(executed, cell, pictures):
    found = shown(executed[cell], "image/png")
    assert len(found) == pictures
    for content in found:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))
        assert picture.shape[0] >= 64
        assert picture.shape[1] >= 8 * 64
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 5  # not one flat colour


@pytest.mark.slow
def test_loss_curves(executed):
    (page,) = shown(executed["curves"], "text/html")
    charts = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(charts) == page.count("<img") == 3
    assert all(b"<svg" in base64.b64decode(chart) for chart in charts)


@pytest.mark.slow
def test_what_it_says_of_the_models(executed):
    assert "played backwards: 1.00" in printed(executed["image-model"])
    before = printed(executed["before"])
    guessed = re.search(r"its reverse: ([0-9.]+) % of 200", before)
    assert guessed
    assert abs(float(guessed[1]) - 50) < 12  # 3.4 standard errors
    assert "step 4/4" in printed(executed["training"])
    (tables,) = shown(executed["after"], "text/markdown")
    assert tables.count("image model, average of frames |") == 3  # overview, retrieval, choice
    lines = printed(executed["after"]).replace("\N{NO-BREAK SPACE}", " ")
    assert len(re.findall(r" / .*: [0-9.]+ % before, [0-9.]+ % after", lines)) == 5
    assert "the text tower is bit for bit the same" in printed(executed["after"])
    assert "14.8 times less arithmetic than with all patches" in printed(
        executed["dropping"]
    ) or "14.7 times" in printed(executed["dropping"])
    assert re.search(r"right at first in at most \d+%", printed(executed["curves"]))


@pytest.mark.slow
def test_no_cell_warns(executed):
    for cell in executed.values():
        assert "Warning" not in printed(cell, "stderr")
