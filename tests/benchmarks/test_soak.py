"""The soak: what it draws, where a kill fell, what it compares; and all of it with a training that takes a second."""

import collections
import json
import shutil
import sys

import pytest

from benchmarks import soak as module
from benchmarks.soak import Soak, Unbroken, markdown, passed, summary
from benchmarks.soak_runs import (
    AIMS,
    PHASES,
    STEPS,
    Kill,
    difference,
    draw_kill,
    draw_run,
    facts,
    last_step,
    phase_of,
    strike_time,
    usual_seconds,
)
from tests.helpers.train_command import environment

# A run as far as the soak sees one: events, measurements, checkpoints, a position in the data, an export.
TRAINING = """
import json, sys, time
from pathlib import Path
from harvest_jax.checkpoint.digests import write_digests
from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.train.events import Events

workdir, cuts = Workdir(Path(sys.argv[1])), sys.argv[2] == "cuts"
workdir.root.mkdir(exist_ok=True)
step = max(workdir.complete_steps(), default=0)
if cuts and workdir.metrics.exists():
    kept = [line for line in workdir.metrics.read_text().splitlines(True) if json.loads(line)["step"] <= step]
    workdir.metrics.write_text("".join(kept))
with Events(workdir.events) as events:
    time.sleep(0.02)
    events.ready(step)
    while step < 20:
        step += 1
        time.sleep(0.01)
        with workdir.metrics.open("a") as file:
            file.write(json.dumps({"step": step, "loss": 1 / step, "step_ms": time.time()}) + "\\n")
        events.mark("steps", first=step - 1, step=step)
        if step % 5 == 0:
            events.write("save_begin", step=step)
            (workdir.step(step) / "data").mkdir(parents=True, exist_ok=True)
            (workdir.step(step) / "data" / "process_0-of-1.json").write_text(str(step))
            time.sleep(0.02)
            write_digests(workdir.step(step), {"step": step})
            events.write("save_end", step=step)
        if step % 10 == 0:
            with events.evaluation(step):
                time.sleep(0.02)
    workdir.export.mkdir(exist_ok=True)
    (workdir.export / "model.safetensors").write_text("weights")
"""


class Small(Soak):
    """A soak of such trainings."""

    cuts = "cuts"

    def command(self, processes, workdir, workers=0, fault=""):
        return [sys.executable, "-c", TRAINING, str(workdir), "cuts" if fault in ("", "nothing") else "does not cut"]


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "digests", lambda workdir, step: {"params": f"of {step}"})
    monkeypatch.setattr(module, "AIMED_AT_A_CONTROL", Kill("steps", 7, 0.0, "SIGKILL", "all"))
    soak = Small(tmp_path / "soak", 5, 0, (1,))
    return soak, soak.unbroken(1)


def test_what_is_drawn_depends_on_the_seed_and_the_numbers_alone():
    runs = [draw_run(3, number) for number in range(60)]
    assert runs == [draw_run(3, number) for number in range(60)]
    assert runs != [draw_run(4, number) for number in range(60)]
    assert runs[7] == draw_run(3, 7)
    assert [run.processes for run in runs[:4]] == [1, 2, 1, 2]
    assert {(run.processes, run.cold) for run in runs} == {(1, False), (1, True), (2, False), (2, True)}
    assert {run.workers for run in runs if run.processes == 2} == {0}
    kills = [draw_kill(3, run, number) for run in runs for number in range(run.kills)]
    aims = collections.Counter(kill.aim for kill in kills)
    assert min(aims[aim] / len(kills) / weight for aim, (weight, _, _) in AIMS.items()) > 0.5
    assert {(kill.signal, kill.whom) for run in runs[1::2] for kill in [draw_kill(3, run, n) for n in range(8)]} == {
        *(("SIGKILL", whom) for whom in ("all", "launcher", "rank 0", "rank 1")),
        *(("SIGTERM", whom) for whom in ("launcher", "rank 0", "rank 1")),
    }
    assert 0.1 < sum(kill.signal == "SIGTERM" for kill in kills) / len(kills) < 0.3


def events(*names):
    """Lines one second apart; "save_begin 4" has the step 4."""
    lines = []
    for number, name in enumerate(names):
        event, _, step = name.partition(" ")
        lines.append({"event": event, "time": 100.0 + number, **({"step": int(step)} if step else {})})
    return lines


