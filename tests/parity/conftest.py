"""One size after the other: references, files, imports and our towers are made once and shared by all tests of a size.

torch is imported in the fixtures alone, so that collecting these tests needs nothing that `make test` does not install.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.parity.sizes import SIZES

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported: nothing is fetched
FIGURES = pytest.StashKey[list[dict]]()


@pytest.fixture(scope="session", params=SIZES)
def size(request):
    """A published architecture."""
    return request.param


@pytest.fixture(scope="session")
def reference(size, tmp_path_factory) -> Iterator:
    """`cases.Reference` of the size; its files go when the next size begins."""
    from tests.parity import cases

    folder = tmp_path_factory.mktemp("reference")
    yield cases.make_reference(size, folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def imported(reference, tmp_path_factory) -> Iterator[dict[str, Path]]:
    """A model folder of each of the reference's files, by kind of file."""
    from tests.parity import cases

    folder = tmp_path_factory.mktemp("imported")
    yield cases.import_files(reference, folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def ours(reference, imported):
    """`cases.Ours`: our towers with what was imported from transformers' folder."""
    from tests.parity import cases

    return cases.run_ours(reference, imported["transformers"])


@pytest.fixture
def out(tmp_path) -> Iterator[Path]:
    """A place for an export, which is gone after the test: pytest keeps what lies elsewhere in `tmp_path`."""
    yield tmp_path / "out"
    shutil.rmtree(tmp_path / "out", ignore_errors=True)


@pytest.fixture
def measured(request) -> Callable[[str, str, str, float, float], None]:
    """Note a figure for the table at the end, then hold it against its bound."""

    def note(size: str, what: str, against: str, value: float, bound: float) -> None:
        figures = request.config.stash.setdefault(FIGURES, [])
        figures.append({"size": size, "what": what, "against": against, "value": value, "bound": bound})
        assert value <= bound, f"{size} {what} against {against}: {value:.3g} is above {bound:.3g}"

    return note


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Size by size across the files, whichever sizes a test is for: a billion parameters are made once."""
    sizes = [getattr(getattr(item, "callspec", None), "params", {}).get("size") for item in items]
    mine = [i for i, size in enumerate(sizes) if size in SIZES]  # others have sizes of pictures
    ordered = sorted(mine, key=lambda i: SIZES.index(sizes[i]))
    for i, item in zip(mine, [items[i] for i in ordered], strict=True):
        items[i] = item


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """The measured differences as a Markdown table; as JSON too where PARITY_RESULTS names a file."""
    figures = config.stash.get(FIGURES, [])
    if not figures:
        return
    terminalreporter.section("measured")
    terminalreporter.write_line("| size | what | against | largest difference | bound |")
    terminalreporter.write_line("|---|---|---|---|---|")
    for row in figures:
        cells = row["size"], row["what"], row["against"], f"{row['value']:.2g}", f"{row['bound']:.2g}"
        terminalreporter.write_line(f"| {' | '.join(cells)} |")
    if os.environ.get("PARITY_RESULTS"):
        Path(os.environ["PARITY_RESULTS"]).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
