"""Measurements: what lands in metrics.jsonl, what a resume cuts, and sinks that fail."""

import io
import json
import math
import sys
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from harvest_jax.train import metrics
from harvest_jax.train.metrics import MetricWriter
from tests.helpers.disks import limited_file_size


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # import fails, as without the extra


def test_each_line_is_on_disk_when_write_returns_and_keeps_every_bit(tmp_path):
    loss = np.float32(0.1)
    with MetricWriter(tmp_path, 10, 0) as writer:
        writer.write(1, {"loss": loss, "clips_per_s": 3})
        assert lines(tmp_path) == [{"step": 1, "loss": float(loss), "clips_per_s": 3.0}]
        writer.write(2, {"loss": 2.5})
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    assert np.float32(lines(tmp_path)[0]["loss"]) == loss


def test_what_is_no_number_is_null_and_valid_json(tmp_path, capsys):
    with MetricWriter(tmp_path, 10, 0) as writer:
        writer.write(1, {"loss": math.nan, "grad_norm": math.inf})

    def refuse(word):
        raise AssertionError(word)

    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse) == {"step": 1, "loss": None, "grad_norm": None}
    assert "loss nan" in capsys.readouterr().out


@pytest.mark.parametrize(("restored", "kept"), [(0, []), (4, [2, 4]), (5, [2, 4]), (9, [2, 4, 6])])
def test_a_resume_cuts_what_lies_beyond_the_restored_step(tmp_path, restored, kept):
    with MetricWriter(tmp_path, 10, 0) as writer:
        for step in (2, 4, 6):
            writer.write(step, {"loss": step})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('[1]\n{"loss": 1}\n{"step": 3, "lo')  # other lines, and one that a kill cut short
    with MetricWriter(tmp_path, 10, restored) as writer:
        assert [line["step"] for line in lines(tmp_path)] == kept
        writer.write(10, {"loss": 0})
    assert [line["step"] for line in lines(tmp_path)] == [*kept, 10]


def test_scores_are_lines_of_their_own_that_a_resume_writes_again(tmp_path, capsys):
    with MetricWriter(tmp_path, 10, 0) as writer:
        for step in (0, 2, 4):
            writer.write(step, {"loss": step})
            writer.write_scores(step, {"eval/r/n": float(step)})
        writer.write(5, {"loss": 5})
    assert capsys.readouterr().out.count("step") == 4  # the display shows steps alone
    written = [(line["step"], "eval/r/n" in line) for line in lines(tmp_path)]
    assert written == [(0, False), (0, True), (2, False), (2, True), (4, False), (4, True), (5, False)]
    with MetricWriter(tmp_path, 10, 4):
        assert lines(tmp_path) == [{"step": 0, "loss": 0}, {"step": 0, "eval/r/n": 0}, {"step": 2, "loss": 2},
                                   {"step": 2, "eval/r/n": 2}, {"step": 4, "loss": 4}]  # fmt: skip


def test_plain_lines_have_the_main_numbers_alone(tmp_path, capsys):
    with MetricWriter(tmp_path, 10000, 100) as writer:
        writer.write(101, {"loss": 2.0, "grad_norm": 0.5, "clips_per_s": 1234.4, "data_wait": 0.031})
        writer.write(200, {"loss": 1.0, "clips_per_s": 0.2345, "bad_records": 3.0, "epoch": 1.5})
    first, second = capsys.readouterr().out.splitlines()
    assert first == "step 101/10000  loss 2.0000  grad 0.5  clips/s 1,234  data wait 3%"
    assert second.startswith("step 200/10000  loss 1.0000  clips/s 0.23  bad records 3  eta ")
    assert lines(tmp_path)[1] == {"step": 200, "loss": 1.0, "clips_per_s": 0.2345, "bad_records": 3.0, "epoch": 1.5}


