"""harvest eval --suite: what lies below a folder is scored, once, and the rest is listed."""

import json
import shutil

import pytest

import harvest_jax
from data_pipeline.decode.clip import decode_clip
from harvest_jax import cli
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate import evaluation
from harvest_jax.evaluate.benchmarks.named import all_benchmarks
from harvest_jax.evaluate.suites import SUITES, look_below
from tests.helpers import colour_evaluation
from tests.helpers.annotations import ANNOTATIONS
from tests.helpers.benchmark_files import write_benchmark


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    for dataset, name in (("msrvtt", "msrvtt_1ka"), ("msrvtt", "msrvtt_mc"), ("kinetics400", "kinetics400_list")):
        write_benchmark(name, folder / dataset / "annotations", folder / dataset / "videos")
    return folder


def suite(root, tmp_path, *words, code=0):
    given = ["--suite", "paper", "--model", "m", f"--config.data.root={root}", "--out", str(tmp_path / "out")]
    assert cli.main(["eval", *given, "--config.data.partial=True", *words]) == code
    return {path.name.rpartition("-")[0]: path for path in sorted((tmp_path / "out").glob("*.json"))}


def scored(path):
    return json.loads(path.read_text("utf-8"))


def test_every_benchmark_of_a_suite_exists_and_is_named_once():
    names = [name for entry in SUITES["paper"] for name in entry.names]
    assert set(names) <= set(all_benchmarks())
    assert len(names) == len(set(names))


def test_what_is_there_is_scored_and_the_rest_listed(root, model, tmp_path, capsys, monkeypatch):
    loaded = []
    monkeypatch.setitem(harvest_jax.__dict__, "load", lambda folder: loaded.append(folder) or model)
    found = suite(root, tmp_path)
    assert set(found) == {"msrvtt_1ka", "msrvtt_mc", "kinetics400_list"}
    assert loaded == ["m"]
    shown = capsys.readouterr().out
    words = " ".join(shown.split())
    assert "MSR-VTT 1k-A" in shown.split("not there:")[0]
    first = scored(found["msrvtt_1ka"])
    assert f"{first['metrics']['t2v']['R@1']:.1f}" in shown
    listed = words.split("not there:")[1]
    for name in ("msvd", "ucf101_3", "kinetics600", "msrvtt_qa"):
        assert all_benchmarks()[name].title in listed
        assert " ".join(all_benchmarks()[name].source.split()) in listed
    assert "MSR-VTT 1k-A" not in listed


def test_with_a_store_each_video_is_decoded_once_for_all_benchmarks(root, model, tmp_path, monkeypatch):
    questions = root / "msrvtt" / "annotations" / "msrvtt_mc_test.jsonl"
    questions.write_text(questions.read_text("utf-8").replace("video701", "video977"), "utf-8")  # retrieval's videos
    for path in (root / "msrvtt" / "videos").glob("video701*"):
        path.replace(path.with_name(path.name.replace("video701", "video977")))
    decoded = []

    def counted(path, *words):
        decoded.append(path.name)
        return decode_clip(path, *words)

    monkeypatch.setattr(colour_evaluation, "decode_clip", counted)
    plain = {name: scored(path) for name, path in suite(root, tmp_path).items()}
    of_two = {name for name in decoded if decoded.count(name) == 2}
    assert of_two == {f"video{9770 + number}.mp4" for number in range(4)}
    shutil.rmtree(tmp_path / "out")
    decoded.clear()
    found = suite(root, tmp_path, "--store", str(tmp_path / "store"))
    assert of_two <= set(decoded)
    assert len(decoded) == len(set(decoded))
    for name, path in found.items():
        stored = scored(path)
        assert (stored["metrics"], stored["queries"]) == (plain[name]["metrics"], plain[name]["queries"])
    facts = scored(found["msrvtt_mc"])["run"]["store"]
    forward = next(counts for way, counts in facts.items() if way.startswith("forward-"))
    assert forward["from_store"] == len(of_two)
    decoded.clear()
    suite(root, tmp_path, "--again", "--store", str(tmp_path / "store"))
    assert decoded == []


def test_a_result_is_kept_unless_asked_for_again(root, model, tmp_path, capsys):
    first = suite(root, tmp_path)
    seen = model.clips_seen
    before = {name: path.read_bytes() for name, path in first.items()}
    capsys.readouterr()
    assert suite(root, tmp_path) == first
    assert capsys.readouterr().out.count(": kept ") == 3
    assert model.clips_seen == seen
    assert {name: path.read_bytes() for name, path in first.items()} == before
    suite(root, tmp_path, "--again")
    assert model.clips_seen == 2 * seen


