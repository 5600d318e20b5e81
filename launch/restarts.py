"""Whether a run that ended is started again: one policy for every launcher, from the exit codes of the package.

A config, data, a loss or a checkpoint that cannot be used would fail again (`FINAL`). After any other end the same
command goes on from the last checkpoint, as long as new checkpoints keep coming.

    python -m launch.restarts [--restarts R] -- harvest train --config FILE --workdir DIR ...

runs a command again and again on this host, as TPU VMs and containers do; each host decides by itself, and all of them
see the same checkpoints. Under Slurm, where each attempt is a job of its own, launch/slurm.sbatch asks after each:

    python -m launch.restarts --status S --workdir DIR --job ID
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from harvest_jax import signals
from harvest_jax.arguments import Parser
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.errors import CheckpointError, ConfigError, HarvestError, NoProgressError, Preempted
from harvest_jax.files import write_atomically

from .processes import NAMED_CAUSES, run_one

FINAL = frozenset({*NAMED_CAUSES, NoProgressError.exit_code})  # the same command would end the same way
STOPPED = frozenset({Preempted.exit_code, *signals.STATUSES})  # by a signal: whoever sent it decides what follows
MAX_WITHOUT_PROGRESS = 2  # attempts in a row that end at the checkpoint they began with
RESTARTS = 20  # after crashes; restarts after a stop with the state saved are not limited


@dataclasses.dataclass(frozen=True)
class Attempts:
    """What is known after some attempts of a run.

    Attributes:
      step: the newest checkpoint, -1 without one.
      stalled: attempts in a row, the last among them, that brought no new checkpoint.
      crashes: attempts that ended neither well nor by a signal.
    """

    step: int = -1
    stalled: int = 0
    crashes: int = 0

    def after(self, status: int, step: int) -> "Attempts":
        """With one attempt more, which ended with `status` at the checkpoint `step`."""
        return Attempts(step, 0 if step > self.step else self.stalled + 1, self.crashes + (status not in STOPPED))

    def refusal(self, status: int, restarts: int) -> str:
        """Why no further attempt follows one that ended with `status`; "" if one does."""
        if status == 0:
            return "done"
        if status in FINAL:
            return f"status {status}: the same command would end the same way"
        if self.stalled >= MAX_WITHOUT_PROGRESS:
            where = f"still at step {self.step}" if self.step >= 0 else "no checkpoint yet"
            return f"{self.stalled} attempts in a row without a new checkpoint ({where}), the last with status {status}"
        if status not in STOPPED and self.crashes > restarts:
            return f"{restarts} restarts, and status {status} again"
        return ""


def workdir_of(arguments: Sequence[str]) -> Path | None:
    """The value of --workdir among the program's arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--workdir", type=Path)
    workdir: Path | None = parser.parse_known_args(list(arguments))[0].workdir
    return workdir


def newest_step(workdir: Path | None) -> int:
    """The newest complete checkpoint, or -1."""
    if workdir is None:
        return -1
    try:
        return max(Workdir(workdir).complete_steps(), default=-1)
    except CheckpointError:  # the disk does not answer: the command says it
        return -1


def build_parser() -> Parser:
    """Options of both forms; the command follows `--`."""
    parser = Parser(
        prog="python -m launch.restarts",
        usage="python -m launch.restarts [--restarts R] -- COMMAND ... | --status S --workdir DIR --job ID",
        description="Run a command again after a crash, as long as it makes progress; or say whether that is worth it.",
    )
    parser.add_argument(
        "--restarts", type=int, default=RESTARTS, metavar="R", help="after crashes, at most (default: %(default)s)"
    )
    parser.add_argument("--status", type=int, metavar="S", help="how an attempt ended; exit code 0 means: start again")
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="with --status: of the run")
    parser.add_argument("--job", metavar="ID", help="with --status: of the scheduler; another one counts anew")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="with its arguments, after --")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the last attempt's status; with --status 0 for another attempt and 1 for none."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.restarts < 0:
        parser.error("--restarts must be at least 0")
    if (args.status is None) == (not args.command) or (args.command and (args.workdir or args.job)):
        parser.error("give a command after --, or --status, --workdir and --job")
    if args.status is not None and not (args.workdir and args.job):
        parser.error("--status needs --workdir and --job")
    try:
        return run_until_final(args.command, args.restarts) if args.command else decide(args)
    except (HarvestError, OSError) as error:
        _say(" ".join(str(error).split()))
        return error.exit_code if isinstance(error, HarvestError) else 1


def run_until_final(command: Sequence[str], restarts: int) -> int:
    """Attempts of a command until no other one follows, or a signal has stopped one.

    Returns:
      the status of the last attempt: 0, a final one, or that of a stop.

    Raises:
      ConfigError: the command names no workdir.
      NoProgressError: no new checkpoints, or too many crashes. (The last status would make a scheduler try again.)
    """
    workdir = workdir_of(command)
    if workdir is None:
        raise ConfigError("the command after -- has no --workdir: without one no progress is seen")
    attempts = Attempts(newest_step(workdir))
    while True:
        status = run_one(command)
        if status in STOPPED:
            return status
        attempts = attempts.after(status, newest_step(workdir))
        reason = attempts.refusal(status, restarts)
        if status == 0 or status in FINAL:
            return status
        if reason:
            raise NoProgressError(f"not started again: {reason}")
        _say(f"status {status}: starting again, restart {attempts.crashes} of {restarts}")


def decide(args: argparse.Namespace) -> int:
    """One line about what follows, and a record in the workdir for the decision after the next attempt."""
    record = Workdir(args.workdir).attempts
    before = _read(record, args.job)
    attempts = before.after(args.status, newest_step(args.workdir))
    reason = attempts.refusal(args.status, args.restarts)
    if reason:
        _say(f"not started again: {reason}")
        return 1
    args.workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(record, (json.dumps({"job": args.job, **dataclasses.asdict(attempts)}) + "\n").encode())
    _say(f"status {args.status}: to be started again" + (f" from step {attempts.step}" if attempts.step >= 0 else ""))
    return 0


def _read(record: Path, job: str) -> Attempts:
    """What the last decision about this job knew; nothing for another job or an unreadable file."""
    try:
        known = json.loads(record.read_text("utf-8"))
        return Attempts(known["step"], known["stalled"], known["crashes"]) if known["job"] == job else Attempts()
    except (OSError, ValueError, KeyError, TypeError):
        return Attempts()


def _say(message: str) -> None:
    print(f"[restarts] {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(signals.run_program("launch.restarts", main))
