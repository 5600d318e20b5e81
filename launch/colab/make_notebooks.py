"""Write the notebooks, NAME.ipynb, from their text forms, NAME.py (percent format), with the cell of install_cell.py.

python launch/colab/make_notebooks.py      # make notebooks

A cell's title in the text form (`# %% title`) is its id in the notebook.
"""

from pathlib import Path

import jupytext
import nbformat

FOLDER = Path(__file__).parent
INSTALL_CELL = FOLDER / "install_cell.py"
METADATA = {
    "colab": {"provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}}  # a long cell, which Colab and JupyterLab can fold


def sources():
    """The text forms, in the order of their names."""
    return sorted(path for path in FOLDER.glob("*.py") if path not in (INSTALL_CELL, Path(__file__)))


def notebook(source):
    """The content of the notebook that belongs to a text form: the same at every call, without outputs."""
    made = jupytext.read(source, fmt="py:percent")
    (install,) = (cell.source for cell in jupytext.read(INSTALL_CELL, fmt="py:percent").cells if is_install(cell))
    for number, cell in enumerate(made.cells):
        cell.id = cell.metadata.get("title", f"text-{number}")
        cell.metadata = {}
        if cell.id == "install":
            cell.source, cell.metadata = install, FOLDED
    made.metadata = METADATA
    nbformat.validate(made)
    return nbformat.writes(made) + "\n"


def is_install(cell):
    """Whether it is the place of the cell that installs."""
    return cell.metadata.get("title") == "install"


if __name__ == "__main__":
    for source in sources():
        source.with_suffix(".ipynb").write_text(notebook(source), encoding="utf-8")
        print(source.with_suffix(".ipynb"))
