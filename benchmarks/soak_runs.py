"""What the soak draws and how it judges: moments of kills, where a kill fell, whether two runs are equal."""

import dataclasses
import itertools
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.files import json_lines

STEPS = 20
# Saves at 4, 6, 8, 12, 16, 18 and 20, evaluations at 6, 12, 18 and 20; a kill often finds one of each still to come.
FIELDS = {"train.steps": STEPS, "train.save_every": 4, "train.keep_checkpoints": 2, "eval.every": 6}

# What a kill is aimed at, with its weight: (the event after which it waits, at which of these events it may be).
AIMS: dict[str, tuple[float, str, int]] = {
    "start": (0.15, "", 1),  # from the begin of the command
    "compile": (0.15, "ready", 1),
    "steps": (0.2, "steps", 8),
    "save": (0.25, "save_begin", 3),
    "evaluate": (0.2, "evaluate_begin", 2),
    "end": (0.05, "last step", 1),
}
# Where a kill fell, with words for the table.
PHASES = {
    "start": "the start: imports, devices, restoring",
    "compile": "between the restored state and the first step: compiling, the evaluation of step 0",
    "steps": "steps, nothing being saved",
    "save": "steps, a checkpoint being written",
    "evaluate": "an evaluation",
    "evaluate, save": "an evaluation, a checkpoint being written",
    "end": "after the last step: the export",
}
SIGTERM_SHARE = 0.2
# Of the machine, and not of the run.
MEASURED = {"clips_per_s", "step_ms", "data_wait", "mfu", "device_bytes", "host_bytes"}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is killed again and again until it ends.

    Attributes:
      number: from 0 up.
      processes: 1, or 2 through launch.local.
      kills: how many it gets, if it does not end before.
      cold: it begins without compiled programs.
      workers: loader processes.
    """

    number: int
    processes: int
    kills: int
    cold: bool
    workers: int


@dataclasses.dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
      aim: one of AIMS.
      nth: at which of its events in the attempt, from 1.
      share: how far into what usually takes so long; more than 1: just after it.
      signal: "SIGKILL" or "SIGTERM".
      whom: "all", "launcher", "rank 0" or "rank 1"; with one process "all".
    """

    aim: str
    nth: int
    share: float
    signal: str
    whom: str


def draw_run(seed: int, number: int, processes: Sequence[int] = (1, 2)) -> Run:
    """The run of this number, whatever was drawn before; the counts of processes take turns."""
    rng = random.Random(f"{seed}/{number}")
    count = processes[number % len(processes)]
    return Run(number, count, rng.randint(4, 8), rng.random() < 0.25, int(count == 1 and rng.random() < 0.25))


def draw_kill(seed: int, run: Run, number: int) -> Kill:
    """The kill of this number of a run."""
    rng = random.Random(f"{seed}/{run.number}/{number}")
    (aim,) = rng.choices(list(AIMS), [weight for weight, _, _ in AIMS.values()])
    signal = "SIGTERM" if rng.random() < SIGTERM_SHARE else "SIGKILL"
    whom = "all"
    if run.processes > 1:
        # A launcher passes SIGTERM on, and nobody sends it to all by himself.
        whom = rng.choice(["launcher", "rank 0", "rank 1", *(["all"] if signal == "SIGKILL" else [])])
    return Kill(aim, rng.randint(1, AIMS[aim][2]), rng.uniform(0.0, 1.1), signal, whom)


def strike_time(kill: Kill, lines: Sequence[Mapping[str, Any]], began: float, usual: Mapping[str, float]) -> float:
    """When to send the signal; infinite while what it aims at has not begun.

    Args:
      kill: which.
      lines: the events of the attempt so far.
      began: wall clock at the begin of the command.
      usual: seconds that what is aimed at takes (`usual_seconds`).
    """
    event = AIMS[kill.aim][1]
    times = [began] if not event else [line["time"] for line in lines if _is(line, event)]
    return float("inf") if len(times) < kill.nth else times[kill.nth - 1] + kill.share * usual[kill.aim]


