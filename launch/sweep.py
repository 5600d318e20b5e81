"""Run a config many times, each time with other values: the config says which in a function `sweep(add)`.

    def sweep(add):
        for rate in (1e-5, 3e-5, 1e-4):
            add(**{"train.learning_rate": rate})

    python -m launch.sweep --config sweeps/keep_ratio --workdir-root runs/keep --backend local

Everything is checked before anything starts. A run's folder is named by what the sweep sets in it and by a digest of
its complete config: the same values are the same run however they were given, a changed config makes a new one, and
what is complete is skipped. A function `evaluate(add)` says what each finished run is scored on:

    def evaluate(add):
        add("choice", "eval/multiple_choice", **{"data.split": "choice"})

A function `sweep(add, config)` also gets the config with what the command line sets in every run, to compute with.

At the end `results.csv` has every run, `results.md` and `results.svg` mean and spread over the seeds.

`--backend slurm` gives all runs that are not complete to Slurm as one array of jobs (launch/slurm.sbatch), and a job
after them that scores the runs and writes the tables. `--backend score` does that alone, wherever the runs were
trained.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harvest_jax import signals
from harvest_jax.arguments import Parser
from harvest_jax.errors import ConfigError, DataError, HarvestError, Preempted
from harvest_jax.files import write_atomically
from harvest_jax.version import __version__

from .processes import run_one
from .sweep_runs import Evaluation, Run, check_evaluations, evaluations, expand
from .sweep_table import write_results

HERE = Path(__file__).resolve().parent
STOP_STATUSES = {Preempted.exit_code, *signals.STATUSES}  # requested stops of a run: the sweep stops as well


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


def run_locally(
    runs: Sequence[Run], config: str, command: Sequence[str], retries: int = 0, scoring: Sequence[Evaluation] = ()
) -> int:
    """One run after the other, also after a failed one; then what failed once more, as often as `retries` says.

    Returns:
      0, or the status of the first that failed to the end, or of a requested stop.
    """
    failed: dict[str, int] = {}
    for attempt in range(retries + 1):
        todo = [run for run in runs if attempt == 0 or run.id in failed]
        if attempt and todo:
            _say(f"{len(todo)} failed and are tried again, from where they stopped")
        for number, run in enumerate(todo, 1):
            status = _one(run, f"{number}/{len(todo)} {run.workdir.name}", config, command, scoring)
            if status in STOP_STATUSES:
                _say("stopped; run the same command again to go on")
                return status
            failed.pop(run.id, None)
            if status:
                failed[run.id] = status
        if not any(status != ConfigError.exit_code for status in failed.values()):
            break
    if failed:
        names = {run.id: run.workdir.name for run in runs}
        words = ", ".join(f"{names[id]} (status {status})" for id, status in failed.items())
        _say(f"{len(failed)} of {len(runs)} failed: {words}")
    return next(iter(failed.values()), 0)


def _one(run: Run, name: str, config: str, command: Sequence[str], scoring: Sequence[Evaluation]) -> int:
    """Train a run that is not complete, and score it where its scores are missing or made of something else.

    Returns:
      the status of what failed, or 0.
    """
    if run.complete:
        _say(f"{name} is complete")
    else:
        _say(f"{name}: {' '.join(run.overrides)}")
        if status := run_one([*command, *run.arguments(config)]):
            return status
    return _score(run, name, scoring)


def _score(run: Run, name: str, scoring: Sequence[Evaluation]) -> int:
    """Make the scores of a complete run that are missing or made of something else; the status of what failed, or 0."""
    for evaluation in scoring:
        scoring_of_run = evaluation.of(run)
        if not scoring_of_run.current:
            _say(f"{name}: {evaluation.name}")
            if status := scoring_of_run.make():
                return status
    return 0


def score_complete(runs: Sequence[Run], scoring: Sequence[Evaluation]) -> int:
    """Score what is complete.

    Returns:
      0, the status of the first evaluation that failed, or that of a `DataError` if runs are not complete.
    """
    missing = [run.workdir.name for run in runs if not run.complete]
    if missing:
        _say(f"{len(missing)} of {len(runs)} are not complete: {', '.join(missing)}")
    statuses = [DataError.exit_code] if missing else []
    for number, run in enumerate(runs, 1):
        if run.complete:
            status = _score(run, f"{number}/{len(runs)} {run.workdir.name}", scoring)
            if status in STOP_STATUSES:
                return status
            statuses.append(status)
    return next((status for status in statuses if status), 0)


def submit_array(runs: Sequence[Run], config: str, results: Path, sbatch: Sequence[str], again: Sequence[str]) -> int:
    """Give what is not complete to Slurm: an array, and after it a job that scores and writes the tables.

    Args:
      runs: of the sweep; the number of a run is that of its task.
      config: of the sweep.
      results: folder of `runs.txt`, one line of arguments for each run, and of the second job's log.
      sbatch: the command up to the script, and the script.
      again: the arguments of this program for the second job.

    Returns:
      the status of the first `sbatch` that failed, or 0.
    """
    lines = [shlex.join(run.arguments(config)) for run in runs]
    if any("\n" in line for line in lines):
        raise ConfigError("a value of the sweep has a line break: launch/slurm.sbatch reads one run from each line")
    file = (results / "runs.txt").absolute()
    write_atomically(file, "".join(f"{line}\n" for line in lines).encode())
    *options, script = sbatch
    tasks = ",".join(str(number) for number, run in enumerate(runs) if not run.complete)
    array = [*options, "--parsable", f"--array={tasks}", f"--output={results.absolute()}/%x-%a.log", script]
    after = [*options, "--parsable", "--nodes=1", "--ntasks=1", "--ntasks-per-node=1", "--job-name=harvest-scores"]
    if tasks:
        done = subprocess.run([*array, "--runs", str(file)], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            return done.returncode
        number = done.stdout.strip().partition(";")[0]
        _say(f"job {number}: {len(tasks.split(','))} of {len(runs)} runs")
        after.append(f"--dependency=afterany:{number}")
    line = shlex.join([sys.executable, "-m", f"{__package__}.sweep", *again])
    scores = [*after, f"--output={results.absolute()}/scores.log", f"--wrap={line}"]
    return subprocess.run(scores, check=False).returncode


def build_parser() -> Parser:
    """Arguments; fields for every run follow as in `harvest train`."""
    parser = Parser(
        prog="python -m launch.sweep",
        usage="python -m launch.sweep --config FILE --workdir-root DIR [--backend B] [--config.FIELD=VALUE ...]",
        description="Run a config's sweep: --config.FIELD=VALUE is set in every run, the sweep's own values after it.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="config file with a function sweep(add)")
    parser.add_argument(
        "--workdir_root", required=True, type=Path, metavar="DIR", help="of the runs; sweeps may share one"
    )
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="of plan, tables and plot; default: that of the runs"
    )
    parser.add_argument("--sweep", default="", metavar="NAME", help="the function sweep_NAME instead of sweep")
    parser.add_argument(
        "--backend",
        choices=("local", "slurm", "score", "print"),
        default="print",
        help="local: one run after the other, here; slurm: an array of jobs; score: only scores and tables of what is "
        "complete; print: the command lines of what is not complete (default)",
    )
    parser.add_argument(
        "--command",
        default=None,
        metavar="WORDS",
        help="what trains; default: harvest train. With slurm: sbatch, its options, and the script; default: 'sbatch "
        "launch/slurm.sbatch'",
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=1,
        help="with local: further tries of a failed run (default: %(default)s)",
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
        scoring = evaluations(args.config)
        check_evaluations(scoring, runs)
        results = args.results or args.workdir_root
        if args.retries < 0:
            raise ConfigError(f"--retries {args.retries}: 0 or more")
        if args.dry_run:
            for run in runs:
                print(f"{run.workdir.name}  {'complete' if run.complete else 'to do':8}  {' '.join(run.overrides)}")
            return 0
        write_plan(results / "sweep.json", args.config, args.sweep, runs)
        if args.backend == "print":
            words = shlex.split(args.command) if args.command else ["harvest", "train"]
            for run in runs:
                if not run.complete:
                    print(shlex.join([*words, *run.arguments(args.config)]))
            return 0
        if args.backend == "slurm":
            words = shlex.split(args.command) if args.command else ["sbatch", str(HERE / "slurm.sbatch")]
            return submit_array(runs, args.config, results, words, _scoring_arguments(args, common))
        if args.backend == "score":
            status = score_complete(runs, scoring)
            print(write_results(results, runs, scoring), flush=True)
            return status
        # This interpreter's own harvest_jax, whatever `harvest` is on PATH.
        words = shlex.split(args.command) if args.command else [sys.executable, "-m", "harvest_jax", "train"]
        status = run_locally(runs, args.config, words, args.retries, scoring)
        print(write_results(results, runs, scoring), flush=True)
        return status
    except (HarvestError, OSError) as error:
        _say(" ".join(str(error).split()))
        return error.exit_code if isinstance(error, HarvestError) else 1


def _scoring_arguments(args: argparse.Namespace, common: Sequence[str]) -> list[str]:
    """The arguments with which this program scores the same runs later."""
    words = ["--config", args.config, "--workdir_root", str(args.workdir_root), "--backend", "score"]
    if args.results:
        words += ["--results", str(args.results)]
    if args.sweep:
        words += ["--sweep", args.sweep]
    return [*words, *(f"--config.{override}" for override in common)]


def _say(message: str) -> None:
    print(f"[sweep] {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(signals.run_program("launch.sweep", main))
