"""The `harvest` command: one table of subcommands, each in the module that does the work.

A module named here has `add_arguments(parser)` and `run(args) -> int`; it is imported only when its command is asked
for, so that `harvest --help` is instant and `harvest shards` never loads the model.
"""

import importlib
import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence

from harvest_jax import signals
from harvest_jax.arguments import HelpFormatter, Parser
from harvest_jax.compiled_programs import keep_compiled_programs
from harvest_jax.errors import HarvestError
from harvest_jax.terminal import printable
from harvest_jax.version import __version__

COMMANDS = {
    "demo": ("harvest_jax.demo.command", "generate clips, write shards, train, score and report: all of it, small"),
    "world": (
        "harvest_jax.synthetic.command",
        "describe a generated world of clips in which every factor is known",
    ),
    "shards": ("data_pipeline.command", "turn captioned videos into shards of decoded frames"),
    "inspect": ("harvest_jax.describe", "show what a shard folder, model folder, training folder or checkpoint holds"),
    "weights": ("harvest_jax.hub.command", "import, export and mix checkpoints, push them to the Hugging Face Hub"),
    "train": (
        "harvest_jax.scored_training.command",
        "train a model, or continue from the last checkpoint of its folder",
    ),
    "report": (
        "harvest_jax.run_report.command",
        "draw a page of a training or several: curves, restarts, time, scores",
    ),
    "eval": ("harvest_jax.evaluate.command", "score a model under a named protocol"),
    "results": ("harvest_jax.evaluate.report.command", "show results as tables, with intervals and differences"),
    "search": ("harvest_jax.search.command", "find the moment in a folder's videos that fits words or a picture"),
    "serve": ("harvest_jax.serve.command", "find videos in the browser, and answer programs: a local page and an API"),
    "plan": (
        "harvest_jax.plan.command",
        "estimate what training takes on other hardware: memory, FLOPs, network, time",
    ),
    "bench": ("harvest_jax.bench.command", "measure how fast this machine trains"),
}


def build_parser(command: str | None) -> Parser:
    """The parser with every command's one-line help; only `command` gets its arguments (and its imports)."""
    parser = Parser(
        prog="harvest",
        description="Turn CLIP into a video-language model by a short post-pretraining on captioned videos.",
        epilog="'harvest COMMAND --help' explains each command.",
    )
    parser.add_argument("--version", action="version", version=f"harvest_jax {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=HelpFormatter,
        )
        subparser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
        if name == command:
            importlib.import_module(module).add_arguments(subparser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake becomes one line on stderr and a non-zero code.

    Args:
      argv: the words after `harvest`; None: this process's own, with the handling of signals of a program.
    """
    if argv is None:
        words = sys.argv[1:]
        keep_compiled_programs()
        return signals.run_program(" ".join(["harvest", *words[:1]]), lambda: main(words))
    argv = list(argv)
    given = ["harvest", *argv]
    command = next((word for word in argv if not word.startswith("-")), None)
    parser = build_parser(command)
    argv, overrides = parser.take_overrides(argv)
    args = parser.parse_args(argv)
    args.command_line = given  # for files that say how they were made
    if overrides and not hasattr(args, "overrides"):
        parser.error(f"harvest {args.command} takes no --config.{printable(overrides[0])}")
    if overrides:
        args.overrides = overrides
    lines = logging.StreamHandler()
    lines.setFormatter(_Lines(f"harvest {args.command}"))
    logging.basicConfig(handlers=[lines])
    try:
        return importlib.import_module(COMMANDS[args.command][0]).run(args)
    except HarvestError as error:
        if args.debug:
            traceback.print_exc()
        message = printable(" ".join(str(error).split()))  # it may quote file names and cells that others chose
        print(f"harvest {args.command}: {message}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        print(f"harvest {args.command}: {str(error) or 'interrupted'}", file=sys.stderr)
        return getattr(error, "exit_code", 128 + signal.SIGINT)
    except OSError as error:  # disk full, permission denied, missing folder: the system's message names the path
        if isinstance(error, BrokenPipeError) and _output_was_closed():
            return 128 + signal.SIGPIPE
        if args.debug:
            traceback.print_exc()
        print(f"harvest {args.command}: {printable(error)}", file=sys.stderr)
        return 1


class _Lines(logging.Formatter):
    """Warnings look like errors do: "harvest train: warning: what is wrong"."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        return f"{self._program}: {record.levelname.lower()}: {super().format(record)}"


def _output_was_closed() -> bool:
    """Whether who reads what this process prints has stopped, as `head` does: no fault, so nothing is said about it."""
    try:
        output = sys.stdout.fileno()
        poll = select.poll()
        poll.register(output, select.POLLOUT)
        closed = any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # it is not a file
        return False
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # else Python complains when it ends
    return closed


if __name__ == "__main__":
    sys.exit(main())
