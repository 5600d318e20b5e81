"""Several processes of one run on this machine, connected over loopback: the multi-host program without a cluster.

    python -m launch.local --processes 2 --devices 2 -- --config demo --workdir runs/x ...

What follows `--` is what `harvest train` takes. Output is prefixed with the rank (the number of the process); when one
fails the others are stopped and the first failure is reported; `--restarts` starts all of them again, from the last
checkpoint, as long as checkpoints keep coming.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harvest_jax import signals
from harvest_jax.arguments import Parser
from harvest_jax.checkpoint.workdir import Workdir

from .processes import GroupResult, run_together
from .restarts import STOPPED, Attempts, newest_step, workdir_of

LEAST_GRACE = 30.0  # seconds


def build_parser() -> Parser:
    """The launcher's own arguments; those of the program follow `--`."""
    parser = Parser(
        prog="python -m launch.local",
        usage="python -m launch.local [--processes N] [--devices K] [...] -- --config FILE --workdir DIR [...]",
        description="Run N processes of `harvest train` on this machine, connected over loopback.",
    )
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="how many (default 2)")
    parser.add_argument("--devices", type=int, default=1, metavar="K", help="devices of each process (default 1)")
    parser.add_argument("--platform", choices=("cpu", "gpu"), default="cpu", help="cpu splits it into K devices")
    parser.add_argument("--restarts", type=int, default=0, metavar="R", help="start all again after a crash, R times")
    parser.add_argument(
        "--grace",
        type=float,
        metavar="S",
        help="seconds from SIGTERM to SIGKILL (default: twice what the run has measured for a stop, at least 30)",
    )
    parser.add_argument(
        "--heartbeat",
        type=int,
        default=30,
        metavar="S",
        help="seconds of silence that end the run (30)",
    )
    parser.add_argument(
        "--initialization",
        type=int,
        default=120,
        metavar="S",
        help="seconds for all to start (120)",
    )
    parser.add_argument("--port", type=int, default=0, help="of the coordinator (default: any free one)")
    program = parser.add_mutually_exclusive_group()
    program.add_argument("--module", help="run this module instead of `harvest train`")
    program.add_argument("--script", type=Path, help="run this file instead of `harvest train`")
    parser.add_argument("--dry_run", action="store_true", help="print the commands, start nothing")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="of the program, after --")
    return parser


def command(args: argparse.Namespace) -> list[str]:
    """The program line, the same for every process."""
    if args.script:
        return [sys.executable, str(args.script), *args.arguments]
    if args.module:
        return [sys.executable, "-m", args.module, *args.arguments]
    others = [argument for argument in args.arguments if not argument.startswith("--config.distributed=")]
    return [sys.executable, "-m", "harvest_jax", "train", *others, "--config.distributed=true"]


def environment(args: argparse.Namespace, process: int, port: int) -> dict[str, str]:
    """The variables in which the processes differ, and the platform (see harvest_jax/train/distributed.py)."""
    variables = {
        "HARVEST_COORDINATOR": f"127.0.0.1:{port}",
        "HARVEST_NUM_PROCESSES": str(args.processes),
        "HARVEST_PROCESS_ID": str(process),
        "HARVEST_HEARTBEAT_SECONDS": str(args.heartbeat),
        "HARVEST_INITIALIZATION_SECONDS": str(args.initialization),
    }
    if args.grace is not None:
        variables["HARVEST_GRACE_SECONDS"] = f"{args.grace:g}"
    if args.platform == "gpu":
        first = process * args.devices
        variables["HARVEST_LOCAL_DEVICES"] = ",".join(str(first + i) for i in range(args.devices))
        variables["JAX_PLATFORMS"] = "cuda"
    else:
        flag = "--xla_force_host_platform_device_count"
        others = [word for word in os.environ.get("XLA_FLAGS", "").split() if not word.startswith(flag)]
        variables["XLA_FLAGS"] = " ".join([*others, f"{flag}={args.devices}"])
        variables["JAX_PLATFORMS"] = "cpu"
    return variables


def free_port() -> int:
    """A free port of the loopback interface."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def grace_seconds(given: float | None, workdir: Path | None) -> float:
    """Seconds that a stop may take: what was given, else by what the run has measured (train/stop_time.py)."""
    if given is not None:
        return given
    measured = 0.0
    if workdir is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            measured = float(json.loads(Workdir(workdir).stop_time.read_bytes())["seconds"])
    return max(LEAST_GRACE, 2 * measured)


def describe(result: GroupResult, workdir: Path | None = None) -> str:
    """One line about how an attempt ended."""
    if result.stop_signal:
        line = f"stopped by {signal.Signals(result.stop_signal).name}; status {result.status}"
        if not result.killed_after:
            return line
        step = newest_step(workdir)
        kept = f"the newest checkpoint is step {step}" if step >= 0 else "there is no checkpoint"
        return f"{line}: not all had ended after {result.killed_after:.0f} s, and these were killed; {kept}"
    if result.first_failed is None:
        return "all ranks finished"
    code = result.exit_codes[result.first_failed]
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return f"rank {result.first_failed} {how}, the first to fail; the others were stopped"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the processes. Returns 0 or the first failure's status (128 + the signal for a killed process)."""
    parser = build_parser()
    args = parser.parse_args(argv)
    for name, least in {"processes": 1, "devices": 1, "restarts": 0, "heartbeat": 1, "initialization": 1}.items():
        if getattr(args, name) < least:
            parser.error(f"--{name} must be at least {least}")
    if args.script and not args.script.is_file():
        parser.error(f"no file {args.script}")
    if args.dry_run:
        for process in range(args.processes):
            variables = environment(args, process, args.port or free_port())
            print(shlex.join(["env", *(f"{name}={value}" for name, value in variables.items()), *command(args)]))
        return 0
    return run_with_restarts(args)


def run_with_restarts(args: argparse.Namespace) -> int:
    """Attempts until one succeeds or is stopped, or the policy of all launchers (`restarts`) allows no other."""
    workdir = workdir_of(args.arguments)
    attempts = Attempts(newest_step(workdir))
    while True:
        port = args.port or free_port()
        result = run_together(
            [command(args)] * args.processes,
            [os.environ | environment(args, process, port) for process in range(args.processes)],
            lambda: grace_seconds(args.grace, workdir),
        )
        print_line(describe(result, workdir))
        if result.status == 0 or result.status in STOPPED or result.stop_signal:
            return result.status
        attempts = attempts.after(result.status, newest_step(workdir))
        reason = attempts.refusal(result.status, args.restarts)
        if reason:
            if args.restarts:
                print_line(f"not started again: {reason}")
            return result.status
        origin = f" from step {attempts.step}" if attempts.step >= 0 else ""
        print_line(f"restart {attempts.crashes} of {args.restarts}{origin}")


def print_line(message: str) -> None:
    """A line of the launcher's own, on stderr."""
    print(f"[launch] {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(signals.run_program("launch.local", main))
    except (OSError, subprocess.SubprocessError) as error:
        print_line(str(error))
        sys.exit(1)
