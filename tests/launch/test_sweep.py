"""Sweeps: a stable list of checked, distinct runs; a plan on disk; what is complete is not run again."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harvest_jax.config import run as run_config
from harvest_jax.errors import ConfigError
from launch import scoring, sweep, sweep_runs, sweep_table
from tests.helpers.processes import is_running, running, wait_until
from tests.helpers.train_command import environment

# JAX warns of forks, if another test of this process has imported it. The launcher itself never imports it.
pytestmark = pytest.mark.filterwarnings(r"ignore:os.fork\(\) was called:RuntimeWarning")
ROOT = Path(__file__).resolve().parents[2]

CONFIG = f"""
from harvest_jax.config import load_dict

def get_config(arg="7"):
    config = load_dict({str(ROOT / "configs/base.py")!r})
    config.seed = int(arg)
    return config

def sweep(add):
    for rate in (1e-5, 3e-05):
        for flip in (False, True):
            add(**{{"train.learning_rate": rate, "data.flip": flip}})

def sweep_other(add):
    add(**{{"data.shards": "a b; c", "train.lr_multipliers": (("text/.*", 0.5),)}})
    add()

def sweep_typo(add):
    add(**{{"train.steps": 10}})
    add(**{{"train.learning_rat": 1e-5}})

def sweep_range(add):
    add(**{{"model.keep_ratio": 1.5}})

def sweep_twice(add):
    add(**{{"seed": 1}})
    add(**{{"seed": 7, "train.steps": 1000}})
    add(**{{"train.steps": 1000}})  # seed is 7 and steps 1000 already

def sweep_object(add):
    add(**{{"data.shards": None}})

def sweep_nothing(add):
    pass
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "my configs" / "c.py"
    file.parent.mkdir()
    file.write_text(CONFIG)
    return str(file)


def trainer(tmp_path, body=""):
    """A stand-in for `harvest train` that notes its arguments and leaves an export, as `--command` takes it."""
    script = tmp_path / "trainer.py"
    script.write_text(
        f"""
import json, pathlib, sys
with open({str(tmp_path / "calls.jsonl")!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
{body}
export = pathlib.Path(sys.argv[sys.argv.index("--workdir") + 1]) / "export"
export.mkdir(parents=True)
(export / "config.json").write_text("{{}}")
"""
    )
    return shlex.join([sys.executable, str(script)])


def calls(tmp_path):
    record = tmp_path / "calls.jsonl"
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def loaded(words):
    """The checked config of a printed or recorded command line."""
    overrides = [word.removeprefix("--config.") for word in words if word.startswith("--config.")]
    return run_config.load(words[words.index("--config") + 1], overrides)


def test_the_runs_are_those_the_function_adds_in_its_order(config, tmp_path):
    runs = sweep.expand(config, tmp_path)
    values = [(run_config.load(config, run.overrides).train.learning_rate, run.overrides[1]) for run in runs]
    assert values == [
        (1e-5, "data.flip=false"),
        (1e-5, "data.flip=true"),
        (3e-5, "data.flip=false"),
        (3e-5, "data.flip=true"),
    ]
    assert len({run.id for run in runs}) == 4
    assert runs[1].workdir == tmp_path / f"learning_rate=1e-05_flip=true-{runs[1].id[:6]}"


def test_ids_follow_the_complete_config_and_nothing_else(config, tmp_path):
    ids = [run.id for run in sweep.expand(config, tmp_path)]
    assert ids == [run.id for run in sweep.expand(config, tmp_path / "elsewhere")]
    assert ids == [run.id for run in sweep.expand(f"{config}:7", tmp_path)]
    assert not set(ids) & {run.id for run in sweep.expand(f"{config}:8", tmp_path)}
    assert not set(ids) & {run.id for run in sweep.expand(config, tmp_path, common=["train.steps=9"])}


