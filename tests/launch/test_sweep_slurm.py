"""Sweeps as Slurm arrays: the runs and ids of `--backend local`, each task one line, then one job for the scores."""

import shlex

import pytest

from launch import sweep
from tests.launch.test_sweep import CONFIG


@pytest.fixture
def submitted(stubs, tmp_path, monkeypatch, capsys):
    """Submits the sweep of `CONFIG` in folders with spaces; (status, runs, calls of sbatch, standard error)."""
    for name, value in (stubs.environment | {"STUB_PRINTS_sbatch": "77;cluster"}).items():
        monkeypatch.setenv(name, value)
    config = tmp_path / "my configs" / "c.py"
    config.parent.mkdir()
    config.write_text(CONFIG)
    root = tmp_path / "the runs"

    def submit(*more):
        options = ["--config", str(config), "--workdir_root", str(root), "--backend", "slurm", *more]
        status = sweep.main(options)
        return status, sweep.expand(str(config), root), [call[1:] for call in stubs.calls()], capsys.readouterr().err

    submit.config, submit.root = str(config), root
    return submit


def finish(run):
    (run.workdir / "export").mkdir(parents=True)
    (run.workdir / "export" / "config.json").write_text("{}")


def test_the_array_has_the_runs_that_are_not_complete(submitted):
    finish(sweep.expand(submitted.config, submitted.root)[1])
    status, runs, (array, scores), error = submitted("--command", "sbatch --nodes=2 launch/slurm.sbatch")
    assert status == 0
    assert {"--nodes=2", "--parsable", "--array=0,2,3"} <= set(array)
    assert "job 77: 3 of 4 runs" in error
    script, option, file = array[-3:]
    assert (script, option) == ("launch/slurm.sbatch", "--runs")
    lines = (submitted.root / "runs.txt").read_text().splitlines()
    assert file == str(submitted.root / "runs.txt")
    # Task N is run N of the sweep, the same one as of a local sweep, by the same arguments.
    assert [shlex.split(line) for line in lines] == [run.arguments(submitted.config) for run in runs]
    assert "--dependency=afterany:77" in scores
    assert "--nodes=1" in scores


def test_the_job_after_the_array_scores_the_same_runs(submitted):
    _, _, (_, scores), _ = submitted("--config.train.steps=9", "--results", str(submitted.root / "tables"))
    (wrapped,) = (word.removeprefix("--wrap=") for word in scores if word.startswith("--wrap="))
    words = shlex.split(wrapped)
    assert words[1:3] == ["-m", "launch.sweep"]
    parser = sweep.build_parser()
    others, common = parser.take_overrides(words[3:])
    args = parser.parse_args(others)
    assert (args.backend, args.config, args.workdir_root) == ("score", submitted.config, submitted.root)
    assert args.results == submitted.root / "tables"
    assert common == ["train.steps=9"]


def test_a_complete_sweep_submits_its_scores_alone(submitted):
    for run in sweep.expand(submitted.config, submitted.root):
        finish(run)
    status, _, calls, _ = submitted()
    assert status == 0
    ((*_, last),) = calls
    assert last.startswith("--wrap=")
    assert not any(word.startswith(("--array", "--dependency")) for word in calls[0])


def test_a_refused_array_submits_nothing_more(submitted, monkeypatch):
    monkeypatch.setenv("STUB_STATUS", "1")
    status, _, calls, _ = submitted()
    assert status == 1
    assert len(calls) == 1


def test_scoring_alone_makes_the_table_of_what_is_complete(submitted, capsys):
    runs = sweep.expand(submitted.config, submitted.root)
    finish(runs[0])
    options = ["--config", submitted.config, "--workdir-root", str(submitted.root), "--backend", "score"]
    assert sweep.main(options) == 3
    assert f"3 of 4 are not complete: {runs[1].workdir.name}" in capsys.readouterr().err
    table = (submitted.root / "results.csv").read_text()
    assert all(run.workdir.name in table for run in runs)
    for run in runs[1:]:
        finish(run)
    assert sweep.main(options) == 0
