"""`harvest results`: tables of results on the terminal, as Markdown and as a page."""

import argparse
import sys
from pathlib import Path

from harvest_jax.errors import ConfigError

EXAMPLES = """examples:
  harvest results results/ --markdown table.md --html table.html
  harvest results before.json after.json --compare

Rows are models, columns protocols: scores of two protocols are never in one column.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest results`."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="DIR_OR_FILE", help="results of harvest eval --out, or folders with them"
    )
    parser.add_argument(
        "--compare", action="store_true", help="compare the first result with the others, query by query"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the tables as one HTML page")


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    from harvest_jax.evaluate.report.compare import compare
    from harvest_jax.evaluate.report.grids import report
    from harvest_jax.evaluate.report.page import page
    from harvest_jax.evaluate.report.result_files import read_results
    from harvest_jax.evaluate.report.show import markdown, terminal, terminal_width
    from harvest_jax.files import write_atomically

    for option, out in (("--markdown", args.markdown), ("--html", args.html)):
        if out is not None and out.is_dir():
            raise ConfigError(f"{option} {out} is a folder: name a file")
    found = read_results(args.paths)
    shown = (compare if args.compare else report)(found.results, found.left_out)
    for text in shown.warnings:
        print(f"warning: {text}", file=sys.stderr)
    for out, make in ((args.markdown, markdown), (args.html, page)):
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(out, make(shown).encode("utf-8"))
    print("\n".join(terminal(shown, terminal_width())))
    return 0
