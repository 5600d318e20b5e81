"""The speed in the log: which time counts, the MFU, and the rate that it refers to."""

import json

import jax
import numpy as np
import pytest

from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.model.harvest import Harvest
from harvest_jax.train import events as events_module
from harvest_jax.train import meter as module
from harvest_jax.train.events import Events
from harvest_jax.train.flops import step_flops
from harvest_jax.train.mesh import make_mesh
from harvest_jax.train.meter import Meter, device_rate
from harvest_jax.train.program import TrainProgram
from harvest_jax.train.step import TrainState
from tests.helpers.small_model import TINY
from tests.helpers.train_runs import make_run
from tests.train.test_events import Clock


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(events_module, "time", clock)
    return clock


def program(**changes):
    run = make_run(**changes)
    mesh = make_mesh(run.mesh, run.train.batch_size, jax.devices()[:2])
    return TrainProgram(run, TINY, Harvest(TINY), mesh, TrainState(0, {}, (), -1), {})


def batch(tokens):
    return {"ids": np.zeros((16, tokens), np.int32)}


def test_the_speed_is_that_of_the_steps_without_evaluations(clock):
    one = program()
    events = Events(None)
    events.ready(4)
    meter = Meter(one, events, 4, rate=1e6)
    with events.spend("data_wait"):
        clock.sleep(1.0)
    for tokens, compiles in ((8, True), (8, False), (6, True)):
        with meter.step(False, batch(tokens), compiles):
            clock.sleep(1.0)
    with events.evaluation(7):
        clock.sleep(100.0)
    found = meter.measurements()
    flops = sum(step_flops(one.run, TINY, False, tokens)["total"] for tokens in (8, 8, 6))
    assert found["clips_per_s"] == pytest.approx(3 * 16 / 4)
    assert found["step_ms"] == pytest.approx(4000 / 3)
    assert found["data_wait"] == pytest.approx(1 / 4)
    assert found["mfu"] == pytest.approx(16 * flops / 4 / (2 * 1e6))  # of two devices
    assert found["host_bytes"] > 1e6
    assert events.step == 7
    with meter.step(False, batch(8), compiles=False):
        clock.sleep(2.0)
    with meter.step(False, batch(6), compiles=True):
        clock.sleep(3.0)
    assert events.mark("steps") == {"train": 2.0, "compile": 3.0}


def test_where_flops_or_the_rate_are_not_known_there_is_no_mfu(clock):
    for changes, rate in (({}, 0.0), ({"objective__name": "classification"}, 1e6)):
        events = Events(None)
        events.ready(0)
        meter = Meter(program(**changes), events, 0, rate)
        with meter.step(False, batch(8), compiles=False):
            clock.sleep(1.0)
        assert "mfu" not in meter.measurements()


def test_the_rate_is_measured_once_for_a_kind_of_device(tmp_path, monkeypatch, caplog):
    measured = []
    monkeypatch.setattr(module, "matmul_rate", lambda dtype, seconds: measured.append(dtype) or 5e9 + len(measured))
    workdir = Workdir(tmp_path)
    assert [device_rate(workdir, "float32") for _ in range(3)] == [5e9 + 1] * 3
    assert device_rate(workdir, "bfloat16") == 5e9 + 2
    assert device_rate(workdir, "float32") == 5e9 + 1
    assert measured == ["float32", "bfloat16"]
    kind = jax.local_devices()[0].device_kind
    assert json.loads(workdir.rates.read_text()) == {kind: {"float32": 5e9 + 1, "bfloat16": 5e9 + 2}}
    workdir.rates.write_text("[1]")
    assert device_rate(workdir, "float32") == 5e9 + 3
    (tmp_path / "file").write_text("")
    assert device_rate(Workdir(tmp_path / "file"), "float32") == 0.0  # it cannot be kept
    assert "there is no MFU" in caplog.text
