"""Every stage of the demo with a handful of training steps (what it learns is measured by `make demo`)."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harvest_jax.cli import main
from harvest_jax.config import files, run
from harvest_jax.demo import step_cost
from harvest_jax.demo.image_clip import SHIPPED
from harvest_jax.demo.stages import DemoOptions
from harvest_jax.evaluate.report.model_rows import is_image_model
from harvest_jax.evaluate.report.result_files import read_result

ROOT = Path(__file__).resolve().parents[2]
# Two training clips of each caption are enough for a batch.
SMALL = "from harvest_jax.demo.stages import *; run_demo(Path('demo'), DemoOptions(steps=4, train_clips=2))"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a demo of 4 steps, and what the command printed."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "harvest_jax", "demo", "--workdir", "a demo", "--steps", "4"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "a demo", done.stdout


def test_the_report_holds_every_figure(finished):
    folder, _ = finished
    report = json.loads((folder / "report.json").read_text())
    assert {when: set(names) for when, names in report["results"].items()} == {
        when: {"retrieval", "multiple_choice"} for when in ("before", "after")
    }
    for when, names in report["results"].items():
        for task, name in names.items():
            result = read_result(folder / name)
            assert result.task == task
            assert result.queries is not None
            assert is_image_model(result) == (when == "before")
            assert result.content["run"]["command"][:3] == ["demo", "--workdir", "a demo"]
            assert result.content["n_expected"] == {"retrieval": 40, "multiple_choice": 200}[task]
            metrics, told = result.content["metrics"], report[when]
            if task == "retrieval":
                for way in ("t2v", "v2t"):
                    assert told["retrieval"][way].items() <= metrics[way].items()
                    assert set(told["retrieval"][way]) == {"R@1", "R@5", "R@10", "MedR", "MnR"}
            else:
                assert told["motion_choice"].items() <= metrics.items()
                assert {"accuracy", "chance", "n"} <= set(told["motion_choice"])
    # Of two twins a model of single frames gets one right, as both look alike to it up to what H.264 makes of them.
    choice = read_result(folder / report["results"]["before"]["multiple_choice"])
    assert abs(choice.number(("accuracy",)) - choice.number(("chance",))) <= 3
    assert report["text_tower_digest"]["before"] == report["text_tower_digest"]["after"]
    assert report["tokens"] == {"all": 512, "kept": 52}
    assert report["step_ms"]["all"] > report["step_ms"]["kept"] > 0
    assert report["attention_ms"]["all"] > report["attention_ms"]["kept"] > 0
    assert 14.7 < report["step_flops"]["all"] / report["step_flops"]["kept"] < 14.8
    assert report["first_guess_limit"] == pytest.approx(0.7026, abs=1e-4)  # 64 of 1,280 clips with 80 captions
    assert {"clips", "shards", "before", "train", "after", "cost"} <= set(report["seconds"])


def test_the_tables_are_those_of_harvest_results(finished, capsys, tmp_path, monkeypatch):
    folder, printed = finished
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["results", str(folder / "results"), "--html", str(tmp_path / "results.html")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("image_clip, image model") >= 3
    assert shown in printed
    pages = [(folder / "report.html").read_text(), (tmp_path / "results.html").read_text()]
    one, other = (re.findall(r"<table>.*?</table>", page, re.DOTALL) for page in pages)
    assert len(one) == 3
    assert one == other


def test_an_evaluation_of_its_shards_by_hand_is_of_the_same_protocol(finished, tmp_path):
    folder, _ = finished
    words = [f"--config.data.shards={folder / 'shards'}", "--config.data.split=retrieval"]
    model, out = str(SHIPPED), tmp_path / "r.json"
    assert main(["eval", "--config", "eval/retrieval", "--model", model, "--out", str(out), *words]) == 0
    demo, by_hand = (read_result(path) for path in (folder / "results/image_model_retrieval.json", out))
    assert demo.protocol_hash == by_hand.protocol_hash
    assert demo.content["metrics"] == by_hand.content["metrics"]


def test_the_page_and_the_model_can_be_used(finished, capsys, tmp_path):
    folder, _ = finished
    page = (folder / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert 'src="data:image' in page
    assert "14.8 times fewer FLOPs" in page
    videos = str(folder / "clips/videos/retrieval")
    search = ["search", "--model", str(folder / "export"), "--videos", videos, "a red heart grows"]
    assert main([*search, "--index", str(tmp_path / "index")]) == 0
    assert ".mp4" in capsys.readouterr().out


def test_the_report_names_the_command_that_was_run(finished):
    folder, _ = finished
    report = json.loads((folder / "report.json").read_text())
    assert report["command"] == "harvest demo --workdir 'a demo' --seed 0 --steps 4"
    assert report["longer_command"] == "harvest demo --workdir 'a demo-long' --seed 0 --steps 8"
    assert report["command"].replace("'", "&#39;") in (folder / "report.html").read_text()
    assert DemoOptions(seed=3, train_image_clip=True).command(Path("x")) == (
        "harvest demo --workdir x --seed 3 --train_image_clip"
    )


def test_every_stage_says_what_it_does(finished):
    _, printed = finished
    stages = printed.split("== ")[1:]
    assert [stage.split(":")[0] for stage in stages] == [
        "clips",
        "shards",
        "before",
        "train",
        "after",
        "cost",
        "report",
    ]
    said = dict(zip(("clips", "shards", "before", "train", "after", "cost"), stages, strict=False))
    assert "1,520 clips" in said["clips"]
    assert "train: 1280 clips, " in said["shards"]
    assert "512 patches a clip: " in said["cost"]
    assert "52 patches a clip: " in said["cost"]
    for words in stages:
        assert " took " in words


def test_another_seed_is_refused_before_anything_is_touched(finished, capsys):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main(["demo", "--workdir", str(folder), "--steps", "4", "--seed", "1"]) == 2
    assert "holds a demo of seed 0: give --seed 0 to continue it, or another --workdir" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_flops_are_those_of_the_formula(monkeypatch):
    monkeypatch.setattr(step_cost, "ROUND_SECONDS", 0.0)
    config = run.load(str(files.config_file("demo.py")), ["data.shards=none", "train.batch_size=2"])
    (cost,) = step_cost.measure(config, [0.1])
    assert cost.milliseconds > 0
    assert cost.attention_ms > 0
    assert cost.flops == pytest.approx(step_cost.CLIPS * 79e6, rel=0.02)  # docs/demo.md: 79 MFLOP a clip


def test_what_is_timed_takes_turns_and_what_is_short_is_repeated(monkeypatch):
    """Other work on the machine then slows both down alike. The clock moves by what a call takes."""
    now, calls = [0.0], []
    monkeypatch.setattr(step_cost, "ROUND_SECONDS", 1.0)
    monkeypatch.setattr(step_cost.time, "perf_counter", lambda: now[0])

    def call(name, seconds):
        calls.append(name)
        now[0] += seconds

    times = step_cost.milliseconds_of([lambda: call("long", 2.0), lambda: call("short", 0.25)])
    assert times == [2000.0, 250.0]
    assert calls == ["long", "short", *(["long"] + ["short"] * 4) * step_cost.ROUNDS]


@pytest.mark.slow
def test_a_demo_killed_at_any_stage_goes_on(tmp_path):
    """kill -9 at each of these moments; the same command then continues, and the last one finishes."""
    folder = tmp_path / "demo"
    moments = {
        "clips": lambda: (folder / "clips/videos/choice/00005.mp4").exists(),
        "the second split": lambda: (folder / "shards/dataset_info.json").exists(),
        "training": lambda: (folder / "metrics.jsonl").exists(),
        "the last stages": lambda: (folder / "export/config.json").exists(),
    }
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for name, reached in moments.items():
        process = subprocess.Popen(
            [sys.executable, "-c", SMALL],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300
        while not reached():
            assert process.poll() is None, f"{name}: ended with {process.returncode}"
            assert time.monotonic() < deadline, name
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run([sys.executable, "-c", SMALL], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "they are there already" in done.stdout
    assert (folder / "report.html").is_file()
    report = json.loads((folder / "report.json").read_text())
    assert read_result(folder / report["results"]["after"]["multiple_choice"]).content["n_expected"] == 200
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()][-1] == 4
