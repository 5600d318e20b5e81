"""Benchmarks by name, end to end: official file forms, videos as they are named there, the command that users give."""

import json
import shutil

import pytest

import harvest_jax
from harvest_jax import cli
from harvest_jax.config.files import load_dict
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate import evaluation
from harvest_jax.evaluate.benchmarks.named import all_benchmarks
from harvest_jax.evaluate.benchmarks.read_benchmark import read
from harvest_jax.evaluate.report.grids import checked_queries, report
from harvest_jax.evaluate.report.query_scores import METRICS
from harvest_jax.evaluate.report.result_files import read_result
from tests.helpers import benchmark_miniatures as miniatures
from tests.helpers.annotations import ANNOTATIONS
from tests.helpers.benchmark_files import MINIATURES, write_benchmark
from tests.helpers.colour_evaluation import COLOURS, CONFIGS, REPOSITORY, evaluate, write_shards
from tests.helpers.opened_files import opened_below


@pytest.fixture
def benchmark_files(tmp_path):
    """A function that writes a miniature of a benchmark and a video for each name in it; gives the command's words."""

    def write(name):
        write_benchmark(name, tmp_path / "annotations", tmp_path / "videos")
        return [f"--config.data.annotations={tmp_path / 'annotations'}", f"--config.data.videos={tmp_path / 'videos'}"]

    return write


@pytest.mark.parametrize("name", all_benchmarks())
def test_every_benchmark_has_a_config_that_shows_its_command(name):
    path = CONFIGS / f"{name}.py"
    settings = evaluation.check(load_dict(str(path), ["data.annotations=a", "data.videos=v"]))
    assert settings.task == all_benchmarks()[name].task
    assert settings.data.benchmark == name
    assert f"harvest eval --config eval/{name} " in path.read_text("utf-8").split('"""')[1]


def test_every_benchmark_has_a_miniature():
    assert set(MINIATURES) == set(all_benchmarks())


@pytest.mark.parametrize("name", all_benchmarks())
def test_a_miniature_is_scored_by_the_benchmarks_name(name, benchmark_files, model, tmp_path, monkeypatch):
    words = benchmark_files(name)
    with opened_below(tmp_path / "annotations", monkeypatch) as opened:
        result = evaluate(name, [*words, "--config.data.partial=True"], tmp_path)
    assert opened == {fact["name"] for purpose, fact in result["inputs"].items() if purpose != "distinct_frames"}
    assert result["n_missing"] == 0
    assert result["task"] == all_benchmarks()[name].task
    assert result["protocol"]["data"]["name"] == name
    partial = bool(all_benchmarks()[name].expected)
    assert result["protocol"]["data"]["partial"] is partial
    assert any("not the whole benchmark" in text for text in result["warnings"]) is partial
    assert all(len(result["inputs"][purpose]["sha256"]) == 64 for purpose in all_benchmarks()[name].files)


def test_the_list_beside_a_pickle_is_an_input(videos, model, tmp_path, monkeypatch):
    folder = tmp_path / "annotations"
    folder.mkdir()
    miniatures.msvd_pickle(folder)
    for number, row in enumerate(read(all_benchmarks()["msvd"], folder, partial=True)):
        (tmp_path / "videos").mkdir(exist_ok=True)
        shutil.copy(videos / f"{list(COLOURS)[number]}.mp4", tmp_path / "videos" / f"{row.video}.mp4")
    words = [f"--config.data.annotations={folder}", f"--config.data.videos={tmp_path / 'videos'}"]
    with opened_below(folder, monkeypatch) as opened:
        inputs = evaluate("msvd", [*words, "--config.data.partial=True"], tmp_path)["inputs"]
    assert opened == {inputs["captions"]["name"], inputs["list of videos"]["name"]}
    assert opened == {"raw-captions.pkl", "test_list.txt"}


@pytest.mark.parametrize(
    ("name", "purpose", "file", "field"),
    [
        ("msrvtt_qa", "answers", "train_qa.json", "answers"),
        ("tgif_frame", "answers", "Train_frameqa_question.csv", "answers"),
        ("kinetics400_list", "classes", "kinetics_label_map.txt", "classes"),
    ],
)
def test_a_file_that_is_given_takes_the_place_of_the_benchmarks_own(
    name, purpose, file, field, benchmark_files, model, tmp_path, monkeypatch
):
    words = [*benchmark_files(name), "--config.data.partial=True"]
    (own,) = (tmp_path / "annotations").rglob(file)
    given = tmp_path / "given.txt"
    shutil.copy(own, given)
    own.unlink()
    with opened_below(tmp_path, monkeypatch) as opened:
        inputs = evaluate(name, [*words, f"--config.{field}={given}"], tmp_path)["inputs"]
    assert inputs[purpose]["name"] == "given.txt"
    assert "given.txt" in opened
    if purpose == "answers":  # those of the set itself: no file
        words += ["--config.answers=test_set", "--config.max_answers=0"]
        assert purpose not in evaluate(name, words, tmp_path)["inputs"]


# one benchmark of each task
OF_TASK = {benchmark.task: name for name, benchmark in all_benchmarks().items()}


@pytest.mark.parametrize("task", [task for task in METRICS if task in OF_TASK])
def test_the_queries_of_every_task_give_its_scores(task, benchmark_files, model, tmp_path):
    """With a video that is missing, and with ties, because several videos have one colour."""
    words = [*benchmark_files(OF_TASK[task]), "--config.data.partial=True", "--allow_missing"]
    next(path for path in sorted((tmp_path / "videos").rglob("*")) if path.is_file()).unlink()
    told = evaluate(OF_TASK[task], words, tmp_path)
    assert told["n_missing"] > 0
    result = read_result(tmp_path / "out" / "result.json")
    for metric in METRICS[task]:
        assert result.number(metric.path) is not None
        if metric.part:
            checked_queries(result, metric)  # refuses a mean that is not the score
    assert report([result]).warnings == ()