@pytest.mark.parametrize(
    ("names", "phase"),
    [
        ((), "start"),
        (("start",), "start"),
        (("start", "ready 4"), "compile"),
        (("start", "ready 0", "steps 1"), "steps"),
        (("start", "ready 0", "steps 4", "save_begin 4"), "save"),
        (("start", "ready 0", "steps 4", "save_begin 4", "steps 5"), "save"),
        (("start", "ready 0", "steps 4", "save_begin 4", "save_end 4"), "steps"),
        (("start", "ready 0", "steps 6", "save_begin 6", "evaluate_begin 6"), "evaluate, save"),
        (("start", "ready 0", "steps 6", "save_begin 6", "evaluate_begin 6", "save_end 6"), "evaluate"),
        (("start", "ready 0", f"steps {STEPS}"), "end"),
    ],
)
def test_where_a_kill_fell(names, phase):
    assert phase_of(events(*names)) == phase
    assert phase in PHASES


def test_a_kill_waits_for_what_it_is_aimed_at():
    lines = events("start", "ready 0", "steps 1", "steps 4", "save_begin 4", "save_end 4", "steps 6", "save_begin 6")
    usual = {"start": 8.0, "save": 2.0, "end": 1.0}
    assert strike_time(Kill("save", 2, 0.25, "SIGKILL", "all"), lines, 90.0, usual) == 107.5
    assert strike_time(Kill("save", 3, 0.25, "SIGKILL", "all"), lines, 90.0, usual) == float("inf")
    assert strike_time(Kill("start", 1, 0.5, "SIGKILL", "all"), [], 90.0, usual) == 94.0
    assert strike_time(Kill("end", 1, 0.5, "SIGKILL", "all"), lines, 90.0, usual) == float("inf")
    assert last_step(lines) == 6
    assert last_step([]) == 0


def test_what_usually_takes_how_long():
    names = ("start", "ready 0", "steps 1", "steps 4", "save_begin 4", "save_end 4", "evaluate_begin 4")
    lines = events(*names, "evaluate_end 4", f"steps {STEPS}")
    expected = {"start": 6.0, "compile": 1.0, "steps": 3.0, "save": 1.0, "evaluate": 1.0, "end": 2.0}
    assert usual_seconds(lines, 95.0, 110.0) == expected


def test_each_change_of_a_run_is_a_difference(small, tmp_path):
    soak, unbroken = small
    original = soak.folder / "unbroken_1_cold"  # the timings of the two runs differ, and nothing else

    def changed(name, change):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(original, copy)
        change(copy / name)
        return difference(unbroken.facts, facts(copy, module.digests))

    def edit(old, new):
        return lambda path: path.write_text(path.read_text().replace(old, new, 1))

    assert changed("metrics.jsonl", lambda path: None) == ""
    assert changed("metrics.jsonl", edit("0.3333333333333333", "0.33333333333333337")) == (
        "metrics.jsonl, line 3, loss: 0.33333333333333337, not 0.3333333333333333"
    )
    again = changed("metrics.jsonl", lambda path: path.write_text(path.read_text() + '{"step": 20}\n'))
    assert again == "metrics.jsonl, line 21, step: 20, and nothing in the unbroken run"
    assert "data position" in changed("checkpoints/20/data/process_0-of-1.json", edit("20", "19"))
    assert changed("checkpoints/20", shutil.rmtree).startswith("last checkpoint: 15")
    assert changed("export/model.safetensors", edit("w", "v")).startswith("export")
    other = facts(original, lambda workdir, step: {"params": "others"})
    assert difference(unbroken.facts, other) == "checkpoint 20, params: 'others', not 'of 20'"


