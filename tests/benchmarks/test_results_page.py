"""The page of results: its tables are those of the committed scores, and means and intervals are right."""

import json
import re

import pytest

from benchmarks import claims, results_page
from benchmarks.claims_scores import NEEDS, SWEPT, interval
from harvest_jax.synthetic.choices import FACTORS

MACHINE = {"device": "cpu", "cores": 2, "python": "3.11.7", "jax": "0.10.2", "version": "0.1.0"}
TRAINING = {"steps": 100, "batch_size": 64, "learning_rate": 0.002}
VALUES = {
    "dropping": (1.0, 0.1),
    "dropping_arithmetic": (1.0, 0.1),
    "masking": (0.0, 0.15),
    "text": ("(('text/.*', 0.0), ('.*', 1.0))", "(('text/.*', 0.1), ('.*', 1.0))"),
    "scope": ("clip", "tube"),
    "unmasked": (1e-7, 2e-4),
    "data": ("train_1k", "train_100k"),
}


def choices(score):
    return {"accuracy": score, **{f"type {name}": score + number for number, name in enumerate(FACTORS)}}


def scores(prefix, score):
    return {f"{prefix} {name}": value for name, value in choices(score).items()}


@pytest.fixture
def found(tmp_path):
    """A JSON of each claim: two values of two seeds, 40 and 44 %, and 60 and 60 %."""
    for claim, values in VALUES.items():
        rows = [
            {"run": "r", "complete": True, SWEPT[claim][0]: value, "seed": seed, **scores("choice", score)}
            | {"train.steps": 100 if claim == "dropping_arithmetic" else None, "step_ms": 36_000}
            for value, pair in zip(values, ((40.0, 44.0), (60.0, 60.0)), strict=True)
            for seed, score in enumerate(pair)
        ]
        rows = [{name: value for name, value in row.items() if value is not None} for row in rows]
        put(tmp_path, claim, {"training": TRAINING, "machine": MACHINE, "runs": rows})
    shares = {**scores("choice_100", 50.0), **scores("choice_5", 30.0)}
    runs = [{"model.keep_ratio": kept, "seed": seed, **shares} for kept in (0.1, 1.0) for seed in (0, 1)]
    put(tmp_path, "inference", {"training": TRAINING, "machine": MACHINE, "runs": runs})
    models = [{"model": "image model, marks", "choice": choices(20.0), "stills": {"R@1": 50.0}}]
    average = {"frame_average": choices(25.0)}
    models += [
        {"model": "video model", "seed": seed, "choice": choices(60.0) | average, "stills": {"R@1": 40.0}}
        for seed in (0, 1)
    ]
    put(tmp_path, "image_models", {"machine": MACHINE, "runs": models})
    mixes = [
        {"alpha": alpha, "seed": seed, "choice": choices(30.0 + alpha), "stills": {"R@1": 50.0}}
        for alpha in (0.0, 1.0)
        for seed in (0, 1)
    ]
    put(tmp_path, "mixes", {"machine": MACHINE, "runs": mixes})
    return tmp_path


def put(folder, claim, content):
    (folder / f"{claim}.json").write_text(json.dumps(content))


def lines_of(name, found):
    text = results_page.page(f"before\n\n<!-- table: {name} -->\n<!-- end -->\n\nafter\n", found)
    assert text.startswith("before\n\n<!-- table") and text.endswith("<!-- end -->\n\nafter\n")  # noqa: PT018
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


def test_the_committed_page_is_that_of_the_committed_scores():
    text = results_page.PAGE.read_text("utf-8")
    assert results_page.page(text, results_page.FOUND) == text
    assert set(re.findall(r"<!-- table: (\w+) -->", text)) == set(results_page.SHOWN)
    for picture in re.findall(r"\]\(results/(\w+\.svg)\)", text):
        assert (results_page.PLOTS / picture).is_file()


def test_an_interval_is_students():
    mean, half = interval([40.0, 44.0])
    assert (mean, round(half, 2)) == (42.0, 25.41)  # 12.706 * 2.828 / sqrt(2)
    assert round(interval([1.0, 2.0, 3.0])[1], 3) == 2.484  # 4.303 / sqrt(3)


@pytest.mark.parametrize("claim", VALUES)
def test_a_sweep_has_a_line_for_each_value(claim, found):
    head, _, first, second = lines_of(claim, found)
    looks = head.index("looks")
    shift = sum(list(FACTORS).index(name) for name in NEEDS["looks"]) / len(NEEDS["looks"])
    assert first[looks] == f"{42 + shift:.1f} ± 25.4"
    assert second[looks] == f"{60 + shift:.1f} ± 0.0"
    words = {"dropping": "100%", "text": "frozen", "unmasked": "rate 1e-07", "data": "1,000", "scope": "clip"}
    if claim in words:
        assert first[0] == words[claim]
    assert ("steps" in head) == (claim == "dropping_arithmetic")


def test_the_hours_are_those_of_the_steps(found):
    text = results_page.page("<!-- table: scope --><!-- end -->", found)
    assert "*2 seeds, 100 steps of 64 clips, 4.0 hours of training, 2 cores (cpu), jax 0.10.2.*" in text


def test_models_factors_mixes_and_shares(found):
    models = lines_of("models", found)
    assert [line[0] for line in models[2:]] == [
        "chance", "a reader without order", "image model, marks", "video model", "video model, frames averaged",
    ]  # fmt: skip
    assert models[2][1] == "29.7"  # of 5, 5, 2, 3 and 4 options
    factors = {line[0]: line for line in lines_of("factors", found)}
    assert factors["colour"] == ["colour", "20.0", "100.0", "20.0", "25.0 ± 0.0", "60.0 ± 0.0"]
    assert [line[0] for line in lines_of("mixes", found)[2:]] == ["0", "1"]
    assert [line[:2] for line in lines_of("inference", found)[2:]] == [
        [kept, asked] for kept in ("10%", "100%") for asked in ("100%", "5%")
    ]


def test_plots_are_drawn_and_are_the_same_again(found, tmp_path):
    results_page.draw(found, tmp_path / "a")
    results_page.draw(found, tmp_path / "b")
    drawn = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert drawn == sorted(f"{name}.svg" for name, (_, _, plot) in results_page.SHOWN.items() if plot)
    for name in drawn:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_what_has_no_scores_says_so(tmp_path):
    assert "*Not run yet.*" in results_page.page("<!-- table: scope --><!-- end -->", tmp_path)


def test_a_sweep_is_collected_from_its_folder(tmp_path):
    run = tmp_path / "keep_ratio=0.1_seed=0-abc"
    (run / "results").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"train": TRAINING | {"more": 1}}))
    facts = {"device": "cpu", "python": "3.11.7", "libraries": {"jax": "0.10.2"}, "version": "0.1.0"}
    (run / "results/choice.json").write_text(json.dumps({"run": facts}))
    (tmp_path / "results.csv").write_text(
        "run,complete,model.keep_ratio,seed,choice accuracy\n"
        f"{run.name},True,0.1,0,61.5\nkeep_ratio=0.1_seed=1-abd,False,0.1,1,\n"
    )
    collected = claims.collect_sweep(tmp_path)
    assert collected["training"] == TRAINING
    assert [row["choice accuracy"] for row in collected["runs"]] == [61.5]
    assert collected["runs"][0]["model.keep_ratio"] == 0.1
