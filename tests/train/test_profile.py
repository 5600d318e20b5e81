"""Traces of a running training: which steps they hold, and what asks for them."""

import os
import signal

import jax
import pytest

from harvest_jax.errors import ConfigError
from harvest_jax.train.events import Events
from harvest_jax.train.profile import STEPS, Profiler, Wanted, parse


@pytest.fixture
def traces(monkeypatch):
    """What starts and stops a trace: names of folders, and "stop"."""
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append(os.path.basename(folder)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


def run(profiler, first, last, traces, at=None):
    """Steps `first` to `last`, noted in `traces`; before step `at` the signal comes."""
    with profiler:
        for step in range(first, last + 1):
            if step == at:
                os.kill(os.getpid(), signal.SIGUSR1)
            profiler.before(step - 1)
            traces.append(step)
            profiler.after(step, None)


def test_named_steps_are_traced(tmp_path, traces, capsys):
    run(Profiler(tmp_path, Events(None), Wanted(3, 2)), 1, 6, traces)
    assert traces == [1, 2, "step_000003", 3, 4, "stop", 5, 6]
    assert "trace: " in capsys.readouterr().out


def test_a_signal_traces_the_next_steps_and_stops_nothing(tmp_path, traces):
    before = signal.getsignal(signal.SIGUSR1)
    run(Profiler(tmp_path, Events(None)), 1, 8, traces, at=4)
    assert traces == [1, 2, 3, "step_000004", 4, 5, 6, "stop", 7, 8]
    assert STEPS == 3
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_run_that_ends_within_a_trace_writes_it(tmp_path, traces):
    run(Profiler(tmp_path, Events(None), Wanted(5, 10)), 1, 6, traces)
    assert traces[-3:] == [5, 6, "stop"]


def test_a_trace_that_fails_stops_nothing(tmp_path, traces, monkeypatch, caplog):
    def fail(folder):
        raise RuntimeError("another trace is being made")

    monkeypatch.setattr(jax.profiler, "start_trace", fail)
    run(Profiler(tmp_path, Events(None), Wanted(2, 1)), 1, 4, traces)
    assert traces == [1, 2, 3, 4]
    assert "no trace of step 2: another trace is being made" in caplog.text


def test_what_the_option_means():
    assert parse("500") == Wanted(500, STEPS)
    assert parse("7:1") == Wanted(7, 1)
    for text in ("0", "5:0", "5:", ":5", "-1", "five", "1:2:3"):
        with pytest.raises(ConfigError, match="STEP:N"):
            parse(text)