def test_killed_runs_are_compared_counted_and_gone_on_with(small, tmp_path):
    soak, unbroken = small
    for number in range(2):
        soak.run(draw_run(0, number, (1,)), unbroken)
    assert [line["fault"] for line in soak.records(kind="run")] == ["", ""]
    kills = soak.records(kind="kill")
    assert 0 < len(kills) <= soak.kills
    assert {line["status"] for line in kills} <= {137, 143, 0}
    again = Small(soak.folder, 5, 0, (1,))
    assert again.records(kind="kill") == kills
    with pytest.raises(SystemExit, match="another soak"):
        Small(soak.folder, 5, 1, (1,))

    soak.control("nothing", unbroken)
    soak.control("metrics", unbroken)  # the stub's fault: it leaves the lines of steps that it does again
    found = summary(soak, {"cpu": "a cpu", "cores": 2, "jax": "0.10"})
    assert json.loads(json.dumps(found)) == found
    assert found["controls"]["nothing"]["found"] == ""
    assert found["controls"]["metrics"]["found"].startswith("metrics.jsonl, line ")
    assert passed(found)
    assert sum(sum(row.values()) for row in found["processes"]["1"]["landed"].values()) == len(kills)
    table = markdown(found)
    assert f"| where {len(kills)} kills fell | one process |" in table
    assert "| runs that ended equal to the unbroken one | 2 of 2 |" in table
    assert "1 of 1 faults were noticed (`metrics`), and a run without one was found equal" in table


IN_STEP = """
import os, time
if os.environ["HARVEST_PROCESS_ID"] == "1":  # it waits for the first one, as in a collective
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("signal", "whom", "status"),
    [("SIGKILL", "all", 137), ("SIGKILL", "launcher", 137), ("SIGKILL", "rank 1", 137), ("SIGTERM", "rank 0", 143)],
)
def test_a_signal_reaches_whom_it_is_for_and_nothing_is_left(tmp_path, signal, whom, status):
    soak = Small(tmp_path, 1, 0, (2,))
    script = tmp_path / "training.py"
    script.write_text(IN_STEP + TRAINING)
    launcher = [sys.executable, "-m", "launch.local", "--processes", "2", "--script", str(script), "--"]
    workdir = tmp_path / "run"
    variables = soak.environment(workdir, True)
    kill = Kill("save", 2, 0.5, signal, whom)
    ended = soak.attempt(workdir, [*launcher, str(workdir), "cuts"], variables, kill, {"save": 0.02})
    assert (ended.status, ended.step >= 10) == (status, True)
    assert ended.phase in PHASES
    output = (tmp_path / "run.log").read_text()
    named = {"rank 1": "rank 1 was killed by SIGKILL", "rank 0": "rank 0 was killed by SIGTERM"}
    assert named.get(whom, "") in output


def test_what_must_not_happen_is_told(small):
    soak, unbroken = small
    other = Unbroken(unbroken.facts | {"export": b"other"}, unbroken.usual)
    soak.kills = 0
    soak.run(draw_run(0, 0, (1,)), other)
    soak.control("nothing", other)
    soak.command = lambda *_, **__: [sys.executable, "-c", "raise SystemExit(3)"]
    soak.run(draw_run(0, 1, (1,)), unbroken)
    orphan = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    soak.command = lambda *_, **__: [sys.executable, "-c", orphan]
    module_longest, module.LONGEST = module.LONGEST, 10.0
    try:
        soak.run(draw_run(0, 2, (1,)), unbroken)
    finally:
        module.LONGEST = module_longest
    told = [line["fault"] for line in soak.records(kind="run")]
    assert told[0].startswith("export: b'weights', not b'other'")
    assert told[1] == "the attempt after 0 kills ended with status 3"
    assert told[2].startswith("processes stay after the end")
    found = summary(soak, {})
    assert not passed(found)
    assert [words.partition(":")[0] for words in found["faults"]] == ["run 0", "run 1", "run 2"]
    assert found["controls"]["nothing"]["found"]


def test_the_commands_are_those_of_a_training(tmp_path):
    soak = Soak(tmp_path, 1, 0, (1, 2))
    one, two = soak.command(1, tmp_path / "w", 1), soak.command(2, tmp_path / "w")
    assert one[1:4] == ["-m", "harvest_jax", "train"]
    assert "--config.data.workers=1" in one
    assert two[1:3] == ["-m", "launch.local"]
    assert soak.command(1, tmp_path / "w", fault="optimizer")[1:5] == [
        "-m",
        "benchmarks.soak_breaks",
        "optimizer",
        "train",
    ]
    cold, warm = (soak.environment(tmp_path / "w", cold)["XDG_CACHE_HOME"] for cold in (True, False))
    assert cold != warm
    assert set(environment()) - set(soak.environment(tmp_path / "w", True)) == set()
