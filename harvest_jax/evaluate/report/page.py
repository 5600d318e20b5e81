"""Tables as one HTML page that needs no other file."""

from pathlib import Path

from harvest_jax.evaluate.report.grids import Report
from harvest_jax.pages.environment import page_environment
from harvest_jax.version import __version__

TEMPLATES = Path(__file__).parent / "templates"  # grids.html.j2 and grids.css: the tables, for other pages too


def page(report: Report) -> str:
    """The page, in light or dark colours as the reader's system has them."""
    return page_environment(TEMPLATES).get_template("results.html.j2").render(report=report, version=__version__)