def usual_seconds(lines: Sequence[Mapping[str, Any]], began: float, ended: float) -> dict[str, float]:
    """What each aim takes, from the events of an attempt that nobody killed and the wall clock around its command."""
    times = {event: [line["time"] for line in lines if _is(line, event)] for _, event, _ in AIMS.values() if event}
    steps = times["steps"]

    def of(kind: str) -> float:
        ends = {line["step"]: line["time"] for line in lines if line["event"] == f"{kind}_end"}
        begins = {line["step"]: line["time"] for line in lines if line["event"] == f"{kind}_begin"}
        return statistics.median(ends[step] - begins[step] for step in ends)

    return {
        "start": times["ready"][0] - began,
        "compile": steps[0] - times["ready"][0],
        "steps": statistics.median(later - one for one, later in itertools.pairwise(steps)),
        "save": of("save"),
        "evaluate": of("evaluate"),
        "end": ended - times["last step"][0],
    }


def phase_of(lines: Sequence[Mapping[str, Any]]) -> str:
    """What an attempt was doing after these events: one of PHASES."""
    begun: dict[str, set[int]] = {"evaluate": set(), "save": set()}
    for line in lines:
        kind, _, edge = line["event"].partition("_")
        if edge == "begin":
            begun[kind].add(line["step"])
        elif edge == "end":
            begun[kind].discard(line["step"])
    under_way = [kind for kind, steps in begun.items() if steps]
    if under_way:
        return ", ".join(under_way)
    if any(_is(line, "last step") for line in lines):
        return "end"
    events = {line["event"] for line in lines}
    return "steps" if "steps" in events else "compile" if "ready" in events else "start"


def last_step(lines: Sequence[Mapping[str, Any]]) -> int:
    """The last step that these events know of; 0 without one."""
    return max((line["step"] for line in lines if line["event"] in ("ready", "steps")), default=0)


def _is(line: Mapping[str, Any], event: str) -> bool:
    if event == "last step":
        return line["event"] == "steps" and line["step"] == STEPS
    return bool(line["event"] == event)


def facts(folder: Path, digests: Callable[[Workdir, int], dict[str, str]]) -> dict[str, Any]:
    """Everything of a finished run that has to be equal.

    Args:
      folder: its workdir.
      digests: give the digests of the arrays of a checkpoint, by name.

    Returns:
      what -> value: each line of metrics.jsonl without what was measured of the machine; the last checkpoint's step,
      arrays and position in the data, for each process; the weights of the exported model.
    """
    workdir = Workdir(folder)
    found: dict[str, Any] = {}
    for number, line in enumerate(json_lines(workdir.metrics), 1):
        names = [name for name in line if name not in MEASURED]
        found |= {f"metrics.jsonl, line {number}, {name}": line[name] for name in names}
    step = max(workdir.complete_steps(), default=0)
    found["last checkpoint"] = step
    if step:
        found |= {f"checkpoint {step}, {name}": digest for name, digest in digests(workdir, step).items()}
        for path in sorted((workdir.step(step) / "data").iterdir()):
            found[f"checkpoint {step}, data position, {path.name}"] = path.read_bytes()
    weights = workdir.export / "model.safetensors"
    found["export"] = weights.read_bytes() if weights.exists() else None
    return found


def difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The first of these facts that are not equal, in words; "" if all are. Numbers are compared bit for bit."""
    for name in [*expected, *(name for name in found if name not in expected)]:
        if name not in found:
            return f"{name}: missing"
        if name not in expected:
            return f"{name}: {_short(found[name])}, and nothing in the unbroken run"
        if expected[name] != found[name]:
            return f"{name}: {_short(found[name])}, not {_short(expected[name])}"
    return ""


def _short(value: Any) -> str:
    return repr(value)[:60]
