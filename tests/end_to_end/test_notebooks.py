"""The notebooks: text form and notebook agree, the cell that installs does, and each runs from first to last cell."""

import base64
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "launch/colab"
INSTALL_CELL = (FOLDER / "install_cell.py").read_text(encoding="utf-8").split("# %% install\n")[1].rstrip("\n")
NAMES = ("clip", "finetune", "quickstart", "search", "shards", "sweep")
# Steps of training, clips of each caption, seeds and seconds of measuring that are enough to run every cell.
SMALL = {
    "HARVEST_STEPS": "4",
    "HARVEST_CLIPS": "1",
    "HARVEST_SEEDS": "1",
    "HARVEST_KEPT": "0.2 0.05",
    "HARVEST_SECONDS": "1",
}


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_every_notebook_has_its_text_form_and_a_line_in_the_readme():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == list(NAMES)
    assert {path.stem for path in FOLDER.glob("*.py")} == {*NAMES, "install_cell", "make_notebooks"}
    readme = (ROOT / "launch/README.md").read_text()
    assert all(f"(colab/{name}.ipynb)" in readme for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_text_form_and_notebook_agree(name):
    pytest.importorskip("jupytext")  # of the extra notebooks
    from launch.colab import make_notebooks

    found = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert found == make_notebooks.notebook(FOLDER / f"{name}.py"), "run `make notebooks`"


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_common_cell_no_outputs_and_no_path_of_a_machine(name):
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.id for cell in code[:2]] == ["parameters", "install"]
    assert code[1].source == INSTALL_CELL
    for cell in code:
        assert cell.outputs == []
        assert cell.execution_count is None
        assert "tags" not in cell.metadata  # such as one by which a cell may fail
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|work|tmp|Users|mnt|opt|content)/", text)


@pytest.mark.parametrize("name", NAMES)
def test_what_its_text_names_exists(name, monkeypatch):
    from tests import test_docs as pages

    text = "\n\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    page = f"launch/colab/{name}.md"
    monkeypatch.setitem(pages.PAGES, page, text)
    pages.test_links_lead_to_files_and_headings_that_exist(page)
    pages.test_files_of_the_project_exist(page)
    pages.test_commands_have_the_options(page)
    pages.test_config_fields_exist(page)
    notebooks = re.findall(r"(\w+)\.ipynb", text)
    assert set(notebooks) <= set(NAMES)


