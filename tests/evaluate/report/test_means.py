"""Means over splits and over halves of the classes, from real results."""

import shutil
import statistics

import pytest

from harvest_jax import cli
from harvest_jax.evaluate.report.grids import report
from harvest_jax.evaluate.report.result_files import read_result, read_results
from tests.helpers.benchmark_files import write_benchmark
from tests.helpers.colour_evaluation import COLOURS, evaluate, manifest


def scored(folder, name, benchmark, words, model, digest="colours"):
    """The result of an evaluation as a file of this name."""
    model.digest = digest
    evaluate(benchmark, words, folder / "one")
    folder.mkdir(exist_ok=True)
    for end in (".json", ".json.queries.parquet"):
        shutil.move(folder / "one" / "out" / f"result{end}", folder / f"{name}{end}")
    return read_result(folder / f"{name}.json")


def overview(folder):
    shown = report(read_results([folder]).results)
    return shown, shown.grids[0]


def test_halves_of_the_classes_are_one_column_with_mean_and_spread(videos, model, tmp_path, capsys):
    rows = [{"video": f"{name}.mp4", "label": name} for name in COLOURS]
    rows += [{"video": "red.mp4", "id": "wrong", "label": "blue"}, {"video": "green.mp4", "id": "w", "label": "yellow"}]
    words = manifest(videos, tmp_path, rows)
    folder = tmp_path / "results"
    of_half = [[*words, f"--config.half_of_classes={seed}"] for seed in range(4)]
    halves = [scored(folder, seed, "zero_shot", half, model) for seed, half in enumerate(of_half)]
    scored(folder, "whole", "zero_shot", words, model)
    scored(folder, "other", "zero_shot", [*words, "--config.half_of_classes=0"], model, "other weights")
    values = [result.number(("top1",)) for result in halves]
    assert len(set(values)) > 1
    shown, grid = overview(folder)
    assert grid.heads[0][0] == "set.jsonl"
    assert grid.heads[1][:2] == ("set.jsonl (mean of 4 halves)", "top-1")
    assert len(grid.heads) == 2
    cells = {label.partition(" ")[2]: own[1].text for label, own in grid.rows}
    mean = f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f} (n=4)"
    assert sorted(cells.values()) == sorted([mean, f"{values[0]:.1f} (n=1)"])
    assert any("other halves of the classes" in text for text in shown.warnings)
    assert cli.main(["results", str(folder)]) == 0
    assert mean in capsys.readouterr().out


def test_the_mean_of_all_splits_is_a_column(model, tmp_path):
    folder = tmp_path / "results"
    values = []
    for split in (1, 2, 3):
        write_benchmark(f"ucf101_{split}", tmp_path / "annotations", tmp_path / "videos")
    words = [f"--config.data.annotations={tmp_path / 'annotations'}", f"--config.data.videos={tmp_path / 'videos'}"]
    for split in (1, 2, 3):
        if split == 3:
            assert not any("mean of" in head[0] for head in overview(folder)[1].heads)
        result = scored(folder, split, f"ucf101_{split}", [*words, "--config.data.partial=True"], model)
        values.append(result.number(("top1",)))
    _, grid = overview(folder)
    assert [head[0] for head in grid.heads] == [
        *(f"UCF101, split {split}" for split in (1, 2, 3)),
        "UCF101 (mean of 3 splits)",
    ]
    ((_, cells),) = grid.rows
    assert cells[3].text == f"{statistics.fmean(values):.1f} *"  # as its parts, it is not the whole benchmark
    # a split by another protocol is none of them
    model.frames_expected = 2
    again = [*words, "--config.data.partial=True", "--config.frames=2"]
    scored(folder, 3, "ucf101_3", again, model)
    assert not any("mean of" in head[0] for head in overview(folder)[1].heads)


@pytest.mark.parametrize("runs", [1, 2])
def test_runs_of_one_configuration_have_a_mean_of_halves_each(videos, model, tmp_path, runs):
    """n counts halves, not runs."""
    words = manifest(videos, tmp_path, [{"video": f"{name}.mp4", "label": name} for name in COLOURS])
    folder = tmp_path / "results"
    for run in range(runs):
        model.origin = {"config": {"seed": run}, "workdir": str(run)}
        for seed in (0, 1):
            half = [*words, f"--config.half_of_classes={seed}"]
            scored(folder, f"{run}-{seed}", "zero_shot", half, model, f"weights {run}")
    _, grid = overview(folder)
    ((_, cells),) = grid.rows
    assert cells[0].text == "100.0 ± 0.0 (n=2)"
