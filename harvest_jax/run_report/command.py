"""`harvest report`: one page of a training, or of several side by side, while they run and afterwards."""

import argparse
from pathlib import Path

from harvest_jax.errors import ConfigError
from harvest_jax.terminal import printable

EXAMPLES = """examples:
  harvest report runs/b16                              # runs/b16/report.html, also while it trains
  harvest report runs/b16 runs/l14 --html both.html    # side by side
  harvest report runs/keep                             # the runs of a sweep (python -m launch.sweep)

The page shows curves, stages, restarts, where the wall time of all attempts went, clips with their kept patches, and
the scores of evaluations while it trained. It needs no other file and no network. The runs are only read.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `harvest report`."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "workdirs", nargs="+", type=Path, metavar="WORKDIR", help="training folders, or the folder of a sweep"
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="the page (default: report.html in the folder; of several, where the command runs)",
    )


def run(args: argparse.Namespace) -> int:
    """The command; see `add_arguments`."""
    from harvest_jax.files import write_atomically
    from harvest_jax.run_report.page import page
    from harvest_jax.run_report.runs import find_runs

    found = find_runs(args.workdirs)
    (first, *others) = args.workdirs
    folder = found.sweep or first
    out: Path = args.html or (Path("report.html") if others else folder / "report.html")
    if out.is_dir():
        raise ConfigError(f"--html {printable(out)} is a folder: name a file")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page(found, args.command_line).encode("utf-8"), durable=False)
    for one in found.runs:
        past = one.history
        share = f", {past.goodput:.0%} of {past.seconds:,.0f} s trained" if past and past.seconds else ""
        print(printable(f"{one.name}: step {one.step} of {one.steps}, {one.state}{share}"))
    print(f"written: {printable(out)}")
    return 0
