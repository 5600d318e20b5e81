"""How long a stop takes: measured, written for launchers, compared with what they give."""

import json
import logging

from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.train.stop_time import GRACE_SECONDS, StopTime
from launch.local import grace_seconds


def test_it_is_written_when_it_changes_and_the_launcher_waits_twice_as_long(tmp_path):
    measured = {"step": 0.0, "save": 0.0}
    time = StopTime(Workdir(tmp_path), 3, lambda: measured["step"], lambda: measured["save"])
    time.note()
    assert not list(tmp_path.iterdir())
    assert grace_seconds(None, tmp_path) == 30
    measured |= {"step": 23.0, "save": 10.0}
    time.note()
    assert json.loads(Workdir(tmp_path).stop_time.read_bytes()) == {"seconds": 89.0}
    assert grace_seconds(None, tmp_path) == 178
    assert grace_seconds(20.0, tmp_path) == 20
    measured["step"] = 24.0
    time.note()
    assert json.loads(Workdir(tmp_path).stop_time.read_bytes()) == {"seconds": 89.0}
    measured["step"] = 1.0
    time.note()
    assert json.loads(Workdir(tmp_path).stop_time.read_bytes()) == {"seconds": 23.0}
    Workdir(tmp_path).stop_time.write_text("rubbish")
    assert grace_seconds(None, tmp_path) == 30


def test_a_launcher_that_gives_less_is_told_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(GRACE_SECONDS, "30")
    seconds = [5.0]
    time = StopTime(Workdir(tmp_path), 3, lambda: seconds[0], lambda: 0.0)
    with caplog.at_level(logging.WARNING):
        time.note()
        assert not caplog.messages
        for seconds[0] in (23.0, 40.0):
            time.note()
    (message,) = caplog.messages
    assert "a stop takes about 69 s (3 steps of 23 s, two saves of 0 s), and the launcher waits 30 s" in message
