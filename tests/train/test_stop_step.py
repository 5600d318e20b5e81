"""The step after which all processes stop: one for all, whenever and wherever the signal comes."""

import random
import threading
import time

import pytest

from harvest_jax.train import stop_step
from harvest_jax.train.stop_step import StopStep
from tests.helpers.processes import wait_until


class Board:
    """The notes of all processes, here threads."""

    def __init__(self):
        self._notes = {}

    def write(self, name, text):
        folder, _, rank = name.rpartition("/")
        self._notes.setdefault(folder, {})[rank] = text

    def read(self, folder):
        return dict(self._notes.get(folder, {}))


@pytest.fixture
def processes(monkeypatch):
    """Makes the agreements of three processes."""
    board = Board()
    monkeypatch.setattr(stop_step, "POLL_SECONDS", 0.02)
    monkeypatch.setattr("harvest_jax.checkpoint.notes.write", board.write)
    monkeypatch.setattr("harvest_jax.checkpoint.notes.read", board.read)

    def make(asked):
        found = []
        for rank in range(3):
            monkeypatch.setattr("harvest_jax.checkpoint.notes.place", lambda rank=rank: (rank, 3))
            monkeypatch.setattr(stop_step, "_runs", iter([7]))
            found.append(StopStep(lambda rank=rank: rank in asked))
        return found

    return make


@pytest.mark.parametrize("seed", range(5))
def test_processes_ahead_of_each_other_stop_after_one_step(processes, seed):
    chance = random.Random(seed)
    asked, stopped = set(), {}
    agreements = processes(asked)
    # Step k of a process needs step k - 1 of all: none is more than two ahead, as on devices that compute together.
    passed = [0, 0, 0]

    def train(rank, pause):
        for step in range(1, 10_000):
            wait_until(lambda least=step - 2: min(passed) >= least, 30)
            time.sleep(pause)
            passed[rank] = step
            if agreements[rank].reached(step):
                stopped[rank] = step
                return

    threads = [threading.Thread(target=train, args=(rank, chance.random() / 100)) for rank in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(chance.random() / 5)
    asked.add(chance.randrange(3))
    for thread in threads:
        thread.join(60)
    assert len(stopped) == 3
    assert len(set(stopped.values())) == 1, stopped


def test_without_a_signal_nobody_stops_and_before_the_first_step_all_stop_after_it(processes):
    asked = set()
    agreements = processes(asked)
    assert not any(agreement.reached(5) for agreement in agreements)
    time.sleep(0.2)
    assert not any(agreement.reached(6) for agreement in agreements)
    asked.add(1)
    time.sleep(0.5)
    assert [agreement.reached(7) for agreement in agreements] == [True] * 3
