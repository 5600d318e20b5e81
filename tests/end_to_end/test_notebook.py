"""The notebook runs from its first cell to its last (with 4 steps of training), and shows what it says it shows."""

import base64
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

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
    before = printed(executed["before"]).replace("\N{NO-BREAK SPACE}", " ")
    guessed = re.search(r"its reverse: ([0-9.]+) % of 200", before)
    assert guessed
    assert abs(float(guessed[1]) - 50) < 12  # 3.4 standard errors
    assert "step 4/4" in printed(executed["training"])
    (table,) = (text.replace("\N{NO-BREAK SPACE}", " ") for text in shown(executed["after"], "text/markdown"))
    assert table.count(" %") == 2 * (1 + 1 + 5)
    assert "bit for bit the same" in printed(executed["after"])


@pytest.mark.slow
def test_no_cell_warns(executed):
    for cell in executed.values():
        assert "Warning" not in printed(cell, "stderr")