# What pip is asked for


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Runs `install(SOURCE)` of the cell on a machine with or without accelerators; what pip would be given."""
    cell = {"__name__": "cell"}
    exec(INSTALL_CELL, cell)  # harvest_jax is there: nothing is installed
    monkeypatch.chdir(tmp_path)

    def run(source, gpu=False, tpu=False, code=0, said=""):
        calls = []

        def pip(words, **_):
            calls.append(words)
            return SimpleNamespace(returncode=code, stdout=said)

        found = importlib.util.find_spec
        spec = lambda name: (object() if tpu else None) if name == "libtpu" else found(name)  # noqa: E731
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "run", pip)
            patch.setattr(shutil, "which", lambda name: "/bin/nvidia-smi" if gpu else None)
            patch.setattr(importlib.util, "find_spec", spec)
            cell["install"](source)
        return calls[0][-1]

    return run


def test_every_source_becomes_a_requirement_with_the_accelerators_plugin(asked, tmp_path):
    wheel = tmp_path / "harvest_jax-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    assert asked("harvest_jax==0.1.0") == "harvest_jax==0.1.0"
    assert asked("harvest_jax==0.1.0", gpu=True) == "harvest_jax[gpu]==0.1.0"
    assert asked("harvest_jax", tpu=True) == "harvest_jax[tpu]"
    assert asked(wheel.name, gpu=True) == f"harvest_jax[gpu] @ {wheel.as_uri()}"
    assert asked(str(tmp_path)) == f"harvest_jax @ {tmp_path.as_uri()}"
    assert asked("git+https://example.org/h.git@v1", tpu=True) == "harvest_jax[tpu] @ git+https://example.org/h.git@v1"


def test_what_pip_says_is_shown_if_it_fails(asked):
    with pytest.raises(SystemExit, match="no such version"):
        asked("harvest_jax==9", code=1, said="no such version")


def test_a_session_that_has_loaded_what_pip_replaced_is_to_be_restarted(asked, monkeypatch):
    monkeypatch.setattr(np, "__version__", "1.0")
    with pytest.raises(SystemExit, match=r"pip replaced numpy, .* restart the session"):
        asked("harvest_jax==0.1.0")


# With pip


RUN_INSTALL = """
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
    """A wheel of this checkout, made by the command that the readme names."""
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
        command = [sys.executable, "-S", "-c", RUN_INSTALL, FOLDER / "quickstart.ipynb"]
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
    done = install(FOLDER, str(Path(builder.__file__).parents[1]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"installed in {tmp_path / 'site'}" in done.stdout


def test_without_a_wheel_it_says_what_to_do(install, tmp_path):
    (tmp_path / "content").mkdir()
    done = install(tmp_path / "content")
    assert done.returncode != 0
    assert (
        f"Put harvest_jax-VERSION-py3-none-any.whl into {tmp_path / 'content'} and run this cell again" in done.stderr
    )


# Executed


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The code cells of a notebook by id, with their outputs; a cell that raises is an error here."""
    done = {}

    def run(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            notebook = read(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PYTHONPATH", str(ROOT))  # this checkout, not what may be installed
                patch.setenv("IPYTHONDIR", str(folder / "ipython"))
                patch.delenv("XLA_FLAGS")  # one device, as a reader has
                patch.delenv("MPLBACKEND")  # a notebook shows its figures
                for variable, value in SMALL.items():
                    patch.setenv(variable, value)
                resources = {"metadata": {"path": str(folder)}}
                NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
            done[name] = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
        return done[name]

    return run


def printed(cell, stream="stdout"):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == stream)


def shown(cell, kind):
    return [output.data[kind] for output in cell.outputs if kind in output.get("data", {})]


PICTURES = {
    "quickstart": {"world": 2, "shards": 1, "dropping": 2, "image-model": 1, "attention": 6, "search": 6},
    "search": {"look": 6, "motion": 4, "similar": 3},
    "shards": {"inspect": 1},
    "finetune": {"confusion": 1},
    "sweep": {"plot": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_without_warnings_and_shows_its_pictures(name, executed):
    cells = executed(name)
    for cell in cells.values():
        assert "Warning" not in printed(cell) + printed(cell, "stderr"), cell.id
    for cell, count in PICTURES.get(name, {}).items():
        found = shown(cells[cell], "image/png")
        assert len(found) == count, cell
        for content in found:
            picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))
            assert picture.shape[0] >= 64
            assert picture.shape[1] >= 500
            assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 5  # not one flat colour


@pytest.mark.slow
def test_quickstart(executed):
    cells = executed("quickstart")
    assert "played backwards: 1.00" in printed(cells["image-model"])
    assert "step 4/4" in printed(cells["training"])
    (page,) = shown(cells["curves"], "text/html")
    charts = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(charts) == page.count("<img") == 3
    assert all(b"<svg" in base64.b64decode(chart) for chart in charts)
    tables = printed(cells["after"])
    assert tables.count("average of frames") >= 3  # overview, retrieval, choice; narrow tables break the model's name
    shares = [text for text in shown(cells["attention"], "text/markdown") if "share of each frame" in text]
    for text in shares:
        each = [int(share) for share in re.findall(r"(\d+)%", text)]
        assert len(each) == 8
        assert abs(sum(each) - 100) <= 4  # rounded
    assert [text.split(",")[0] for text in shares] == ["image model", "video model"] * 2


@pytest.mark.slow
def test_search(executed):
    cells = executed("search")
    assert "40 files, 40 windows (40 new)" in printed(cells["first-search"])
    assert "cannot be read: harvest_search/videos/broken.mp4" in printed(cells["changed"])
    assert "42 files, 40 windows (2 new, 1 moved or copied, 1 not readable)" in printed(cells["changed"])
    assert printed(cells["similar"]).startswith("1.000")


@pytest.mark.slow
def test_shards(executed):
    cells = executed("shards")
    (table,) = shown(cells["rejects"], "text/markdown")
    assert len(table.splitlines()) == 2 + 6  # the six bad rows, each with its reason
    assert "81 clips in 1 shard" in printed(cells["shards"])
    for name in ("gone.mp4", "page.mp4", "cut.mp4", "empty.mp4"):
        assert name in table
    assert "clips/s" in printed(cells["loader"])


@pytest.mark.slow
def test_finetune(executed):
    cells = executed("finetune")
    assert "step 4/4" in printed(cells["fine-tuning"])
    results = printed(cells["evaluation"])
    assert "top-1" in results
    assert re.search(r"\d", printed(cells["compare"]))


@pytest.mark.slow
def test_sweep(executed):
    cells = executed("sweep")
    assert printed(cells["list"]).count("to do") == 2
    (table,) = shown(cells["table"], "text/markdown")
    assert all(f"| {value} |" in table for value in ("0.2", "0.05"))
    (plot,) = shown(cells["table"], "image/svg+xml")
    assert "<svg" in plot


@pytest.mark.slow
def test_clip(executed):
    cells = executed("clip")
    equal = printed(cells["equal"])
    assert "the two imports have the same embeddings, bit for bit" in equal
    assert float(re.search(r"packaged model: (\S+)", equal)[1]) < 1e-5
    assert "give --activation" in printed(cells["random"])
    assert "step 4/4" in printed(cells["training"])
    assert "model.safetensors" in printed(cells["export"])
