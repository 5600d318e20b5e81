"""Services beside metrics.jsonl: stand-ins of their packages, which note their calls, fail, or do not answer."""

import dataclasses
import json
import struct
import sys
import threading
import time
import types

import pytest

from harvest_jax.checkpoint.workdir import Workdir
from harvest_jax.config import run as run_config
from harvest_jax.errors import ConfigError
from harvest_jax.train import sinks
from harvest_jax.train.metrics import MetricWriter, shown

CANARY = "canary-of-a-key"
CONFIG = {"train": {"steps": 5}, "data": {"shards": f"s3://me:{CANARY}@host/shards", "weights": (3.0, 1.0)}}


def write(workdir, names, restored=0, steps=(1, 2)):
    makers = sinks.sink_makers(names, Workdir(workdir), restored, CONFIG, "abc123")
    with MetricWriter(workdir, 10, restored, sinks=makers) as writer:
        for step in steps:
            writer.write(step, {"loss": 1.5, "batch_R@1_t2v": 0.25})


def written(workdir):
    return [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@dataclasses.dataclass
class Service:
    """A stand-in of wandb that notes its calls."""

    calls: list
    logged_in: bool = True
    fault: str = ""  # the call that fails
    until: threading.Event = dataclasses.field(default_factory=threading.Event)  # `init` waits for it
    waits: bool = False

    def login(self, **how):
        assert how["prompt"] is False  # it must not ask on the terminal of a training
        return self.logged_in

    def Settings(self, **fields):
        return fields

    def init(self, **fields):
        if self.waits:
            self.until.wait(30)
        if self.fault == "init":
            raise ConnectionError("no network")
        self.calls.append(("init", fields))
        return self

    def log(self, values, step):
        if self.fault == "log":
            raise ConnectionError("no network")
        self.calls.append(("log", step, values))

    def finish(self):
        self.calls.append(("finish",))


@pytest.fixture
def wandb(monkeypatch):
    service = Service([])
    module = types.ModuleType("wandb")
    for name in ("login", "Settings", "init"):
        setattr(module, name, getattr(service, name))
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return service


def test_a_service_gets_every_measurement_and_the_config_without_credentials(tmp_path, wandb):
    write(tmp_path, "wandb")
    (_, fields), *logged, last = wandb.calls
    assert fields["id"] == "abc123"
    assert fields["config"] == {"train.steps": 5, "data.shards": "s3://host/shards", "data.weights": "(3.0, 1.0)"}
    assert [(step, values["loss"]) for _, step, values in logged] == [(1, 1.5), (2, 1.5)]
    assert last == ("finish",)
    assert CANARY not in repr(wandb.calls)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(CANARY.encode() in path.read_bytes() for path in files)


@pytest.mark.parametrize("fault", ["init", "log", "login"])
def test_a_service_that_fails_is_reported_once_and_dropped(tmp_path, wandb, caplog, fault):
    wandb.fault, wandb.logged_in = fault, fault != "login"
    write(tmp_path, "wandb", steps=range(1, 6))
    assert written(tmp_path) == [1, 2, 3, 4, 5]
    assert caplog.text.count("measurements do not go to Weights & Biases") == 1
    assert ("no account" if fault == "login" else "no network") in caplog.text


def test_a_service_that_does_not_answer_delays_nothing(tmp_path, wandb, caplog, monkeypatch):
    monkeypatch.setattr(sinks, "CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(sinks, "BEHIND", 3)
    wandb.waits = True
    began = time.monotonic()
    write(tmp_path, "wandb", steps=range(1, 9))
    assert time.monotonic() - began < 20
    assert written(tmp_path) == list(range(1, 9))
    assert caplog.text.count("measurements do not go to Weights & Biases") == 1
    wandb.until.set()


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, caplog):
    for name in ("wandb", "mlflow", "trackio", "tensorboardX"):
        monkeypatch.setitem(sys.modules, name, None)
    write(tmp_path, "wandb, mlflow,trackio,tensorboard")
    assert written(tmp_path) == [1, 2]
    for name in ("Weights & Biases", "MLflow", "trackio", "TensorBoard"):
        assert caplog.text.count(f"measurements do not go to {name}: ModuleNotFoundError") == 1
    caplog.clear()
    write(tmp_path, "auto", restored=2, steps=(3,))  # nobody asked for TensorBoard
    assert caplog.text == ""


def test_an_unknown_sink_is_a_fault_of_the_config():
    with pytest.raises(ConfigError, match=r"log\.sinks names 'tensorbord'.*tensorboard, wandb"):
        run_config.load("base", ["log.sinks=tensorbord"])
    assert sinks.names_of(" wandb,, mlflow,wandb") == ["wandb", "mlflow"]
    assert set(run_config.SINKS) == {"auto", "tensorboard", *sinks.SERVICES}


def test_event_files_can_be_read_back(tmp_path):
    """By the format alone: records of a length, its checksum, the bytes and theirs."""
    events = pytest.importorskip("tensorboardX.proto.event_pb2")
    write(tmp_path, "tensorboard")
    time.sleep(1.1)  # the names of the files have the second
    write(tmp_path, "tensorboard", restored=1, steps=(2,))  # goes on from step 1
    found = []
    for path in sorted((tmp_path / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = events.Event.FromString(data[12 : 12 + size])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            data = data[16 + size :]
    assert [entry for entry in found if entry[1] == "loss"] == [(1, "loss", 1.5), (2, "loss", 1.5), (2, "loss", 1.5)]


def test_a_line_fits_the_terminal_and_says_the_most_important():
    values = {
        "loss": 2.31, "contrastive_loss": 1.2, "mlm_loss": 1.11, "grad_norm": 0.53, "logit_scale": 4.6, "mfu": 0.41,
        "learning_rate": 1e-5, "clips_per_s": 1234.0, "data_wait": 0.03, "device_bytes": 6.2e10, "host_bytes": 1.2e9,
    }  # fmt: skip
    eta = ["eta 0:12:03"]
    assert "  ".join(shown(values, eta)) == (
        "loss 2.3100  contrastive 1.200  words 1.110  grad 0.53  logit_scale 4.60  lr 1.0e-05  clips/s 1,234  MFU 41.0%"
        "  data wait 3%  device 62 GB  host 1.2 GB  eta 0:12:03"
    )
    assert shown(values, eta, 24) == ["loss 2.3100", "eta 0:12:03"]
    assert shown(values, eta, 60) == ["loss 2.3100", "clips/s 1,234", "data wait 3%", *eta]
    for columns in range(30, 160):
        assert len("  ".join(shown(values, eta, columns))) <= columns
