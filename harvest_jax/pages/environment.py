"""Templates of pages that are one HTML file each and need no other file."""

from pathlib import Path

import jinja2

STYLE = Path(__file__).parent  # style.css: colours, light and dark, text, cards and tables


def page_environment(*templates: Path) -> jinja2.Environment:
    """The environment of folders of templates; "style.css" can be included in them too.

    Everything that a template shows is escaped, and a name that it does not have is an error.
    """
    # autoescape by file name does not recognise "report.html.j2" as HTML
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*templates, STYLE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
