"""The program of the claims: what it keeps, what it refuses, and that a failure or a signal leaves nothing behind."""

import json
import signal
import sys

import pytest

from benchmarks import claims, claims_lab
from benchmarks.claims_lab import ClaimError, Lab
from launch.sweep_runs import expand
from tests.helpers.processes import is_running, running, wait_until
from tests.helpers.train_command import environment

TRAINING = {"steps": 100, "batch_size": 64, "learning_rate": 0.002}
FACTS = {"device": "cpu", "python": "3.11.7", "libraries": {"jax": "0.10.2"}, "version": "0.1.0"}


def sweep_folder(root, claim, *rows):
    """A sweep's table, and the folder of its first run."""
    run = root / "runs/keep_ratio=0.1_seed=0-abc"
    (run / "results").mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps({"train": TRAINING | {"more": 1}}))
    (run / "results/choice.json").write_text(json.dumps({"run": FACTS}))
    (root / claim).mkdir()
    head = "run,complete,scored,model.keep_ratio,seed,choice accuracy"
    (root / claim / "results.csv").write_text("\n".join([head, *rows]) + "\n")


SCORED = "keep_ratio=0.1_seed=0-abc,True,True,0.1,0,61.5"
UNSCORED = "keep_ratio=0.1_seed=1-abd,True,False,0.1,1,"
UNTRAINED = "keep_ratio=0.1_seed=2-abe,False,False,0.1,2,"


def test_a_sweep_is_collected_and_what_has_no_scores_is_named(tmp_path):
    sweep_folder(tmp_path, "dropping", UNSCORED, SCORED, UNTRAINED)
    collected = claims.collect_sweep(tmp_path / "dropping", tmp_path / "runs", 3)
    assert collected["training"] == TRAINING
    assert collected["machine"]["cores"] == 3
    assert [row["choice accuracy"] for row in collected["runs"]] == [61.5]
    assert collected["runs"][0]["model.keep_ratio"] == 0.1
    assert collected["without_scores"] == ["keep_ratio=0.1_seed=1-abd", "keep_ratio=0.1_seed=2-abe"]


def test_a_sweep_without_scores_is_not_collected(tmp_path):
    sweep_folder(tmp_path, "dropping", UNSCORED)
    with pytest.raises(ClaimError, match="no run that is trained and scored"):
        claims.collect_sweep(tmp_path / "dropping", tmp_path / "runs", 3)


def test_a_folder_of_other_words_is_refused(tmp_path):
    Lab(tmp_path, ["--config.train.steps=500"])
    assert Lab(tmp_path, ["--config.train.steps=500"]).train_words == ["--config.train.steps=500"]
    with pytest.raises(ClaimError, match=r"was made with training .*steps=500.* not "):
        Lab(tmp_path)
    assert Lab(tmp_path, collect=True).train_words == ["--config.train.steps=500"]


def test_the_methods_model_is_that_of_the_words_given(tmp_path):
    """Also where an earlier version of the words left another one of the same values."""
    lab = Lab(tmp_path, ["--config.train.steps=500"])
    for split in ("train", *claims_lab.TEST_SPLITS, "stills_test"):
        (tmp_path / "shards").mkdir(exist_ok=True)
        (tmp_path / f"shards/checksums-{split}.txt").touch()
    (tmp_path / "image_stills/export").mkdir(parents=True)
    (tmp_path / "image_stills/export/config.json").touch()
    with pytest.raises(ClaimError, match="seed 1 is not trained"):
        lab.model_of(1)
    for steps in ("train.steps=400", "train.steps=500"):
        common = [*lab.common("train")[:2], steps]
        runs = expand("sweeps/world_dropping", lab.runs, "", common)
        (found,) = (run for run in runs if run.values == {"model.keep_ratio": 0.1, "seed": 1})
        (found.workdir / "export").mkdir(parents=True)
        (found.workdir / "export/config.json").touch()
    assert lab.model_of(1) == found.workdir / "export"


def test_a_failure_keeps_no_other_claim_and_is_reported(tmp_path, monkeypatch, capsys):
    found, root = tmp_path / "found", tmp_path / "lab"
    found.mkdir()
    monkeypatch.setattr(claims, "FOUND", found)
    monkeypatch.chdir(tmp_path)  # and back: main goes elsewhere

    def sweep(lab, claim):
        if claim != "text":
            sweep_folder(root, claim, SCORED, UNSCORED)
        if claim != "scope":
            raise ClaimError(f"{claim} diverged", 4)

    monkeypatch.setattr(Lab, "sweep", sweep)
    words = ["claims.py", "--root", str(root), "--only", "masking", "text", "scope"]
    monkeypatch.setattr(sys, "argv", words)
    assert claims.main() == 4
    assert sorted(path.name for path in found.iterdir()) == ["masking.json", "scope.json"]
    assert "masking: masking diverged\ntext: text diverged\n" in capsys.readouterr().err

    for path in found.iterdir():
        path.unlink()
    monkeypatch.setattr(sys, "argv", [*words, "mixes", "--collect"])
    assert claims.main() == 0
    assert sorted(path.name for path in found.iterdir()) == ["masking.json", "scope.json"]
    errors = capsys.readouterr().err
    assert "text: " in errors
    assert "mixes: not there yet" in errors  # the evaluations are looked for as well


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for it")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)])
def test_what_it_runs_ends_with_it(tmp_path, number, status):
    pid, waits = str(tmp_path / "pid"), tmp_path / "waits.py"
    waits.write_text(f"import os, time; open({pid!r}, 'w').write(f'{{os.getpid()}} '); time.sleep(60)")
    made = f"Lab(pathlib.Path({str(tmp_path)!r})).run(sys.executable, {str(waits)!r})"
    parent = f"import pathlib, sys; from benchmarks.claims_lab import Lab; {made}"
    with running([sys.executable, "-c", parent], cwd=claims.ROOT, env=environment()) as lab:
        wait_until(lambda: (tmp_path / "pid").exists() and " " in (tmp_path / "pid").read_text())
        lab.send_signal(number)
        assert lab.wait(timeout=60) == status
    wait_until(lambda: not is_running((tmp_path / "pid").read_text().strip()), 30)
