"""The watchdog: which steps are limited, by how much, and what is said."""

import os
import signal
import subprocess
import sys
import time

import pytest

from harvest_jax.errors import ConfigError
from harvest_jax.train import watchdog
from harvest_jax.train.watchdog import Watchdog, least_seconds
from tests.helpers.processes import running, wait_until
from tests.helpers.train_command import environment


@pytest.fixture
def messages(monkeypatch):
    """What a watchdog said; it looks a hundred times a second."""
    monkeypatch.setattr(watchdog, "TICK", 0.01)
    return []


def steps(watch, count, seconds=0.002):
    for step in range(1, count + 1):
        watch.reading(step)
        watch.running(compiles=step == 1)
        time.sleep(seconds)
        watch.done()


def test_a_step_of_more_than_ten_times_the_median_is_named(messages):
    with Watchdog(messages.append, 0.5) as watch:
        steps(watch, 10)
        assert watch.usual > 0
        watch.reading(11)
        assert watch.where() == "step 11, reading its batch"
        wait_until(lambda: messages, 30)
    (message,) = messages
    assert message.startswith("step 11 (reading its batch) has taken ")


@pytest.mark.parametrize("least", [0.0, 60.0])
def test_no_step_is_limited_below_the_least_and_with_0_none_is(messages, least):
    with Watchdog(messages.append, least) as watch:
        steps(watch, 10)
        watch.reading(11)
        watch.running(compiles=False)
        time.sleep(0.3)
        with watch.between("saving", 11):
            time.sleep(0.3)
    assert not messages


def test_compilations_and_the_rest_between_two_steps_are_not_limited(messages):
    with Watchdog(messages.append, 1.0) as watch:
        steps(watch, 10)
        usual = watch.usual
        time.sleep(1.3)
        watch.reading(11)
        watch.running(compiles=True)
        time.sleep(1.3)
        watch.done()
        assert watch.usual == usual
    assert not messages


def test_before_a_few_ordinary_steps_nothing_is_known(messages):
    with Watchdog(messages.append, 0.01) as watch:
        steps(watch, watchdog.LEAST_STEPS)  # the first of them compiles
        assert watch.usual == 0
        watch.reading(9)
        time.sleep(0.3)
    assert not messages


@pytest.mark.parametrize("doing", ["saving", "evaluating"])
def test_what_hangs_between_two_steps_is_named_also_the_first_of_its_kind(messages, doing):
    with Watchdog(messages.append, 0.02) as watch, watch.between(doing, 6):  # five times the least of a step
        assert watch.where() == f"step 6, {doing}"
        wait_until(lambda: messages, 30)
    (message,) = messages
    assert message == f"step 6 ({doing}) has come no further for 0 s"


def test_an_evaluation_that_comes_further_is_not_limited(messages):
    with Watchdog(messages.append, 0.2) as watch, watch.between("evaluating", 6):
        for _ in range(30):
            time.sleep(0.05)
            watch.progress()
    assert not messages


def test_between_steps_ten_times_the_longest_pause_of_the_kind_is_allowed(messages):
    with Watchdog(messages.append, 0.02) as watch:
        with watch.between("saving", 4):
            time.sleep(0.08)
        usual = watch.usual
        with watch.between("saving", 8):
            time.sleep(0.4)
        assert not messages
        assert watch.usual == usual
        with watch.between("evaluating", 8):  # of another kind nothing is known
            wait_until(lambda: messages, 30)
    assert messages[0].startswith("step 8 (evaluating) has come no further")


SUSPENDED = """
import sys, time
from harvest_jax.train import watchdog
watchdog.TICK = 0.05
with watchdog.Watchdog(print, 1.0) as watch:
    for step in range(10):
        watch.reading(step)
        watch.running(compiles=False)
        watch.done()
    watch.reading(10)
    print("ready", flush=True)
    sys.stdin.readline()
    print("done", flush=True)
"""


def test_a_process_that_was_suspended_has_not_hung():
    command = [sys.executable, "-c", SUSPENDED]
    with running(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(2)
        os.kill(process.pid, signal.SIGCONT)
        printed, _ = process.communicate("\n", timeout=60)
    assert printed == "done\n"


def test_the_least_is_read_from_the_environment(monkeypatch):
    assert least_seconds() == watchdog.LEAST_SECONDS
    monkeypatch.setenv(watchdog.VARIABLE, "2.5")
    assert least_seconds() == 2.5
    monkeypatch.setenv(watchdog.VARIABLE, "soon")
    with pytest.raises(ConfigError, match="HARVEST_STEP_SECONDS=soon"):
        least_seconds()
