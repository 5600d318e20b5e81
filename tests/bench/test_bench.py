"""`harvest bench step` on a small model, what it says of too little memory, and the grid of benchmarks/step.py."""

import argparse
import contextlib
import io
import json
import math
from types import SimpleNamespace

import jax
import pytest

from benchmarks import step as grid
from harvest_jax.bench import command as bench_main
from harvest_jax.bench import time_step as bench
from harvest_jax.bench.memory_advice import memory_advice
from harvest_jax.cli import main
from harvest_jax.config import run as run_config
from harvest_jax.model.harvest import parameter_shapes
from harvest_jax.train import program as programs
from tests.helpers.small_model import WIDE

BATCH = 16
KEYS = {"clips_per_s", "step_ms_p50", "step_ms_p95", "tokens", "mfu", "device", "tflop_per_clip", "matmul_tflops"}
SMALL = ["--config.model.dtype=float32", "--config.model.num_frames=4", "--config.text.length=16"]


@pytest.fixture(scope="module")
def measured():
    """(what the command printed as JSON, the same as a text) of one run on all virtual devices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "model_config", lambda run: WIDE)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert (
                main(["bench", "step", "--batch", str(BATCH), "--keep", "0.5", "--steps", "2", "--json", *SMALL]) == 0
            )
    found = json.loads(out.getvalue().splitlines()[-1])
    return found, bench_main.table(found)


def test_result_has_the_figures_and_they_agree(measured):
    result, _ = measured
    assert result.keys() > KEYS
    assert (result["batch"], result["devices"]) == (BATCH, jax.device_count())
    assert result["tokens"] == 33  # half of 4 frames of 16 patches, and the class token
    assert 0 < result["step_ms_p50"] <= result["step_ms_p95"]
    per_second = result["tflop_per_clip"] * result["clips_per_s"]
    assert result["mfu"] == pytest.approx(per_second / result["matmul_tflops"] / result["devices"])
    assert result["clips_per_s"] == pytest.approx(BATCH / result["step_ms_unblocked"] * 1e3)
    trained = sum(math.prod(shape) for path, shape in parameter_shapes(WIDE).items() if not path.startswith("text/"))
    assert result["peak_bytes_from"] == "compiled memory_analysis"
    assert 3 * 4 * trained < result["peak_bytes"] < 100 * trained  # parameters and two moments, once
    assert result["loss"] == pytest.approx(2.8 + 6.2, abs=1.5)  # log of 16 clips and of 512 words: nothing is learned


def test_table_says_it_to_people(measured):
    result, text = measured
    assert f"32 of 64 patches, batch 16, float32, on {jax.device_count()} x cpu" in text
    assert f"{result['clips_per_s']:.2f}" in text
    assert "compiled memory_analysis" in text


def fails_with(capsys, *words):
    code = main(["bench", "step", *SMALL, *words])
    output = capsys.readouterr().err
    assert output.startswith("harvest bench: ")
    assert output.count("\n") == 1
    return code, output


@pytest.fixture
def small_model(monkeypatch):
    monkeypatch.setattr(programs, "model_config", lambda run: WIDE)


def test_more_memory_than_the_host_has_is_refused_before_it_is_taken(small_model, monkeypatch, capsys):
    monkeypatch.setattr(bench, "available_memory", lambda: 1e6)
    monkeypatch.setattr(bench, "random_state", lambda program: pytest.fail("memory was taken"))
    code, said = fails_with(capsys, "--batch", "24", "--config.model.remat=none")
    assert code == 2
    assert "0.0 are free" in said
    assert "train.batch_size=24" in said
    assert "--config.train.accumulate=3 " in said
    assert "--config.model.remat=dots" in said


def test_out_of_memory_on_a_device_is_one_line(small_model, monkeypatch, capsys):
    def full(program, all_patches=False):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3 bytes.\nmany\nlines"
        )

    monkeypatch.setattr(programs.TrainProgram, "jitted", full)
    words = ("--config.model.remat=full", "--config.train.accumulate=3", "--batch", "2040")
    code, said = fails_with(capsys, *words)
    assert code == 2
    assert "allocate 3 bytes" in said
    assert "many" not in said
    assert "remat" not in said.split("try ")[1]


@pytest.mark.parametrize(("batch", "devices"), [(2040, 8), (1024, 8), (4096, 64), (1031, 1), (8, 8)])
def test_what_is_advised_against_too_little_memory_can_be_used(batch, devices):
    run = run_config.load("base", [f"train.batch_size={batch}"])
    advised = memory_advice(run, devices)
    assert "model.remat=dots" in advised
    for one in advised:
        changed = run_config.load("base", [f"train.batch_size={batch}", one])
        assert changed.train.batch_size // changed.train.accumulate % devices == 0
        assert changed.train.accumulate > 1 or not one.startswith("train.accumulate")
    assert any(one.startswith("train.accumulate") for one in advised) == (batch // devices > 1)
    last = memory_advice(run, devices, all_patches=True)
    assert [one.removeprefix("train.unmasked_") for one in last if "unmasked" in one] == [
        one.removeprefix("train.") for one in advised if "accumulate" in one
    ]
    full = run_config.load("base", [f"train.batch_size={batch}", "model.remat=full"])
    assert not any(one.startswith("model.remat") for one in memory_advice(full, devices))


def test_other_errors_of_the_device_are_not_called_memory(small_model, monkeypatch):
    def broken(program, all_patches=False):
        raise jax.errors.JaxRuntimeError("INTERNAL: no such kernel")

    monkeypatch.setattr(programs.TrainProgram, "jitted", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="no such kernel"):
        main(["bench", "step", *SMALL, "--batch", "16"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch", "0"], "train.batch_size=0"),
        (["--keep", "1.5"], "model.keep_ratio=1.5"),
        (["--batch", "12", "--config.train.accumulate=5"], "does not divide"),
        (["--config", "nowhere.py"], "no config file nowhere.py"),
    ],
)
def test_impossible_settings_are_named(words, said, capsys):
    code, output = fails_with(capsys, *words)
    assert code == 2
    assert said in output


def test_a_cpu_gets_few_clips_unless_told(small_model, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "harvest_jax.bench.time_step.bench_step", lambda run, *_, **__: seen.append(run.train.batch_size) or {}
    )
    for words in ([], ["--config.train.batch_size=64"], ["--batch", "8"]):
        assert main(["bench", "step", "--json", *words]) == 0
    expected = bench_main.CPU_BATCH * jax.device_count() if jax.default_backend() == "cpu" else 1024
    assert seen == [expected, 64, 8]


def make_runner(tmp_path, measure, **changes):
    fields = {"ablate": False, "name": "x", "out": tmp_path, "timeout": 1.0, "again": False, "overrides": []}
    runner = grid.Runner(argparse.Namespace(steps=None, cpu=False, **fields | changes), {})
    runner.measure = measure
    return runner


def result(batch, words, **changes):
    remat = next((word.split("=")[1] for word in words if word.startswith("--config.model.remat=")), "none")
    return {
        "clips_per_s": 100.0 * batch,
        "step_ms_p50": 10.0,
        "step_ms_p95": 11.0,
        "tflop_per_clip": 0.09,
        "tflop_recomputed": 0.0,
        "mfu": 0.5,
        "peak_bytes": 2**30,
        "peak_bytes_from": "device memory_stats",
        "remat": remat,
        "accumulate": 1,
        "compile_s": 3.0,
        "devices": 1,
        "device": "TPU",
        "host_cores": 1,
        "frames": 8,
        "text_tokens": 32,
        "dtype": "bfloat16",
        "attention": "xla",
        "matmul_tflops": 100.0,
        "versions": {"jax": "0", "backend": "tpu"},
    } | changes


def test_cells_that_do_not_fit_take_the_next_way_and_so_do_larger_ones(tmp_path):
    asked = []

    def measure(model, keep, batch, words):
        asked.append((batch, *words))
        fits = batch < 128 or "--config.model.remat=none" not in words
        return result(batch, words) if fits else {"error": "out of memory with B/16"}

    runner = make_runner(tmp_path, measure)
    way = 0
    for batch in (64, 128, 256):
        way = runner.cell("B/16", 0.1, batch, way)
    assert grid.WAYS[way] == ("dots", 1)
    assert [words[:2] for words in asked] == [
        (64, "--config.model.remat=none"),
        (128, "--config.model.remat=none"),
        (128, "--config.model.remat=dots"),
        (256, "--config.model.remat=dots"),
    ]
    again = make_runner(tmp_path, lambda *_: pytest.fail("measured a second time"))
    assert again.cell("B/16", 0.1, 128) == way
    table = (tmp_path / "step_x.md").read_text()
    assert "| B/16 | 0.1 | 256 |  | 2.56e+04 |" in table
    assert (tmp_path / "step_x.png").stat().st_size > 10_000


def test_a_row_ends_where_nothing_fits_and_other_faults_are_kept(tmp_path):
    runner = make_runner(tmp_path, lambda *_: {"error": "out of memory with L/14"})
    assert runner.cell("L/14", 1.0, 4096) is None
    runner.measure = lambda *_: {"error": "took more than 1 s"}
    assert runner.cell("L/14", 0.1, 4096) is None
    cells = json.loads((tmp_path / "step_x.json").read_text())["cells"]
    assert [cell["result"]["error"] for cell in cells] == ["out of memory with L/14", "took more than 1 s"]
    assert "(took more than 1 s)" in (tmp_path / "step_x.md").read_text()


def test_savings_compare_with_all_patches_at_the_same_batch(tmp_path):
    times = {(0.1, 4): 10.0, (1.0, 4): 107.0, (0.1, 8): 20.0}
    runner = make_runner(
        tmp_path, lambda model, keep, batch, words: result(batch, words, step_ms_p50=times[keep, batch])
    )
    for keep, batch in times:
        runner.cell("B/16", keep, batch)
    sentences = grid.savings(runner.cells)
    assert len(sentences) == 1
    assert "batch 4" in sentences[0]
    assert "10.7 times" in sentences[0]


def test_ablation_changes_one_thing_at_a_time(tmp_path, monkeypatch):
    asked = []
    runner = make_runner(tmp_path, lambda m, k, b, words: asked.append(words) or result(b, words), ablate=True)
    changes = grid.ablations(8, cpu=False)
    only_on_cpus = {change for change, _ in grid.ablations(8, cpu=True)} - {change for change, _ in changes}
    assert only_on_cpus == {"bfloat16", "layers unrolled"}
    with monkeypatch.context() as patch:
        patch.setattr(grid, "plot_ablation", lambda cells, path: None)  # one picture is enough
        for change, words in changes:
            runner.cell("B/16", 0.1, 8, change=change, words=words)
    runner.write()
    assert asked[0] == []
    assert len({tuple(words) for words in asked}) == len(changes) == len({change for change, _ in changes})
    for words in asked:  # every one of them is a config that can be used
        overrides = [word.removeprefix("--config.") for word in words if word != grid.LAYERS]
        run_config.load(grid.CONFIG, [*overrides, "train.batch_size=8"])
    assert (tmp_path / "step_x_ablation.png").stat().st_size > 10_000


def test_what_a_cell_of_the_grid_says_when_it_fails(tmp_path, monkeypatch):
    runner = make_runner(tmp_path, None)
    measure = grid.Runner.measure.__get__(runner)
    done = SimpleNamespace(returncode=2, stdout="", stderr="W noise\nharvest bench: out of memory with B/16\n")
    monkeypatch.setattr(grid.subprocess, "run", lambda command, **_: done)
    assert measure("B/16", 0.1, 4, []) == {"error": "out of memory with B/16"}
    done.returncode, done.stderr = -9, ""
    assert "-9" in measure("B/16", 0.1, 4, [])["error"]
    done.returncode, done.stdout = 0, 'noise\n{"mfu": 1.0}\n'
    assert measure("B/16", 0.1, 4, []) == {"mfu": 1.0}