def test_the_time_left_is_that_of_steady_steps(tmp_path, capsys, monkeypatch):
    """Not of the compilation before the first step, nor of another one later; a resumed run begins anew."""
    clock = iter([900.0, 950.0, 1000.0, 1500.0, 1550.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    with MetricWriter(tmp_path, 10000, 100) as writer:
        for step in (101, 201, 301, 401, 501):
            writer.write(step, {})
    shown = [line.partition("eta ")[2] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["", "1:21:40", "1:20:50", "1:20:00", "1:19:10"]  # 100 steps took 50 s


def test_nothing_from_a_process_that_is_not_the_first(tmp_path, capsys):
    with MetricWriter(tmp_path / "run", 10, 0, enabled=False) as writer:
        writer.write(1, {"loss": 1.0})
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", ["120", "40"])
def test_a_terminal_gets_a_live_display(tmp_path, monkeypatch, columns):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", columns)
    with MetricWriter(tmp_path, 100000, 2) as writer:
        writer.write(99998, {"loss": 1.5, "clips_per_s": 20.0, "data_wait": 0.5})
        writer.write(99999, {"loss": 1.25, "clips_per_s": 20.0, "data_wait": 0.5})
    text = terminal.getvalue()
    assert "\x1b[" in text
    assert "step 99999/100000" in text
    assert "loss 1.2500" in text
    if columns == "120":
        for words in ("clips/s 20", "data wait 50%", "eta 0:00:00"):
            assert words in text
    assert len(lines(tmp_path)) == 2


class SummaryWriter:
    """As tensorboardX's; notes each call, with the event files in a folder `tensorboard`."""

    log: ClassVar[list[object]] = []

    def __init__(self, folder, purge_step):
        Path(folder).mkdir(exist_ok=True)
        self.log.append((folder, purge_step))

    def add_scalar(self, name, value, step):
        self.log.append((name, value, step))

    def flush(self):
        pass

    def close(self):
        self.log.append("closed")


def install_tensorboard(monkeypatch, writer):
    """Make `writer` the SummaryWriter of the package tensorboardX; returns its log."""
    module = types.ModuleType("tensorboardX")
    module.SummaryWriter = writer
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    monkeypatch.setattr(SummaryWriter, "log", [])
    return SummaryWriter.log


def test_a_sink_that_fails_is_reported_once_and_dropped(tmp_path, monkeypatch, caplog):
    class Broken(SummaryWriter):
        def flush(self):
            raise RuntimeError("no network")

        def close(self):
            raise AssertionError("was dropped")

    log = install_tensorboard(monkeypatch, Broken)
    with MetricWriter(tmp_path, 10, 0) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"loss": 1.0})
    assert log[1:] == [("loss", 1.0, 1)]
    assert caplog.text.count("do not go to TensorBoard: RuntimeError: no network") == 1
    assert len(lines(tmp_path)) == 3


def test_a_sink_that_cannot_be_opened_or_closed_stops_nothing(tmp_path, monkeypatch, caplog):
    class Unclosable(SummaryWriter):
        def close(self):
            raise OSError("gone")

    (tmp_path / "metrics.jsonl").mkdir()
    install_tensorboard(monkeypatch, Unclosable)
    with MetricWriter(tmp_path, 10, 0) as writer:
        writer.write(1, {"loss": 1.0})
    assert "do not go to metrics.jsonl: IsADirectoryError" in caplog.text
    assert "do not go to TensorBoard: OSError: gone" in caplog.text


def test_where_no_whole_line_fits_none_is_left_and_the_next_is_tried(tmp_path, caplog, capsys):
    with MetricWriter(tmp_path, 10, 0) as writer:
        writer.write(1, {"loss": 1.0})
        before = (tmp_path / "metrics.jsonl").read_bytes()
        with limited_file_size(len(before) + 10):
            writer.write(2, {"loss": 2.0})
            writer.write(3, {"loss": 3.0})
            assert (tmp_path / "metrics.jsonl").read_bytes() == before
        writer.write(4, {"loss": 4.0})
    assert [line["step"] for line in lines(tmp_path)] == [1, 4]
    assert caplog.text.count("do not go to metrics.jsonl: OSError") == 1
    assert "only 10 of" in caplog.text
    assert len(capsys.readouterr().out.splitlines()) == 4  # the display was not affected


def test_tensorboard_gets_every_number_and_hides_the_steps_a_resume_repeats(tmp_path, monkeypatch):
    log = install_tensorboard(monkeypatch, SummaryWriter)
    for start in (0, 5):
        with MetricWriter(tmp_path, 10, start) as writer:
            writer.write(start + 1, {"loss": 1.5})
    folder = str(tmp_path / "tensorboard")
    assert log == [(folder, None), ("loss", 1.5, 1), "closed", (folder, 6), ("loss", 1.5, 6), "closed"]


def test_real_event_files(tmp_path, monkeypatch):
    monkeypatch.undo()
    pytest.importorskip("tensorboardX")
    with MetricWriter(tmp_path, 10, 0) as writer:
        writer.write(1, {"loss": 1.5, "grad_norm": math.nan})
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes()
