"""The lines of events.jsonl, and the account of the time that is made of them."""

import json
import os

import pytest

from harvest_jax.errors import NonFiniteError, Preempted
from harvest_jax.train import events as module
from harvest_jax.train.events import Events
from harvest_jax.train.goodput import KINDS, history, read_events, read_history
from tests.helpers.disks import limited_file_size


class Clock:
    """Both clocks; time passes by `sleep` alone."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def time(self):
        return 1_000_000 + self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def attempt(path, clock, first, steps, every=5, killed=False, error=None, seconds=2.0):
    """One attempt: 7 s of start, the first step compiles for 10 s, each step takes `seconds` and waits 0.5 s before."""
    events = Events(path, began=clock.now)
    clock.sleep(7)
    events.ready(first)
    for step in range(first + 1, first + steps + 1):
        with events.spend("data_wait"):
            clock.sleep(0.5)
        if step == first + 1:
            with events.spend("compile"):
                clock.sleep(10)
        clock.sleep(seconds)
        events.step = step
        if step % every == 0 or step == first + 1:
            events.mark("steps", first=max(first, (step - 1) // every * every), step=step)
    if killed:
        events._file.close()
        return
    if not isinstance(error, NonFiniteError):
        events.steps_done()
        clock.sleep(3)  # the last save
    events.__exit__(type(error) if error else None, error, None)


def spent(path):
    return {kind: round(seconds, 3) for kind, seconds in read_history(path).spent.items() if seconds}


def test_the_kinds_of_time_add_up_to_the_wall_time(tmp_path, clock):
    path = tmp_path / "events.jsonl"
    attempt(path, clock, 0, 10)
    assert spent(path) == {"start": 7, "train": 20, "data_wait": 5, "compile": 10, "save": 3}
    found = read_history(path)
    assert found.seconds == pytest.approx(45)
    assert found.goodput == pytest.approx(20 / 45)
    (one,) = found.attempts
    assert (one.number, one.first_step, one.last_step, one.end) == (1, 0, 10, "finished")
    assert one.to_first_step == pytest.approx(7 + 0.5 + 10 + 2)


def test_the_steps_of_a_killed_attempt_that_are_done_again_are_not_training(tmp_path, clock):
    """Killed at step 12, whose last line is of step 10; 6 was saved: 7 to 10 are done again, 11 and 12 are lost."""
    path = tmp_path / "events.jsonl"
    attempt(path, clock, 0, 12, killed=True)
    lost = 2 * 2.5 + 60
    clock.sleep(60)
    attempt(path, clock, 6, 14)
    found = read_history(path)
    assert spent(path) == {
        "start": 14,
        "train": 20 + 20,  # steps 1 to 10, then 11 to 20
        "data_wait": 5 + 5,
        "compile": 20,
        "recomputed": 4 * 2.5,
        "save": 3,
        "dead": lost,
    }
    assert found.seconds == pytest.approx(clock.now - 100)
    assert [(one.end, one.first_step, one.last_step, one.repeated) for one in found.attempts] == [
        ("", 0, 10, 0),
        ("finished", 6, 20, 4),
    ]


def test_a_stop_that_was_saved_repeats_nothing_and_a_failure_is_named(tmp_path, clock):
    path = tmp_path / "events.jsonl"
    attempt(path, clock, 0, 7, error=Preempted("stopped by SIGTERM, saved at step 7"))
    clock.sleep(30)
    attempt(path, clock, 7, 5, error=NonFiniteError("the loss is\nnot a number"))
    clock.sleep(20)
    attempt(path, clock, 10, 5)
    clock.sleep(1000)  # what comes after the end does not count
    attempt(path, clock, 15, 0)
    found = read_history(path)
    assert [one.end for one in found.attempts] == ["preempted", "failed", "finished", "finished"]
    assert found.attempts[1].why == "the loss is not a number"
    assert [one.repeated for one in found.attempts] == [0, 0, 2, 0]  # of 10 to 12, known from the failure's own line
    assert spent(path)["down"] == 50
    assert spent(path)["save"] == 3 * 3
    assert spent(path)["train"] == 2 * (7 + 5 + 5 - 2)
    assert "dead" not in spent(path)
    assert read_events(path)[-1]["attempt"] == 4


def test_half_a_line_of_a_kill_costs_that_line_alone(tmp_path, clock):
    path = tmp_path / "events.jsonl"
    attempt(path, clock, 0, 5, killed=True)
    with path.open("a") as file:
        file.write('{"event": "steps", "attempt": 1, "ti')
    attempt(path, clock, 0, 5)
    assert [one.number for one in read_history(path).attempts] == [1, 2]
    path.write_bytes(
        path.read_bytes() + b'\xff\n[]\n{"event": 1}\n{"event": "steps", "attempt": 2, "time": NaN, "clock": 0}\n'
    )
    assert len(read_history(path).attempts) == 2
    assert history([]) is None
    assert read_history(tmp_path / "none") is None


def test_a_file_that_cannot_be_written_is_reported_once_and_stops_nothing(tmp_path, caplog, clock):
    events = Events(tmp_path / "events.jsonl")
    events.ready(0)
    before = (tmp_path / "events.jsonl").read_bytes()
    with limited_file_size(len(before) + 10):  # as on a full disk
        assert events.mark("steps", first=0, step=1)
        events.write("save_begin", step=1)
    assert (tmp_path / "events.jsonl").read_bytes() == before
    events.__exit__(None, None, None)
    (tmp_path / "folder").mkdir()
    Events(tmp_path / "folder")
    assert caplog.text.count("events of the run are not written") == 2


def test_without_a_file_the_time_is_measured_all_the_same(clock):
    with Events(None) as events:
        events.ready(0)
        with events.spend("data_wait"):
            clock.sleep(1)
        clock.sleep(2)
        assert events.mark("steps", first=0, step=1) == {"data_wait": 1, "train": 2}


def test_a_workdir_has_one_id(tmp_path, clock):
    ids = []
    for name in ("a", "a", "b"):
        attempt(tmp_path / name, clock, 0, 1, killed=True)
        clock.sleep(1)
        with Events(tmp_path / name) as events:
            ids.append(events.run_id)
    assert ids[0] == ids[1] != ids[2]


def test_every_kind_has_words_and_lines_are_json(tmp_path, clock):
    attempt(tmp_path / "e", clock, 0, 6)
    for line in (tmp_path / "e").read_text().splitlines():
        assert set(json.loads(line).get("spent", {})) <= set(KINDS)
    assert read_events(tmp_path / "e")[0]["pid"] == os.getpid()
    found = read_history(tmp_path / "e").to_dict()
    assert sum(found["seconds"].values()) == pytest.approx(found["wall_seconds"], abs=0.5)
