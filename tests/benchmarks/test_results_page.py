"""The page of results: its tables are those of the committed scores, and means and intervals are right."""

import json
import re

import pytest

from benchmarks import results_page
from benchmarks.claims_scores import NEEDS, SWEPT, interval, paired
from harvest_jax.synthetic.choices import FACTORS
from harvest_jax.synthetic.questions import QUESTIONS

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


def answers(score):
    return {f"questions type {kind}": score for kind in QUESTIONS}


@pytest.fixture
def found(tmp_path):
    """A JSON of each claim: two values of two seeds, 40 and 44 %, and 60 and 60 %."""
    for claim, values in VALUES.items():
        rows = [
            {"run": "r", SWEPT[claim][0]: value, "seed": seed, **scores("choice", score), **answers(score)}
            | {"train.steps": 100 if claim == "dropping_arithmetic" else None, "step_ms": 36_000}
            for value, pair in zip(values, ((40.0, 44.0), (60.0, 60.0)), strict=True)
            for seed, score in enumerate(pair)
        ]
        rows = [{name: value for name, value in row.items() if value is not None} for row in rows]
        put(tmp_path, claim, {"training": TRAINING, "machine": MACHINE, "runs": rows})
    shares = {**scores("choice_100", 50.0), **scores("choice_5", 30.0)}
    runs = [{"model.keep_ratio": kept, "seed": seed, **shares} for kept in (0.1, 1.0) for seed in (0, 1)]
    put(tmp_path, "inference", {"training": TRAINING, "machine": MACHINE, "runs": runs})
    average = {"frame_average": choices(25.0)}
    models = [{"model": "image model, marks", "choice": choices(20.0) | average, "stills": {"R@1": 50.0}}]
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
    return [line[2:].removesuffix(" |").split(" | ") for line in text.splitlines() if line[:1] == "|"]


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


def test_differences_are_paired_by_seed(found):
    assert paired({0: 40.0, 1: 45.0, 2: 1.0}, {1: 44.0, 0: 38.0}) == [2.0, 1.0]
    head, _, *lines = lines_of("dropping", found)  # 40 and 44 against 60 and 60
    column = head.index("order, against 10%")
    assert [line[column] for line in lines] == ["-18.0 ± 25.4", ""]
    head, _, *lines = lines_of("inference", found)
    assert [line[head.index("order, against 100%")] for line in lines] == ["", "-20.0 ± 0.0"] * 2
    head, _, *lines = lines_of("models", found)
    column = head.index("order, against its averaged frames")
    assert [line[column] for line in lines[2:]] == ["", "+35.0 ± 0.0", ""]
    head, _, *lines = lines_of("mixes", found)
    assert [line[head.index("order, against 1")] for line in lines] == ["-1.0 ± 0.0", ""]


def test_scores_that_one_run_lacks_do_not_shift_the_columns(found):
    content = json.loads((found / "scope.json").read_text())
    content["runs"][0]["stills t2v R@1"] = 50.0
    put(found, "scope", content | {"without_scores": ["tube-abc"]})
    head, _, first, second = lines_of("scope", found)
    assert len(first) == len(second) == len(head)
    assert (first[head.index("pictures R@1")], second[head.index("pictures R@1")]) == ("50.0", "")
    assert "without scores: tube-abc" in results_page.page("<!-- table: scope --><!-- end -->", found)


def test_answers_stand_beside_the_commonest(found):
    head, _, commonest, *lines = lines_of("answers", found)
    assert head[1:] == list(QUESTIONS)
    assert commonest[0] == "commonest answer"
    assert all(0 < float(share) < 50 for share in commonest[1:])
    assert [line[1] for line in lines] == ["42.0 ± 25.4", "60.0 ± 0.0"]


def test_whole_captions_are_a_line_of_their_own(found):
    content = json.loads((found / "masking.json").read_text())
    content["runs"] += [row | {"text.contrastive": "clean"} for row in content["runs"] if row["text.mask_ratio"]]
    put(found, "masking", content)
    assert [line[0] for line in lines_of("masking", found)[2:]] == ["0%", "15%", "15%, whole captions contrasted"]


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
    assert "*2 seeds, 100 steps of 64 clips, about 4.0 hours of training steps, 2 cores (cpu), jax 0.10.2.*" in text


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
