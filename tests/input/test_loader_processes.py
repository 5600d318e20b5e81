"""Loader processes and threads: equal batches, and their end."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harvest_jax.errors import HarvestError, HungError
from harvest_jax.input.loader_processes import loader_processes
from tests.helpers.processes import is_running
from tests.helpers.training_clips import (
    assert_equal,
    batches,
    take,
)


def test_worker_processes_give_the_same_batches_and_end(shards):
    straight = take(shards, 7)
    before = set(multiprocessing.active_children())
    iterator = batches(shards, "data.workers=2")
    iterator.set_state({"next_batch": 2})
    taken = [{name: array.copy() for name, array in next(iterator).items()} for _ in range(3)]
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    state = iterator.get_state()
    iterator.close()
    assert_equal(taken, straight[2:5])
    assert not any(worker.is_alive() for worker in workers)

    in_threads = batches(shards)
    in_threads.set_state(state)
    assert_equal([next(in_threads) for _ in range(2)], straight[5:])
    in_threads.close()


def test_a_killed_worker_is_one_clear_error_and_the_others_end(shards):
    before = set(multiprocessing.active_children())
    iterator = batches(shards, "data.workers=2")
    next(iterator)
    workers = set(multiprocessing.active_children()) - before
    os.kill(min(worker.pid for worker in workers), signal.SIGKILL)
    with pytest.raises(HarvestError, match=r"loader process ended.*data\.workers"):
        list(itertools.islice(iterator, 40))  # the batches it had made may still come
    iterator.close()
    deadline = time.monotonic() + 60
    while set(multiprocessing.active_children()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


TRAINER = """
import multiprocessing, time
from harvest_jax.config import check, load_dict
from harvest_jax.input.pipeline import training_batches
from harvest_jax.input.tokenizer import Tokenizer
run = check(load_dict({config!r}, ["data.shards={shards}", "data.workers=1", "train.batch_size=2"]).to_dict())
batches = training_batches(run, 32, 8, Tokenizer(1000), 0, 1)
next(batches)
print(multiprocessing.active_children()[0].pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_worker_ends_when_the_trainer_is_killed(shards):
    root = Path(__file__).resolve().parents[2]
    code = TRAINER.format(config=str(root / "configs" / "base.py"), shards=shards)
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True) as trainer:
        worker = int(trainer.stdout.readline())
        assert is_running(worker)
        trainer.kill()
    deadline = time.monotonic() + 60
    while is_running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_hung_worker_is_one_clear_error(shards, monkeypatch):
    iterator = batches(shards, "data.workers=2")
    next(iterator)
    monkeypatch.setattr("harvest_jax.input.batches.HUNG_SECONDS", 5.0)
    worker = loader_processes()[0]
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(HungError, match=rf"no batch for \d+ s; the loader processes: .*{worker.pid} stopped"):
        list(itertools.islice(iterator, 40))  # the batches it had made may still come
    iterator.close()
    assert not worker.is_alive()


def test_threads_end_at_close(shards):
    before = set(threading.enumerate())
    iterator = batches(shards, "data.prefetch=3")
    next(iterator)
    assert set(threading.enumerate()) - before
    iterator.close()
    iterator.close()
    deadline = time.monotonic() + 60
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.02)
    with pytest.raises(ValueError, match="closed"):
        next(iterator)
