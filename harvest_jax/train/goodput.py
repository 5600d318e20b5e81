"""Where the time of a run went, over all its attempts: read from `events.jsonl`. Nothing here imports JAX."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harvest_jax.files import json_lines

# What the time is divided into, in the order of display: name -> words.
KINDS = {
    "train": "training",
    "data_wait": "waiting for data",
    "compile": "compiling",
    "save": "saving",
    "evaluate": "evaluating",
    "start": "starting",
    "recomputed": "steps done again",
    "dead": "lost with killed attempts",
    "down": "between attempts",
}
ENDS = ("finished", "preempted", "failed")
_REPEATED = ("train", "data_wait")  # what a step that is done again costs


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One start of the command.

    Attributes:
      number: from 1 up.
      began: wall clock, seconds since 1970.
      last: of its last line.
      first_step: that it began or went on from; None if it did not come so far.
      last_step: the last one that its lines know of.
      to_first_step: seconds from its begin to the end of its first step; None if it did not come so far.
      repeated: how many of its steps an earlier attempt had done.
      end: one of `ENDS`, or "" if it was killed or still runs.
      why: the words of its end.
      facts: of its first line.
      spent: seconds by kind, those of `dead` and `down` not among them.
    """

    number: int
    began: float
    last: float
    first_step: int | None
    last_step: int | None
    to_first_step: float | None
    repeated: int
    end: str
    why: str
    facts: dict[str, Any]
    spent: dict[str, float]


@dataclasses.dataclass(frozen=True)
class History:
    """All attempts of a run.

    Attributes:
      attempts: in order; at least one.
      spent: seconds by kind (`KINDS`), whose sum is the wall time from the first start to the last line. Time after a
        run has finished does not count.
    """

    attempts: tuple[Attempt, ...]
    spent: dict[str, float]

    @property
    def seconds(self) -> float:
        """The wall time."""
        return sum(self.spent.values())

    @property
    def goodput(self) -> float:
        """The share of the wall time in which steps were trained for the first time, in 0..1; 0 if there was none."""
        return self.spent.get("train", 0.0) / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `harvest inspect`."""
        seconds = {words: round(self.spent[kind], 1) for kind, words in KINDS.items() if self.spent.get(kind)}
        shown = {"attempts": len(self.attempts), "wall_seconds": round(self.seconds, 1)}
        return shown | {"goodput": round(self.goodput, 4), "seconds": seconds}


def read_events(path: Path) -> list[dict[str, Any]]:
    """The lines of an events file that can be read, in order; [] without a file."""
    return [
        event
        for event in json_lines(path)
        if isinstance(event.get("event"), str)
        and all(_finite(event.get(name)) for name in ("attempt", "time", "clock"))
    ]


def history(events: Sequence[dict[str, Any]]) -> History | None:
    """Attempts and time; None if no attempt began.

    A step that an earlier attempt had done too was done again after a kill: its time, with the wait for its batch,
    counts as `recomputed`. From the last line of a killed attempt to the next start all counts as `dead`: steps after
    that line, and the time in which nothing ran, cannot be told apart.
    """
    groups: list[list[dict[str, Any]]] = []
    for event in events:
        if event["event"] == "start":
            groups.append([])
        if groups:
            groups[-1].append(event)
    attempts: list[Attempt] = []
    total = dict.fromkeys(KINDS, 0.0)
    reached = 0
    for group in groups:
        attempt = _attempt(group, reached)
        if attempts and attempts[-1].end != "finished":
            gap = "down" if attempts[-1].end else "dead"
            total[gap] += max(0.0, attempt.began - attempts[-1].last)
        for kind, seconds in attempt.spent.items():
            total[kind] += seconds
        reached = max(reached, attempt.last_step or 0)
        attempts.append(attempt)
    return History(tuple(attempts), total) if attempts else None


def read_history(path: Path) -> History | None:
    """`history` of an events file; None without one."""
    return history(read_events(path))


def _attempt(lines: Sequence[dict[str, Any]], reached: int) -> Attempt:
    """An attempt from its lines; earlier ones had done `reached` steps."""
    first = lines[0]
    name = "command_began" if _finite(first.get("command_began")) else "time"
    spent = dict.fromkeys(KINDS, 0.0)
    first_step = last_step = None
    to_first_step: float | None = None
    repeated, last, end, why = 0, float(first["time"]), "", ""
    for line in lines:
        if line["event"] in ENDS:
            end, why = line["event"], str(line.get("why", ""))
        parts = _seconds(line.get("spent"))
        if not parts:
            continue
        last = float(line["time"])
        if line["event"] == "steps" and to_first_step is None:
            to_first_step = sum(spent.values()) + sum(parts.values())
        again = 0.0
        if isinstance(line.get("step"), int):
            step = line["step"]
            if first_step is None:
                first_step = last_step = step
            done = step - (last_step or 0)
            if done > 0:
                again = max(0, min(step, reached) - (last_step or 0)) / done
                repeated += round(again * done)
            last_step = step
        for kind, seconds in parts.items():
            share = again if kind in _REPEATED else 0.0
            spent[kind] += (1.0 - share) * seconds
            spent["recomputed"] += share * seconds
    known = ("event", "attempt", "time", "clock", "command_began")
    return Attempt(
        number=first["attempt"],
        began=float(first[name]),
        last=last,
        first_step=first_step,
        last_step=last_step,
        to_first_step=to_first_step,
        repeated=repeated,
        end=end,
        why=why,
        facts={name: value for name, value in first.items() if name not in known},
        spent=spent,
    )


def _seconds(parts: Any) -> dict[str, float]:
    """The times of a line by kind; what is no time is left out."""
    if not isinstance(parts, dict):
        return {}
    return {kind: float(value) for kind, value in parts.items() if kind in KINDS and _finite(value) and value >= 0}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18
