"""Run a config many times, each time with other values: the config says which in a function `sweep(add)`.

    def sweep(add):
        for rate in (1e-5, 3e-5, 1e-4):
            add(**{"train.learning_rate": rate})

    python -m launch.sweep --config sweeps/keep_ratio --workdir-root runs/keep --backend local

Everything is checked before anything starts. A run's folder is named by a digest of its complete config, so that the
same values are the same run however they were given, a changed config makes a new one, and what is complete is skipped.
"""

import dataclasses
import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harvest_jax import signals
from harvest_jax.arguments import Parser
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.config import files as config_files
from harvest_jax.config import run as run_config
from harvest_jax.errors import ConfigError, HarvestError, Preempted
from harvest_jax.files import write_atomically
from harvest_jax.version import __version__

from .processes import run_one

STOP_STATUSES = {Preempted.exit_code, *signals.STATUSES}  # requested stops of a run: the sweep stops as well


@dataclasses.dataclass(frozen=True)
class Run:
    """One line of a sweep."""

    id: str
    overrides: tuple[str, ...]  # field=value, as after --config.
    workdir: Path

    def arguments(self, config: str) -> list[str]:
        """What `harvest train` is called with."""
        fields = [f"--config.{override}" for override in self.overrides]
        return ["--config", config, "--workdir", str(self.workdir), *fields]

    @property
    def complete(self) -> bool:
        """Whether the training ended."""
        return Workdir(self.workdir).exported


def expand(config: str, root: Path, name: str = "", common: Sequence[str] = ()) -> list[Run]:
    """The runs of a config's sweep, in its order, every one checked.

    Args:
      config: file, with its argument if it takes one ("configs/x.py:argument").
      root: the folder that holds the runs' folders.
      name: "" for the function `sweep`, else `sweep_<name>`.
      common: overrides of every run, field=value.

    Raises:
      ConfigError: no such sweep, an unknown field, a value that cannot be used, two runs that are the same.
    """
    runs: list[Run] = []
    calls: list[dict[str, Any]] = []
    _sweep_function(config, name)(lambda **values: calls.append(values))
    if not calls:
        raise ConfigError(f"{config}: the sweep {name or 'sweep'} adds no run")
    for number, values in enumerate(calls, 1):
        overrides = (*common, *(f"{field}={_text(value)}" for field, value in values.items()))
        try:
            checked = run_config.load(config, overrides)
        except ConfigError as error:
            raise ConfigError(f"run {number} of the sweep ({_words(values)}): {error}") from error
        canonical = json.dumps(checked.to_dict(), sort_keys=True)
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:10]
        for earlier, run in enumerate(runs, 1):
            if run.id == digest:
                raise ConfigError(
                    f"runs {earlier} and {number} of the sweep are the same run "
                    f"({_words(calls[earlier - 1])} and {_words(values)} give one config)"
                )
        runs.append(Run(digest, overrides, root / digest))
    return runs


def write_plan(path: Path, config: str, name: str, runs: Sequence[Run]) -> None:
    """`sweep.json`: what was expanded, in one piece or not at all."""
    lines = [
        {
            "id": run.id,
            "overrides": list(run.overrides),
            "workdir": str(run.workdir),
            "arguments": run.arguments(config),
        }
        for run in runs
    ]
    plan = {"config": config, "sweep": name or "sweep", "version": __version__, "runs": lines}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(plan, indent=2) + "\n").encode())


def run_locally(runs: Sequence[Run], config: str, command: Sequence[str]) -> int:
    """One run after the other, also after a failed one. Returns 0 or the first failure's status."""
    failed: dict[str, int] = {}
    for number, run in enumerate(runs, 1):
        if run.complete:
            _say(f"{number}/{len(runs)} {run.id} is complete")
            continue
        _say(f"{number}/{len(runs)} {run.id}: {' '.join(run.overrides)}")
        status = run_one([*command, *run.arguments(config)])
        if status in STOP_STATUSES:
            _say("stopped; run the same command again to go on")
            return status
        if status:
            failed[run.id] = status
    if failed:
        _say(f"{len(failed)} of {len(runs)} failed: " + ", ".join(f"{id} (status {s})" for id, s in failed.items()))
    return next(iter(failed.values()), 0)


def build_parser() -> Parser:
    """Arguments; fields for every run follow as in `harvest train`."""
    parser = Parser(
        prog="python -m launch.sweep",
        usage="python -m launch.sweep --config FILE --workdir-root DIR [--backend B] [--config.FIELD=VALUE ...]",
        description="Run a config's sweep: --config.FIELD=VALUE is set in every run, the sweep's own values after it.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="config file with a function sweep(add)")
    parser.add_argument("--workdir_root", required=True, type=Path, metavar="DIR", help="of the runs")
    parser.add_argument("--sweep", default="", metavar="NAME", help="the function sweep_NAME instead of sweep")
    parser.add_argument(
        "--backend",
        choices=("local", "print"),
        default="print",
        help="local: one run after the other, here; print: the command lines of what is not complete (default)",
    )
    parser.add_argument(
        "--command",
        default=None,
        metavar="WORDS",
        help="what trains; default: harvest train. With print: --command 'sbatch launch/slurm.sbatch'",
    )
    parser.add_argument("--dry_run", action="store_true", help="check and list the runs; start and write nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; a mistake becomes one line on stderr."""
    parser = build_parser()
    words, common = parser.take_overrides(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(words)
    try:
        runs = expand(args.config, args.workdir_root, args.sweep, common)
        if args.dry_run:
            for run in runs:
                print(f"{run.id}  {'complete' if run.complete else 'to do':8}  {' '.join(run.overrides)}")
            return 0
        write_plan(args.workdir_root / "sweep.json", args.config, args.sweep, runs)
        if args.backend == "print":
            words = shlex.split(args.command) if args.command else ["harvest", "train"]
            for run in runs:
                if not run.complete:
                    print(shlex.join([*words, *run.arguments(args.config)]))
            return 0
        # This interpreter's own harvest_jax, whatever `harvest` is on PATH.
        words = shlex.split(args.command) if args.command else [sys.executable, "-m", "harvest_jax", "train"]
        return run_locally(runs, args.config, words)
    except (HarvestError, OSError) as error:
        _say(" ".join(str(error).split()))
        return error.exit_code if isinstance(error, HarvestError) else 1


def _sweep_function(config: str, name: str) -> Callable[[Callable[..., None]], None]:
    file = config.partition(":")[0]
    wanted = f"sweep_{name}" if name else "sweep"
    module = config_files.load_module(file)
    function = getattr(module, wanted, None)
    if not callable(function):
        found = sorted(key for key in vars(module) if key == "sweep" or key.startswith("sweep_"))
        raise ConfigError(f"{file} has no function {wanted}(add)" + (f"; it has {', '.join(found)}" if found else ""))
    result: Callable[[Callable[..., None]], None] = function
    return result


def _text(value: Any) -> str:
    """A value as `--config.field=` takes it: floats with all their digits, true and false in lower case."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    if isinstance(value, int | float | tuple | list):
        return repr(value)
    raise ConfigError(f"a sweep's value must be a number, a string, a bool or a tuple of them, not {value!r}")


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{field}={value}" for field, value in values.items()) or "no values"


def _say(message: str) -> None:
    print(f"[sweep] {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(signals.run_program("launch.sweep", main))