def test_what_was_lost_is_scored_and_what_changed_is_another_result(root, model, tmp_path, capsys):
    first = suite(root, tmp_path)
    first["msrvtt_mc"].with_name(f"{first['msrvtt_mc'].name}.queries.parquet").write_bytes(b"")
    first["kinetics400_list"].unlink()
    capsys.readouterr()
    assert suite(root, tmp_path) == first
    shown = capsys.readouterr().out
    assert [name for name in first if f"{name}: written" in shown] == ["kinetics400_list", "msrvtt_mc"]
    model.frames_expected = 2
    suite(root, tmp_path, "--config.frames=2")
    model.frames_expected = 4
    model.digest = "other weights"
    suite(root, tmp_path)
    assert len(list((tmp_path / "out").glob("msrvtt_1ka-*.json"))) == 3
    capsys.readouterr()
    assert cli.main(["results", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "frames=2" in shown
    assert "frames=4" in shown


def test_a_suite_that_was_broken_off_goes_on(root, model, tmp_path, capsys, monkeypatch):
    whole, finished = evaluation.evaluate, []

    def broken_off(*args):
        if len(finished) == 2:
            raise KeyboardInterrupt
        finished.append(args)
        return whole(*args)

    monkeypatch.setattr(evaluation, "evaluate", broken_off)
    assert len(suite(root, tmp_path, code=130)) == 2
    monkeypatch.setattr(evaluation, "evaluate", whole)
    capsys.readouterr()
    assert len(suite(root, tmp_path)) == 3
    assert capsys.readouterr().out.count(": kept ") == 2


def test_strict_refuses_a_faulty_score_each_time_and_shows_it(root, model, tmp_path, capsys):
    next((root / "msrvtt" / "videos").glob("video977*")).unlink()
    for _ in range(2):
        suite(root, tmp_path, "--allow_missing", "--config.strict=True", code=DataError.exit_code)
        said = capsys.readouterr()
        assert "msrvtt_1ka: strict=True: 1 of 4 counted as wrong" in said.err
        assert "MSR-VTT 1k-A" in said.out.split("not there:")[0]


def test_one_failing_benchmark_does_not_stop_the_others(root, model, tmp_path, capsys):
    shutil.rmtree(root / "kinetics400" / "videos")
    (root / "kinetics400" / "videos").mkdir()
    (root / "kinetics400" / "videos" / "readme.txt").write_text("", "utf-8")
    found = suite(root, tmp_path, code=DataError.exit_code)
    assert set(found) == {"msrvtt_1ka", "msrvtt_mc"}
    said = capsys.readouterr()
    assert "kinetics400_list: " in said.err
    assert "holds no video" in said.err
    assert "1 of 3 benchmarks could not be scored" in said.err.splitlines()[-1]
    assert "MSR-VTT 1k-A" in said.out


def test_missing_videos_are_refused_or_counted(root, model, tmp_path, capsys):
    next((root / "msrvtt" / "videos").glob("video977*")).unlink()
    found = suite(root, tmp_path, code=DataError.exit_code)
    assert "msrvtt_1ka" not in found
    assert "give --allow_missing" in capsys.readouterr().err
    found = suite(root, tmp_path, "--allow_missing")
    assert scored(found["msrvtt_1ka"])["n_missing"] == 1
    assert "* has warnings" in capsys.readouterr().out


def test_a_model_without_decoder_leaves_questions_out(model, tmp_path, capsys):
    root = tmp_path / "root"
    for name in ("msrvtt_1ka", "msrvtt_qa"):
        write_benchmark(name, root / "msrvtt" / "annotations", root / "msrvtt" / "videos")
    model.config.decoder = None
    assert set(suite(root, tmp_path)) == {"msrvtt_1ka"}
    assert f"{all_benchmarks()['msrvtt_qa'].title}: colours has no decoder" in capsys.readouterr().out


def test_a_benchmarks_own_folder_comes_first_and_shards_do_for_videos(root, tmp_path):
    own = root / "msrvtt_1ka" / "annotations"
    own.mkdir(parents=True)
    shutil.copy(root / "msrvtt" / "annotations" / "MSRVTT_JSFUSION_test.csv", own)
    shutil.move(root / "msrvtt" / "videos", root / "msrvtt" / "shards")
    present, _ = look_below(root, SUITES["paper"])
    found = {one.benchmark.name: one for one in present}
    assert found["msrvtt_1ka"].annotations == own
    assert found["msrvtt_1ka"].overrides[1] == f"data.shards={root / 'msrvtt' / 'shards'}"
    assert found["msrvtt_mc"].annotations == root / "msrvtt" / "annotations"


def test_annotation_files_that_contradict_each_other_are_a_failure(root, model, tmp_path, capsys):
    copy = root / "msrvtt" / "annotations" / "old" / "MSRVTT_JSFUSION_test.csv"
    copy.parent.mkdir()
    copy.write_text("other", "utf-8")
    assert "msrvtt_1ka" not in suite(root, tmp_path, code=DataError.exit_code)
    assert "are both called MSRVTT_JSFUSION_test.csv and differ" in capsys.readouterr().err


@pytest.mark.skipif(not (ANNOTATIONS / "msrvtt").is_dir(), reason="no annotation files here")
def test_the_official_files_are_found(tmp_path):
    for dataset in ("msrvtt", "msvd", "didemo", "activitynet", "tgif_qa"):
        (tmp_path / dataset / "videos").mkdir(parents=True)
        (tmp_path / dataset / "annotations").symlink_to(ANNOTATIONS / dataset)
    present, absent = look_below(tmp_path, SUITES["paper"])
    found = {one.benchmark.name for one in present}
    assert found >= {"msrvtt_1ka", "msvd", "didemo", "activitynet", "tgif_action", "tgif_transition"}
    assert len(present) + len(absent) == len(SUITES["paper"])


def test_nothing_there_is_an_error_that_lists_what_is_needed(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(harvest_jax.__dict__, "load", None)
    (tmp_path / "root").mkdir()
    suite(tmp_path / "root", tmp_path, code=DataError.exit_code)
    said = capsys.readouterr()
    assert "no benchmark of the suite paper lies below" in said.err
    assert said.out.count("\n- ") > 10


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--suite", "papers"], "no suite 'papers'"),
        (["--suite", "paper", "--out", "o"], "--suite needs --config.data.root=DIR"),
        (["--suite", "paper", "--out", "o", "--config.data.root=x"], "--suite needs --model"),
        (["--suite", "paper", "--model", "m", "--config.data.root=x"], "--suite needs --out"),
        (["--suite", "paper", "--model", "m", "--out", "o", "--config.prompts=name"], "takes no --config.prompts"),
        (["--again"], "--again belongs to --suite"),
    ],
)
def test_a_wrong_use_is_one_line(words, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["eval", *words]) == ConfigError.exit_code
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
