"""Random kills of small trainings, until each has ended: is it equal, bit for bit, to one that nobody killed?

    python -m benchmarks.soak --workdir runs/soak                     # 200 kills
    python -m benchmarks.soak --workdir runs/soak --kills 10 --out runs/soak/few.json
    python -m benchmarks.soak --markdown benchmarks/results/soak.json     # its table, as in docs/reliability.md

Runs of one process and of two (`launch.local`) take turns. Each is killed 4 to 8 times, mostly by SIGKILL, at moments
drawn from the seed: while it starts, compiles, steps, saves, evaluates, exports. After each kill the same command goes
on; at the end every number of metrics.jsonl, the arrays and the position in the data of the last checkpoint, and the
exported weights are compared with those of an unbroken run. Where a kill fell is read from events.jsonl.

Negative controls come first: faults in saving and resuming (benchmarks/soak_breaks.py), each of which a few kills have
to show.

Stopped at any moment it continues with the same command: WORKDIR/soak.jsonl has a line for each kill and each run. The
exit status is 1 if a run differed or ended by itself, or a fault was not noticed; its workdir is kept then.
"""

import argparse
import collections
import contextlib
import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import soak_runs
from benchmarks.soak_breaks import FAULTS
from benchmarks.soak_runs import FIELDS, PHASES, STEPS, Kill, Run, draw_kill, draw_run, phase_of
from benchmarks.this_machine import this_machine
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.errors import HarvestError
from harvest_jax.files import json_lines, write_atomically
from harvest_jax.terminal import duration
from harvest_jax.train.goodput import read_events
from launch.processes import shell_status
from launch.restarts import FINAL
from tests.helpers.train_command import HARVEST, ROOT, environment, local_command, train_arguments

SHARDS = ROOT / "tests/data/version_0_1_0/shards"  # 8 clips
POLL = 0.005  # seconds
LONGEST = 1800.0  # seconds of an attempt; then it hangs
OF_CONTROL = 2  # kills of a negative control
AIMED_AT_A_CONTROL = Kill("save", 3, 0.5, "SIGKILL", "all")  # the first is complete: the second waited for it
MARK = "SOAK_RUN"  # variable of all processes of an attempt
# A busy machine is no failure.
LAUNCHER = ("--processes", "2", "--heartbeat", "120", "--initialization", "600", "--grace", "600")


class Fault(Exception):
    """What must not happen did; the message says what."""


class Ended(NamedTuple):
    """How an attempt ended: its status as shells report it, and where the kill fell, "" if none was sent in time."""

    status: int
    phase: str
    step: int
    seconds: float
    lines: list[dict[str, Any]]
    began: float


class Unbroken(NamedTuple):
    """What a run has to be equal to, and the seconds of its parts: with nothing compiled (True), and else."""

    facts: dict[str, Any]
    usual: dict[bool, dict[str, float]]