def test_other_counts_are_refused_before_the_model_is_loaded(benchmark_files, model, tmp_path, capsys, monkeypatch):
    words = benchmark_files("msrvtt_1ka")
    monkeypatch.setitem(harvest_jax.__dict__, "load", None)
    evaluate("msrvtt_1ka", words, tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err
    assert "MSR-VTT 1k-A: expected 1,000 videos, found 4" in error
    assert "data.partial" in error
    assert error.count("\n") == 1


def test_a_missing_video_is_refused_unless_allowed(benchmark_files, model, tmp_path, capsys):
    words = [*benchmark_files("msrvtt_1ka"), "--config.data.partial=True"]
    (tmp_path / "videos" / "video9771.mp4").unlink()
    evaluate("msrvtt_1ka", words, tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err
    assert "1 of the 4 videos of MSR-VTT 1k-A are not there, the first: video9771 (not found" in error
    result = evaluate("msrvtt_1ka", [*words, "--allow_missing"], tmp_path)
    assert (result["n_expected"], result["n_missing"]) == (4, 1)


def test_the_same_benchmark_from_shards_differs_in_the_frames_alone(benchmark_files, videos, model, tmp_path):
    words = [*benchmark_files("msrvtt_1ka"), "--config.data.partial=True"]
    files = evaluate("msrvtt_1ka", words, tmp_path)
    rows = [(f"video{9770 + n}", list(COLOURS)[n], ("another caption",), {}) for n in range(4)]
    shards = write_shards(tmp_path / "shards", videos, rows)
    stored = evaluate("msrvtt_1ka", [words[0], words[2], *shards], tmp_path)
    assert stored["n_missing"] == 0
    different = {name for name in files["protocol"] if files["protocol"][name] != stored["protocol"][name]}
    assert different == {"frame_source"}
    assert files["protocol_hash"] != stored["protocol_hash"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "set data.annotations"),
        (["--config.data.annotations=a"], "set data.videos"),
        (["--config.data.annotations=a", "--config.data.videos=v", "--config.data.shards=s"], "not both"),
        (["--config.data.annotations=a", "--config.data.videos=v", "--config.data.manifest=m.csv"], "have no use"),
        (["--config.data.annotations=a", "--config.data.videos=v", "--config.data.benchmark=msrvt"], "no benchmark"),
    ],
)
def test_a_wrong_use_is_one_line(words, message, tmp_path, capsys):
    evaluate("msrvtt_1ka", words, tmp_path, code=ConfigError.exit_code)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_fields_of_benchmarks_are_refused_without_one(tmp_path, capsys):
    words = ["--config.data.manifest=x.csv", "--config.data.videos=v"]
    evaluate("retrieval", words, tmp_path, code=ConfigError.exit_code)
    assert "belong to benchmarks (harvest eval --list)" in capsys.readouterr().err


def test_the_list_names_every_benchmark_and_what_it_needs(capsys):
    assert cli.main(["eval", "--list"]) == 0
    shown = capsys.readouterr().out
    words = " ".join(shown.split())
    for benchmark in all_benchmarks().values():
        assert f"eval/{benchmark.name}\n" in shown
        assert " ".join(benchmark.source.split()) in words
        for names in benchmark.files.values():
            assert names[0] in words


def test_config_and_model_are_asked_for(capsys):
    assert cli.main(["eval"]) == ConfigError.exit_code
    assert "give --config and --model" in capsys.readouterr().err


@pytest.mark.skipif(not (ANNOTATIONS / "msrvtt").is_dir(), reason="no annotation files here")
def test_thirty_of_the_thousand_videos(videos, model, tmp_path, capsys):
    """The official file as it is, of whose videos only 30 are there."""
    rows = read(all_benchmarks()["msrvtt_1ka"], ANNOTATIONS / "msrvtt")
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, row in enumerate(rows[:30]):
        shutil.copy(videos / f"{list(COLOURS)[number % 4]}.mp4", folder / f"{row.video}.mp4")
    words = [f"--config.data.annotations={ANNOTATIONS / 'msrvtt'}", f"--config.data.videos={folder}"]
    evaluate("msrvtt_1ka", words, tmp_path, code=DataError.exit_code)
    assert "970 of the 1,000 videos of MSR-VTT 1k-A are not there" in capsys.readouterr().err
    result = evaluate("msrvtt_1ka", [*words, "--allow_missing"], tmp_path)
    assert (result["n_expected"], result["n_missing"]) == (1000, 970)
    assert result["metrics"]["t2v"]["n_queries"] == 1000
    assert result["protocol"]["data"]["partial"] is False
    assert json.loads(json.dumps(result["inputs"]["captions"]))["name"] == "MSRVTT_JSFUSION_test.csv"


def test_the_page_names_every_benchmark_with_its_counts():
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text("utf-8")
    lines = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `eval/")}
    assert set(lines) == {f"eval/{name}" for name in all_benchmarks()}
    for name, benchmark in all_benchmarks().items():
        counted = ", ".join(f"{count:,} {what}" for what, count in benchmark.expected.items()) or "not checked"
        assert f"| {benchmark.title}, {benchmark.split} | {benchmark.task} | {counted} |" in lines[f"eval/{name}"]