def test_common_overrides_give_way_to_the_sweeps_own(config, tmp_path):
    common = ["train.learning_rate=0.5", "train.steps=9"]
    first = sweep.expand(config, tmp_path, common=common)[0]
    checked = run_config.load(config, first.overrides)
    assert (checked.train.learning_rate, checked.train.steps) == (1e-5, 9)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("typo", r"run 2 of the sweep \(train.learning_rat=1e-05\): .*did you mean train.learning_rate"),
        ("range", r"run 1 of the sweep .*model.keep_ratio=1.5 is outside"),
        ("twice", r"runs 2 and 3 of the sweep are the same run"),
        ("object", r"must be a number, a string"),
        ("nothing", r"adds no run"),
        ("missing", r"no function sweep_missing\(add\); it has sweep, sweep_nothing"),
    ],
)
def test_mistakes_start_nothing(config, tmp_path, capsys, name, message):
    with pytest.raises(ConfigError, match=message):
        sweep.expand(config, tmp_path, name)
    arguments = ["--config", config, "--workdir-root", str(tmp_path / "runs"), "--backend", "local"]
    assert sweep.main([*arguments, "--sweep", name, "--command", trainer(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("[sweep] ")
    assert captured.err.count("\n") == 1
    assert calls(tmp_path) == []
    assert not (tmp_path / "runs").exists()


def test_a_missing_config_and_an_unknown_argument(tmp_path, capsys):
    assert sweep.main(["--config", str(tmp_path / "none.py"), "--workdir-root", str(tmp_path)]) == 2
    assert "no config file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        sweep.main(["--config", "x.py", "--workdir-root", str(tmp_path), "--confg.seed=1"])
    assert stop.value.code == 2
    assert "unrecognized arguments: --confg.seed (did you mean --config.seed?)" in capsys.readouterr().err


def test_print_writes_the_plan_and_lines_a_shell_can_run(config, tmp_path, capsys):
    root = tmp_path / "the runs"
    options = ["--config", config, "--workdir-root", str(root), "--sweep", "other", "--config.train.steps=3"]
    assert sweep.main(options) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [["harvest", "train"]] * 2
    first, second = (loaded(line) for line in lines)
    assert first.data.shards == "a b; c"
    assert first.train.lr_multipliers == (("text/.*", 0.5),)
    assert second.data.shards == ""
    assert first.train.steps == second.train.steps == 3
    plan = json.loads((root / "sweep.json").read_text())
    assert [["harvest", "train", *run["arguments"]] for run in plan["runs"]] == lines
    assert [run["workdir"] for run in plan["runs"]] == [
        str(run.workdir) for run in sweep.expand(config, root, "other", ["train.steps=3"])
    ]
    assert plan["sweep"] == "other"

    assert sweep.main([*options, "--command", "sbatch launch/slurm.sbatch"]) == 0
    assert [shlex.split(line)[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["sbatch", "launch/slurm.sbatch"]
    ] * 2


def test_local_runs_what_is_not_complete(config, tmp_path, capsys):
    root = tmp_path / "runs"
    done = sweep.expand(config, root)[1]
    (done.workdir / "export").mkdir(parents=True)
    (done.workdir / "export" / "config.json").write_text("{}")
    options = ["--config", config, "--workdir-root", str(root)]

    assert sweep.main([*options, "--dry_run"]) == 0
    states = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert states == ["to", "complete", "to", "to"]
    assert not (root / "sweep.json").exists()

    local = [*options, "--backend", "local", "--command", trainer(tmp_path)]
    assert sweep.main(local) == 0
    expected = [run.arguments(config) for run in sweep.expand(config, root) if run.id != done.id]
    assert calls(tmp_path) == expected
    assert f"2/4 {done.workdir.name} is complete" in capsys.readouterr().err
    assert sweep.main(local) == 0
    assert len(calls(tmp_path)) == 3
    capsys.readouterr()
    assert sweep.main(options) == 0
    assert capsys.readouterr().out == ""


def test_a_failed_run_is_named_and_does_not_keep_the_others(config, tmp_path, capsys):
    fails = "if '--config.train.learning_rate=1e-05' in sys.argv: sys.exit(4)"
    options = ["--config", config, "--workdir-root", str(tmp_path / "runs"), "--backend", "local"]
    assert sweep.main([*options, "--command", trainer(tmp_path, fails)]) == 4
    runs = sweep.expand(config, tmp_path / "runs")
    again = [runs[number].arguments(config) for number in (0, 1, 2, 3, 0, 1)]  # what failed is tried once more
    assert calls(tmp_path) == again
    names = [run.workdir.name for run in runs]
    assert f"2 of 4 failed: {names[0]} (status 4), {names[1]} (status 4)" in capsys.readouterr().err
    assert [run.complete for run in runs] == [False, False, True, True]


def test_a_stopped_run_stops_the_sweep(config, tmp_path):
    options = ["--config", config, "--workdir-root", str(tmp_path / "runs"), "--backend", "local"]
    assert sweep.main([*options, "--command", trainer(tmp_path, "sys.exit(42)")]) == 42
    assert len(calls(tmp_path)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for it")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 42)])
def test_a_sweep_that_is_ended_ends_its_trainer(config, tmp_path, number, status):
    body = f"""
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))  # as if it had saved
pathlib.Path({str(tmp_path / "pid")!r}).write_text(f"{{os.getpid()}} ")
time.sleep(60)
"""
    options = ["--config", config, "--workdir-root", str(tmp_path / "runs"), "--backend", "local"]
    command = [sys.executable, "-m", "launch.sweep", *options, "--command", trainer(tmp_path, body)]
    with running(command, cwd=ROOT, env=environment()) as sweeping:
        wait_until(lambda: (tmp_path / "pid").exists() and " " in (tmp_path / "pid").read_text())
        sweeping.send_signal(number)
        assert sweeping.wait(timeout=60) == status
    wait_until(lambda: not is_running((tmp_path / "pid").read_text().strip()), 30)
    assert len(calls(tmp_path)) == 1


@pytest.mark.parametrize("numbers", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM)])
def test_a_stopped_sweep_waits_while_its_trainer_saves(config, tmp_path, numbers):
    body = f"""
import os, signal, time
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append("INT"))
signal.signal(signal.SIGTERM, lambda *_: heard.append("TERM"))
pathlib.Path({str(tmp_path / "ready")!r}).touch()
while not heard:
    time.sleep(0.05)
time.sleep(1.5)
pathlib.Path({str(tmp_path / "saved")!r}).touch()
sys.exit(42)
"""
    options = ["--config", config, "--workdir-root", str(tmp_path / "runs"), "--backend", "local"]
    command = [sys.executable, "-m", "launch.sweep", *options, "--command", trainer(tmp_path, body)]
    with running(command, cwd=ROOT, env=environment(), start_new_session=True) as sweeping:
        wait_until((tmp_path / "ready").exists)
        for number in numbers:
            if number == signal.SIGINT:
                os.killpg(sweeping.pid, number)  # Ctrl-C on a terminal reaches both
            else:
                sweeping.send_signal(number)
        assert sweeping.wait(timeout=60) == 42
    assert (tmp_path / "saved").exists()
    assert len(calls(tmp_path)) == 1


WORLD = ["data.shards=shards/world", "model.init_from=runs/world_image/export"]
WORLD_SWEEPS = sorted(path.stem for path in (ROOT / "configs/sweeps").glob("world_*.py"))


@pytest.mark.parametrize("name", WORLD_SWEEPS)
def test_the_worlds_sweeps_expand(name, tmp_path):
    config = f"{ROOT}/configs/sweeps/{name}.py"
    runs = sweep.expand(config, tmp_path, "", WORLD)
    seeds = [run.values["seed"] for run in runs]
    assert len(set(seeds)) >= 3
    assert len(runs) == len(set(seeds)) * seeds.count(seeds[0])
    evaluations = sweep.evaluations(config)
    assert evaluations[0].name.startswith("choice")
    wanted = [(one.name, one.config, one.of(runs[-1]).overrides) for one in evaluations]
    assert sweep_runs.evaluation_fault(wanted) == ""
    assert all(overrides[0] == f"seed={seeds[-1]}" for _, _, overrides in wanted)


def test_the_worlds_sweeps_compute_with_the_steps_of_the_command_line(tmp_path):
    """Equal arithmetic, and the last stage's share."""
    common = [*WORLD, "train.steps=500"]
    runs = sweep.expand(f"{ROOT}/configs/sweeps/world_dropping.py", tmp_path, "arithmetic", common)
    steps = {run.values["model.keep_ratio"]: run.values["train.steps"] for run in runs}
    assert steps[0.1] == 500
    assert steps[1.0] < 250
    runs = sweep.expand(f"{ROOT}/configs/sweeps/world_unmasked.py", tmp_path, "", common)
    assert {run.values["train.unmasked_steps"] for run in runs} == {0, 25}


def test_sweeps_of_one_folder_share_a_run(tmp_path):
    """The method's own setting is in most sweeps; its folder keeps the name that the first gave it."""
    dropping, scope = (f"{ROOT}/configs/sweeps/world_{name}.py" for name in ("dropping", "scope"))
    first = next(run for run in sweep.expand(dropping, tmp_path, "", WORLD) if run.values["model.keep_ratio"] == 0.1)
    first.workdir.mkdir()
    runs = sweep.expand(scope, tmp_path, "", WORLD)
    assert [run.values for run in runs if run.workdir == first.workdir] == [{"model.drop_scope": "clip", "seed": 0}]
    assert len({run.workdir for run in runs}) == len(runs)


@pytest.mark.parametrize("name", ["", "scope"])
@pytest.mark.parametrize("swept", ["", ":harvest_b16"])
def test_the_example_sweeps_expand(tmp_path, name, swept):
    runs = sweep.expand(f"{ROOT}/configs/sweeps/keep_ratio.py{swept}", tmp_path, name)
    assert len(runs) == (4 if name else 5)
    assert all("model.keep_ratio=" in " ".join(run.overrides) for run in runs)


@pytest.mark.parametrize("name", ["keep_ratio", "drop_scope", "mask_ratio"])
def test_the_demos_ablations_expand(tmp_path, name):
    """Each has the demo's own setting, which is one run in the folder that they share."""
    config = f"{ROOT}/configs/sweeps/demo.py"
    common = ["data.shards=runs/demo/shards", "model.init_from=harvest_jax/demo/data/image_clip"]
    own = sweep.expand(config, tmp_path, "keep_ratio", common)[3]
    assert own.values == {"model.keep_ratio": 0.1, "seed": 0}
    own.workdir.mkdir()
    runs = sweep.expand(config, tmp_path, name, common)
    assert [run.workdir for run in runs].count(own.workdir) == 1
    assert len({run.workdir for run in runs}) == len(runs)
    assert all(set(one.of(runs[0]).overrides) for one in sweep.evaluations(config))


def test_the_module_runs(tmp_path):
    command = [sys.executable, "-m", "launch.sweep", "--config", "configs/sweeps/keep_ratio.py:base"]
    done = subprocess.run(
        [*command, "--workdir-root", str(tmp_path), "--config.data.shards=s"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ratios = [loaded(shlex.split(line)).model.keep_ratio for line in done.stdout.splitlines()]
    assert ratios == [1.0, 0.5, 0.25, 0.1, 0.05]


SCORED = """
def sweep_seeds(add):
    for keep_ratio in (0.5, 0.1):
        for seed in (0, 1):
            add(**{"model.keep_ratio": keep_ratio, "seed": seed})

def evaluate(add):
    add("choice", "eval/multiple_choice", **{"data.split": "choice"})
"""


@pytest.fixture
def evaluated(monkeypatch):
    """The command lines of `harvest eval`; in its place one writes a result, better each time. Its words are right."""
    lines = []

    def evaluate(command):
        words = command[command.index("eval") + 1 :]
        metrics = {"accuracy": 50.0 + len(lines), "per_type": {"colour": {"accuracy": 10.0 * len(lines)}}}
        Path(words[5]).write_text(json.dumps({"task": "multiple_choice", "metrics": metrics}))
        lines.append(words)
        return 0

    monkeypatch.setattr(scoring, "run_one", evaluate)
    monkeypatch.setattr(sweep, "check_evaluations", lambda *_: None)
    return lines


def test_every_finished_run_is_scored_and_the_seeds_of_equal_values_are_a_mean(tmp_path, evaluated):
    file = tmp_path / "c.py"
    file.write_text(CONFIG + SCORED)
    root, tables = tmp_path / "runs", tmp_path / "tables"
    options = ["--config", str(file), "--workdir-root", str(root), "--sweep", "seeds", "--config.data.shards=s"]
    options += ["--backend", "local", "--command", trainer(tmp_path), "--results", str(tables)]
    runs = sweep.expand(str(file), root, "seeds", ["data.shards=s"])
    assert sweep.main(options) == 0
    assert len(calls(tmp_path)) == 4
    assert sorted(path.name for path in tables.iterdir()) == ["results.csv", "results.md", "results.svg", "sweep.json"]
    rows = (tables / "results.csv").read_text().splitlines()
    assert rows[0] == "run,complete,scored,model.keep_ratio,seed,choice accuracy,choice type colour"
    assert rows[1] == f"{runs[0].workdir.name},True,True,0.5,0,50.0,0.0"
    table = (tables / "results.md").read_text().splitlines()
    assert table[2:] == ["| 0.5 | 2 | 50.5 ± 0.7 | 5.0 ± 7.1 |", "| 0.1 | 2 | 52.5 ± 0.7 | 25.0 ± 7.1 |"]
    assert "choice accuracy" in (tables / "results.svg").read_text()
    assert evaluated[1][:4] == ["--config", "eval/multiple_choice", "--model", str(runs[1].workdir / "export")]
    assert evaluated[1][-3:] == ["--config.seed=1", "--config.data.shards=s", "--config.data.split=choice"]


def test_a_score_is_made_again_when_what_it_was_made_of_has_changed(tmp_path, evaluated):
    file = tmp_path / "c.py"
    file.write_text(CONFIG + SCORED)
    root, shards = tmp_path / "runs", tmp_path / "shards"
    shards.mkdir()
    (shards / "checksums-choice.txt").write_text("a")
    options = ["--config", str(file), "--workdir-root", str(root), "--sweep", "seeds", "--backend", "local"]
    options += ["--command", trainer(tmp_path), f"--config.data.shards={shards}"]
    first = sweep.expand(str(file), root, "seeds", [f"data.shards={shards}"])[0]

    def times():
        before = len(evaluated)
        assert sweep.main(options) == 0
        return len(evaluated) - before

    assert times() == 4
    assert times() == 0
    (first.workdir / "export/config.json").write_text('{"trained": "again"}')
    assert times() == 1
    (shards / "checksums-choice.txt").write_text("other shards")
    assert times() == 4
    file.write_text((CONFIG + SCORED).replace('"data.split": "choice"', '"data.split": "choice", "frames": 4'))
    assert times() == 4
    (first.workdir / "results/choice.json").unlink()
    (row, *_) = sweep_table.rows_of([first], sweep.evaluations(str(file)))
    assert (row["complete"], row["scored"]) == (True, False)
    assert not any(name.startswith("choice") for name in row)


def test_an_evaluation_that_cannot_run_is_refused_before_anything_starts(tmp_path, capsys):
    file = tmp_path / "c.py"
    file.write_text(CONFIG + "\ndef evaluate(add):\n    add('choice', 'eval/no_such_task')\n")
    assert sweep.main(["--config", str(file), "--workdir-root", str(tmp_path), "--dry_run"]) == 2
    assert "evaluation 'choice' of the sweep: no config file eval/no_such_task" in capsys.readouterr().err
    wrong = ("choice", "eval/retrieval", ("data.shards=s", "data.splt=x"))
    assert "data.splt" in sweep_runs.evaluation_fault([wrong])


def test_a_line_that_a_kill_cut_short_does_not_lose_the_costs(config, tmp_path):
    run = sweep.expand(config, tmp_path)[0]
    run.workdir.mkdir()
    (run.workdir / "metrics.jsonl").write_text(
        '{"step": 1, "step_ms": 30}\n{"step": 2, "step_ms": 50}\n{"step": 3, "st'
    )
    assert sweep_table.rows_of([run], [])[0]["step_ms"] == 40


def test_a_plot_tells_all_settings_apart():
    """The last stage: two rates with equally many steps, and none; and a grid, of which no field tells all."""
    stage = [{"steps": 0}, {"steps": 25, "rate": 1e-7}, {"steps": 25, "rate": 2e-4}]
    grid = [{"a": a, "b": b} for a in (1, 2) for b in (3, 4)]
    for settings, words in ((stage, ["None", "1e-07", "0.0002"]), (grid, ["1, 3", "1, 4", "2, 3", "2, 4", "a, b"])):
        rows = [{"complete": True, **values, "score": 50.0} for values in settings]
        swept = list(dict.fromkeys(field for values in settings for field in values))
        picture = sweep_table.plot(rows, swept, ["score"])
        assert picture is not None
        for word in words:
            assert f">{word}<" in picture.decode()


def test_a_folder_that_is_named_by_the_digest_alone_is_used_further(config, tmp_path):
    run = sweep.expand(config, tmp_path)[0]
    (tmp_path / run.id).mkdir()
    assert sweep.expand(config, tmp_path)[0].workdir == tmp_path / run.id