class Soak:
    """The folder of a soak: what is done, and the runs."""

    def __init__(self, folder: Path, kills: int, seed: int, processes: Sequence[int]) -> None:
        self.folder, self.kills, self.seed = folder.absolute(), kills, seed
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "soak.jsonl"
        first = {"kind": "soak", "seed": seed, "processes": list(processes), "fields": FIELDS}
        if not self.records():
            self.record(**first)
        elif self.records()[0] != first:
            sys.exit(f"{folder} is of another soak ({self.records()[0]}): give the same options, or another --workdir")

    def records(self, **of: Any) -> list[dict[str, Any]]:
        """The lines of the log with these values."""
        return [line for line in json_lines(self.log) if all(line.get(name) == value for name, value in of.items())]

    def record(self, **values: Any) -> None:
        """Add a line to the log."""
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def command(self, processes: int, workdir: Path, workers: int = 0, fault: str = "") -> list[str]:
        """The command of a run; `fault`: of soak_breaks.py."""
        fields = {
            **FIELDS,
            "eval.config": f"eval/retrieval --config.data.shards={SHARDS} --config.data.split=train",
            "eval.metric": "t2v/R@1",
            "data.workers": workers,
            "log.sinks": "",
        }
        arguments = train_arguments(SHARDS, workdir, *(f"{name}={value}" for name, value in fields.items()))
        if processes > 1:
            return local_command(arguments, *LAUNCHER)
        program = (sys.executable, "-m", "benchmarks.soak_breaks", fault) if fault else HARVEST
        return [*program, "train", *arguments]

    def environment(self, workdir: Path, cold: bool) -> dict[str, str]:
        """Every compiled program is kept, for all runs of one process; a cold one has a folder of its own."""
        caches = workdir.with_name(f"{workdir.name}_cache") if cold else self.folder / "cache"
        kept = {"XDG_CACHE_HOME": str(caches), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        return environment(**kept, **{MARK: str(workdir)})

    def unbroken(self, processes: int) -> "Unbroken":
        """A run that nobody killed; made twice, first with nothing compiled. The two have to be equal."""
        usual = {}
        for cold in (True, False):
            workdir = self.folder / f"unbroken_{processes}_{'cold' if cold else 'warm'}"
            if not self.records(kind="unbroken", workdir=workdir.name):
                self.remove(workdir)
                if not cold:
                    self.warm(processes, workdir)
                ended = self.attempt(workdir, self.command(processes, workdir), self.environment(workdir, False))
                if ended.status:
                    raise Fault(f"the unbroken run ended with status {ended.status}: see {workdir}.log")
                took = soak_runs.usual_seconds(ended.lines, ended.began, ended.began + ended.seconds)
                took = {name: round(seconds, 3) for name, seconds in took.items()}
                self.record(kind="unbroken", workdir=workdir.name, seconds=round(ended.seconds, 1), usual=took)
                print(f"unbroken, {_processes(processes)}: {ended.seconds:.0f} s", flush=True)
            usual[cold] = self.records(kind="unbroken", workdir=workdir.name)[0]["usual"]
        first, expected = (
            soak_runs.facts(self.folder / f"unbroken_{processes}_{name}", digests) for name in ("cold", "warm")
        )
        differs = soak_runs.difference(first, expected)
        if differs:
            raise Fault(f"two unbroken runs differ, so nothing can be compared here: {differs}")
        return Unbroken(expected, usual)

    def warm(self, processes: int, workdir: Path) -> None:
        """Give a new run of two processes the compiled programs; runs of one process have them in one folder."""
        if processes > 1:
            cold = self.folder / f"unbroken_{processes}_cold"
            shutil.copytree(Workdir(cold).compiled, Workdir(workdir).compiled)

    def attempt(
        self,
        workdir: Path,
        command: Sequence[str],
        variables: Mapping[str, str],
        kill: Kill | None = None,
        usual: Mapping[str, float] | None = None,
    ) -> Ended:
        """Run the command until it ends, or until the kill has ended it and all of its processes.

        Raises:
          Fault: it hangs, or leaves a process.
        """
        events = Workdir(workdir).events
        before, size, lines = len(read_events(events)), -1, []
        workdir.parent.mkdir(exist_ok=True)
        began, sent_at = time.time(), 0.0
        phase, step = "", 0
        with _processes_of(workdir, command, variables) as process:
            while process.poll() is None:
                if time.time() - began > LONGEST:
                    raise Fault(f"it did not end within {LONGEST:.0f} s" + (" of the kill" if sent_at else ""))
                with contextlib.suppress(FileNotFoundError):
                    if events.stat().st_size != size:
                        size = events.stat().st_size
                        lines = read_events(events)[before:]
                if kill and not sent_at and time.time() >= soak_runs.strike_time(kill, lines, began, usual or {}):
                    phase, step = phase_of(lines), soak_runs.last_step(lines)
                    sent_at = time.time()
                    _send(kill, process)
                time.sleep(POLL)
        lines = read_events(events)[before:]
        status = shell_status(process.returncode)
        if sent_at and kill and (kill.signal, kill.whom) == ("SIGKILL", "all") and status:  # up to its last moment
            phase, step = phase_of(lines), soak_runs.last_step(lines)
        return Ended(status, phase, step, time.time() - began, lines, began)

    def run(self, run: Run, unbroken: Unbroken) -> None:
        """Kill a run until it ends or has had its kills, then let it end; compare it."""
        workdir = self.folder / f"run_{run.number}"
        if not workdir.exists() and not run.cold:
            self.warm(run.processes, workdir)
        command, variables = self.command(run.processes, workdir, run.workers), self.environment(workdir, run.cold)
        fault, ended = "", None
        try:
            while ended is None or ended.status:
                number = len(self.records(kind="kill", run=run.number))
                left = number < run.kills and len(self.records(kind="kill")) < self.kills
                kill = draw_kill(self.seed, run, number) if left else None
                ended = self.attempt(workdir, command, variables, kill, unbroken.usual[run.cold])
                if kill and ended.phase:
                    self.record_kill(run, kill, ended)
                if ended.status in (*FINAL, 1) or (ended.status and not ended.phase):
                    raise Fault(f"the attempt after {number} kills ended with status {ended.status}")
            fault = soak_runs.difference(unbroken.facts, soak_runs.facts(workdir, digests))
        except (Fault, HarvestError) as error:  # a checkpoint that cannot be read
            fault = str(error)
        output = Path(f"{workdir}.log").read_text(errors="replace")
        interrupted = output.count("which an interrupted save left") + output.count("the save was not finished")
        self.record(
            kind="run",
            run=run.number,
            processes=run.processes,
            cold=run.cold,
            workers=run.workers,
            kills=len(self.records(kind="kill", run=run.number)),
            fault=fault,
            interrupted_saves=interrupted,
            seconds=round(ended.seconds, 1) if ended and not ended.phase else 0.0,
        )
        print(f"run {run.number}, {_processes(run.processes)}: {fault or 'equal'}", flush=True)
        if not fault:
            self.remove(workdir)

    def record_kill(self, run: Run, kill: Kill, ended: Ended) -> None:
        """A line in the log, and one on the terminal."""
        self.record(
            kind="kill",
            run=run.number,
            processes=run.processes,
            aim=kill.aim,
            signal=kill.signal,
            whom=kill.whom,
            phase=ended.phase,
            step=ended.step,
            status=ended.status,
            seconds=round(ended.seconds, 1),
        )
        kills = self.records(kind="kill")
        each = sum(line.get("seconds", 0.0) for line in self.records() if line["kind"] in ("kill", "run")) / len(kills)
        words = f"kill {len(kills)} of {self.kills}: {kill.signal}" + (f" to {kill.whom}" if run.processes > 1 else "")
        words += f" after step {ended.step} ({ended.phase}); status {ended.status}, {ended.seconds:.0f} s"
        left = duration(each * (self.kills - len(kills)))
        print(f"{words}; run {run.number}, {_processes(run.processes)}; about {left} left", flush=True)

    def control(self, fault: str, unbroken: Unbroken) -> None:
        """A run with a fault in the program, killed while it saves, then left to end; record what showed it."""
        workdir = self.folder / f"control_{fault}"
        self.remove(workdir)
        command, variables = self.command(1, workdir, fault=fault), self.environment(workdir, False)
        found, kills, began = "", 0, time.time()
        try:
            status = 1
            while status:
                aimed = AIMED_AT_A_CONTROL if kills < OF_CONTROL else None
                ended = self.attempt(workdir, command, variables, aimed, unbroken.usual[False])
                status, kills = ended.status, kills + bool(ended.phase)
                if status and not ended.phase:
                    raise Fault(f"the attempt after {kills} kills ended with status {status}")
            found = soak_runs.difference(unbroken.facts, soak_runs.facts(workdir, digests))
        except (Fault, HarvestError) as error:  # a checkpoint that cannot be read
            found = str(error)
        does = (FAULTS[fault].__doc__ or "").strip()
        seconds = round(time.time() - began, 1)
        self.record(kind="control", name=fault, does=does, kills=kills, found=found, seconds=seconds)
        print(f"control {fault}, {kills} kills: {found or 'equal'}", flush=True)
        self.remove(workdir)

    def remove(self, workdir: Path) -> None:
        """What an attempt leaves."""
        for path in (workdir, workdir.with_name(f"{workdir.name}_cache")):
            shutil.rmtree(path, ignore_errors=True)
        Path(f"{workdir}.log").unlink(missing_ok=True)


@contextlib.contextmanager
def _processes_of(
    workdir: Path, command: Sequence[str], variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The command, its output at the end of WORKDIR.log. After the block none of its processes is left.

    Raises:
      Fault: after a normal end of the block one of them stays.
    """
    marked = variables[MARK]
    _end(marked)  # of a soak that was killed itself
    with open(f"{workdir}.log", "ab") as log:
        process = subprocess.Popen(
            command,
            env=dict(variables),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
        deadline = time.monotonic() + LONGEST / 10  # what is left of a killed launcher saves and ends
        while _alive(marked) and time.monotonic() < deadline:
            time.sleep(10 * POLL)
        if _alive(marked):
            raise Fault(f"processes stay after the end: {_alive(marked)}")
    finally:
        _end(marked)
        process.wait()


def _alive(marked: str) -> list[int]:
    """The processes of an attempt, by the variable in their environments."""
    word = f"{MARK}={marked}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if word in (folder / "environ").read_bytes().split(b"\0"):  # empty for a zombie
                    found.append(int(folder.name))
    return found


def _end(marked: str) -> None:
    for pid in _alive(marked):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _send(kill: Kill, process: subprocess.Popen[bytes]) -> None:
    """Send the signal; to the launcher where the process that it is for has not begun yet."""
    number = signal.Signals[kill.signal]
    ranks: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for pid in map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            ranks |= {
                f"rank {word.rpartition(b'=')[2].decode()}": pid
                for word in variables
                if word.startswith(b"HARVEST_PROCESS_ID=")
            }
    pids = [ranks.get(kill.whom, process.pid)]
    if kill.whom == "all":
        pids = [process.pid, *ranks.values()]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@functools.cache
def _target() -> Any:
    """Shapes and dtypes of the state of all runs, for this process's device."""
    from harvest_jax.config.run import load
    from harvest_jax.train.program import train_program

    arguments = train_arguments(
        SHARDS, "", *(f"{name}={value}" for name, value in FIELDS.items() if name != "eval.every")
    )
    words = [word.removeprefix("--config.") for word in arguments if word.startswith("--config.")]
    return train_program(load(arguments[1], words)).state


def digests(workdir: Workdir, step: int) -> dict[str, str]:
    """The digest of the parameters, of the optimizer's state and of the counters of a checkpoint."""
    from harvest_jax.checkpoint.items import to_items
    from harvest_jax.checkpoint.load_step import load_step
    from harvest_jax.checkpoint.tree_digest import tree_digest

    return {name: tree_digest(tree) for name, tree in to_items(load_step(workdir, step, _target())).items()}


def summary(soak: Soak, machine: Mapping[str, Any]) -> dict[str, Any]:
    """All that the log says, for the JSON."""
    kills, runs, controls = (soak.records(kind=kind) for kind in ("kill", "run", "control"))
    counts: dict[str, Any] = {}
    for processes in sorted({line["processes"] for line in kills}):
        ours = [line for line in kills if line["processes"] == processes]
        ended = [line for line in runs if line["processes"] == processes]
        counts[str(processes)] = {
            "kills": len(ours),
            "runs": len(ended),
            "equal": sum(not line["fault"] for line in ended),
            "of_which_cold": sum(line["cold"] for line in ended),
            "of_which_with_loader_processes": sum(bool(line["workers"]) for line in ended),
            "unfinished_saves_found": sum(line["interrupted_saves"] for line in ended),
            "landed": {
                phase: dict(collections.Counter(line["signal"] for line in ours if line["phase"] == phase))
                for phase in PHASES
            },
            "sent_to": dict(collections.Counter(line["whom"] for line in ours)),
            "statuses": dict(sorted(collections.Counter(str(line["status"]) for line in ours).items())),
        }
    seconds = sum(line.get("seconds", 0.0) for line in soak.records())
    return {
        "command": f"python -m benchmarks.soak --kills {len(kills)} --seed {soak.seed}",
        "seed": soak.seed,
        "steps_of_a_run": STEPS,
        "kills": len(kills),
        "runs": len(runs),
        "equal": sum(not line["fault"] for line in runs),
        "faults": [f"run {line['run']}: {line['fault']}" for line in runs if line["fault"]],
        "processes": counts,
        "controls": {
            line["name"]: {"does": line["does"], "kills": line["kills"], "found": line["found"]} for line in controls
        },
        "seconds": round(seconds),
        "machine": dict(machine),
    }


def passed(found: Mapping[str, Any]) -> bool:
    """Whether all runs were equal, all faults were noticed, and nothing where there was none."""
    noticed = all(bool(one["found"]) == (name != "nothing") for name, one in found["controls"].items())
    return found["equal"] == found["runs"] and noticed


def markdown(found: Mapping[str, Any]) -> str:
    """The figures as docs/reliability.md has them."""
    counts, where = found["processes"], found["machine"]
    titles = [_processes(int(processes)) for processes in counts]
    rows = [f"| where {found['kills']} kills fell | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for phase, words in PHASES.items():
        cells = []
        for one in counts.values():
            landed = one["landed"][phase]
            terms = f" ({landed['SIGTERM']} SIGTERM)" if landed.get("SIGTERM") else ""
            cells.append(f"{sum(landed.values())}{terms}")
        rows.append(f"| {words} | {' | '.join(cells)} |")
    equal = [f"{one['equal']} of {one['runs']}" for one in counts.values()]
    rows.append(f"| runs that ended equal to the unbroken one | {' | '.join(equal)} |")
    unfinished = sum(one["unfinished_saves_found"] for one in counts.values())
    noticed = {name: one for name, one in found["controls"].items() if name != "nothing"}
    caught = sum(bool(one["found"]) for one in noticed.values())
    clean = "".join(
        f", and a run without one was found {'different' if one['found'] else 'equal'}"
        for name, one in found["controls"].items()
        if name == "nothing"
    )
    rows += [
        "",
        f"Seed {found['seed']}, {found['steps_of_a_run']} steps a run, {duration(float(found['seconds']))} on "
        f"{where['cores']} cores ({where['cpu']}), JAX {where['jax']}. {unfinished} restarts found a save that was not "
        f"finished. Negative controls: {caught} of {len(noticed)} faults were noticed "
        f"({', '.join(f'`{name}`' for name in noticed)}){clean}.",
    ]
    return "\n".join(rows)


def _processes(count: int) -> str:
    return "one process" if count == 1 else "two processes"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="a folder of the soak's own, some 100 MB")
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="0: the negative controls alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--processes", type=int, nargs="+", choices=(1, 2), default=(1, 2), help="of the runs, by turns"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/soak.json")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="print the table of a result, kill nothing")
    args = parser.parse_args()
    if args.markdown:
        print(markdown(json.loads(args.markdown.read_bytes())))
        return 0
    if args.workdir is None:
        parser.error("--workdir is needed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the run ends, too
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the comparisons; the runs have it, too
    soak = Soak(args.workdir, args.kills, args.seed, args.processes)
    try:
        unbroken = {count: soak.unbroken(count) for count in sorted({1, *(args.processes if args.kills else ())})}
        for fault in FAULTS:
            if not soak.records(kind="control", name=fault):
                soak.control(fault, unbroken[1])
        for number in itertools.count():
            if soak.records(kind="run", run=number):
                continue
            begun = soak.folder.joinpath(f"run_{number}").exists()
            if not begun and len(soak.records(kind="kill")) >= args.kills:
                break
            run = draw_run(args.seed, number, args.processes)
            soak.run(run, unbroken[run.processes])
    except Fault as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    found = summary(soak, this_machine())
    write_atomically(args.out, (json.dumps(found, indent=1) + "\n").encode())
    print(markdown(found))
    print("\n".join(found["faults"]))
    return 0 if passed(found) else 1


if __name__ == "__main__":
    sys.exit(main())
