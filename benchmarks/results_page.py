"""The tables and plots of docs/results.md, from the committed scores of benchmarks/claims.py: `make results`.

    python -m benchmarks.results_page

A table stands between `<!-- table: NAME -->` and `<!-- end -->` and is written anew; all other text of the page stays.
Plots are docs/results/NAME.svg. Figures are means over seeds, with the half-width of their 95 % interval (Student's t
of the seeds): what that says is on the page.
"""

import argparse
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import results_plots as plots
from benchmarks import results_tables as tables
from benchmarks.claims_scores import SWEPT, Found

ROOT = Path(__file__).resolve().parents[1]
FOUND = ROOT / "benchmarks/results/claims"
PAGE = ROOT / "docs/results.md"
PLOTS = ROOT / "docs/results"
# Name in the page -> (claim, its table, its plot)
SHOWN: dict[str, tuple[str, Callable[[Found], str], Callable[[Found, Axes], None] | None]] = {
    **{
        claim: (claim, functools.partial(tables.sweep_table, claim), functools.partial(plots.sweep_plot, claim))
        for claim in SWEPT
    },
    "arithmetic": ("dropping", tables.flops_note, None),
    "answers": ("masking", tables.answers_table, None),
    "inference": ("inference", tables.inference_table, plots.inference_plot),
    "models": ("image_models", tables.models_table, plots.models_plot),
    "factors": ("image_models", tables.factors_table, None),
    "mixes": ("mixes", tables.mixes_table, plots.mixes_plot),
}


def page(text: str, found_in: Path) -> str:
    """The page with its tables made anew; a claim without scores says so."""

    def made(match: re.Match[str]) -> str:
        name = match[1]
        claim, as_table, plot = SHOWN[name]
        path = found_in / f"{claim}.json"
        inside = as_table(json.loads(path.read_text("utf-8"))) if path.exists() else "*Not run yet.*"
        if plot is not None and path.exists():
            inside += f"\n\n![{name.replace('_', ' ')}: the table's figures as a plot](results/{name}.svg)"
        return f"<!-- table: {name} -->\n\n{inside}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", made, text, flags=re.S)


def draw(found_in: Path, folder: Path) -> None:
    """The plots of all claims that have scores."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (claim, _, plot) in SHOWN.items():
        path = found_in / f"{claim}.json"
        if plot is None or not path.exists():
            continue
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "harvest", "font.size": 9}):
            figure = Figure(figsize=(6.4, 3.6), layout="constrained")
            plot(json.loads(path.read_text("utf-8")), figure.subplots())
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PAGE.write_text(page(PAGE.read_text("utf-8"), FOUND), encoding="utf-8")
    draw(FOUND, PLOTS)


if __name__ == "__main__":
    main()
