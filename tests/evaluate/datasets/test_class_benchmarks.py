"""Readers of classification benchmarks, on files in the official form that the tests write, and on faulty ones."""

import csv
import re

import pytest

from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import counts
from harvest_jax.evaluate.benchmarks.clip_lists import read_clip_list
from harvest_jax.evaluate.benchmarks.locate_annotations import locate
from harvest_jax.evaluate.benchmarks.read_benchmark import read_files
from harvest_jax.evaluate.datasets import hmdb51, kinetics, moments, ssv2, ucf101
from harvest_jax.input.class_names import label_numbers, read_classes
from tests.helpers import class_miniatures
from tests.helpers.annotations import ANNOTATIONS
from tests.helpers.class_miniatures import ACTIONS, CLASS_MINIATURES
from tests.helpers.question_miniatures import written

MODULES = (kinetics, ucf101, hmdb51, ssv2, moments)
BENCHMARKS = {benchmark.name: benchmark for module in MODULES for benchmark in module.BENCHMARKS}
CLASS_NAMES = ANNOTATIONS / "classnames"
needs_names = pytest.mark.skipif(not CLASS_NAMES.is_dir(), reason="no annotation files here")


def rows_of(name, folder):
    return BENCHMARKS[name].read(locate(BENCHMARKS[name], folder))


@pytest.mark.parametrize("name", CLASS_MINIATURES)
def test_a_file_in_the_official_form_is_found_and_read(name, tmp_path):
    folder = CLASS_MINIATURES[name](tmp_path)
    rows = rows_of(name, folder)
    assert len({row.id for row in rows}) == len(rows) > 3
    assert set(BENCHMARKS[name].expected) <= set(counts(rows))
    files = locate(BENCHMARKS[name], folder)
    labels = [row.extra["label"] for row in rows]
    classes = read_classes(files["classes"]) if "classes" in files else sorted(set(labels))
    assert len(label_numbers(labels, [row.id for row in rows], classes)) == len(rows)
    assert counts(rows)["classes"] == len(set(labels))


def test_every_benchmark_has_a_miniature():
    assert set(CLASS_MINIATURES) == set(BENCHMARKS)


def test_kinetics_clips_are_called_as_cvdf_calls_them(tmp_path):
    rows = rows_of("kinetics400", class_miniatures.kinetics(tmp_path / "k400", "validate.csv"))
    assert rows[1].video == rows[1].id == "-x1InventedI_000010_000020"
    assert [row.extra["label"] for row in rows[:4]] == list(ACTIONS)


def test_a_list_of_kinetics_needs_the_class_names_for_its_numbers(tmp_path):
    rows = rows_of("kinetics400_list", class_miniatures.kinetics_list(tmp_path))
    assert rows[4].video == "val/air drumming/-x4InventedI_000040_000050.mp4"
    assert [row.extra["label"] for row in rows[:4]] == list(ACTIONS)  # the order of the file, not of the alphabet


@pytest.mark.parametrize(
    ("text", "clips"),
    [
        ("a/b c/d.mp4 1\ne.mp4 0\n", ["a/b c/d.mp4", "e.mp4"]),
        ("a b.mp4,1\r\ne.mp4,0\r\n", ["a b.mp4", "e.mp4"]),
        ("a.mp4\t1\n\ne.mp4\t0\n", ["a.mp4", "e.mp4"]),
        ("abseiling/x 300 1\nzumba/y 250 0\n", ["abseiling/x", "zumba/y"]),
        ("a 300 1\ne.mp4 0\n", ["a 300", "e.mp4"]),  # not every line has a number of frames
    ],
)
def test_lists_of_clips(text, clips, tmp_path):
    records = read_clip_list(written(tmp_path / "val.txt", text), ["zumba", "abseiling"])
    assert [record.text("clip") for record in records] == clips
    assert [record.text("label") for record in records] == ["abseiling", "zumba"]


def test_ucf101_names_are_written_as_people_write_them(tmp_path):
    rows = rows_of("ucf101_1", class_miniatures.ucf101(tmp_path))
    assert rows[2].video == "HandstandPushups/v_HandStandPushups_g01_c01.avi"
    assert [row.extra["label"] for row in rows[::2]] == ["Apply Eye Makeup", "Hand Stand Pushups", "Yo Yo"]
    for name in ("HandstandPushups", "HandStandPushups"):
        assert ucf101.class_words(name) == "Hand Stand Pushups"
    for name in ("Archery", "TaiChi", "CleanAndJerk", "PlayingDhol"):
        assert ucf101.class_words(name) == re.sub(r"(?<=[a-z])([A-Z])", r" \1", name)


@needs_names
def test_the_101_names_are_clips():
    page = (CLASS_NAMES / "clip_prompts.md").read_text("utf-8").partition("## UCF101\n")[2].partition("templates")[0]
    clip = re.findall(r"^ +'(.*)',$", page, re.MULTILINE)
    names = read_classes(CLASS_NAMES / "mmaction_ucf101_label_map.txt")
    assert sorted(map(ucf101.class_words, names)) == sorted(clip)
    assert len(clip) == 101


@needs_names
def test_hmdb51_has_the_classes_that_others_have():
    assert sorted(hmdb51.CLASSES) == sorted((CLASS_NAMES / "mmaction_hmdb51_label_map.txt").read_text("utf-8").split())


def test_hmdb51_takes_the_test_clips_of_its_split(tmp_path):
    rows = rows_of("hmdb51_2", class_miniatures.hmdb51(tmp_path, 2))
    assert len(rows) == 51
    assert rows[0].video == "brush_hair/A_film!_#0_brush_hair_f_cm_np1_le_med_2.avi"
    assert rows[0].extra == {"label": "brush hair"}
    with pytest.raises(DataError, match=r"no file with the brush_hair.*brush_hair_test_split1\.txt"):
        rows_of("hmdb51_1", tmp_path)


def test_ssv2_labels_are_templates_without_brackets(tmp_path):
    rows = rows_of("ssv2", class_miniatures.ssv2(tmp_path))
    assert (rows[0].id, rows[0].extra) == ("900", {"label": "Brewing something in something"})
    classes = read_classes(tmp_path / "something-something-v2-labels.json")
    assert classes == ["Turning something upside down, so it falls", "Brewing something in something"]


@needs_names
def test_ssv2_templates_are_classes_of_others():
    names = read_classes(CLASS_NAMES / "mmaction_sthv2_label_map.txt")
    assert label_numbers(
        [ssv2.without_brackets(name.replace("something", "[something]")) for name in names], names, names
    ).tolist() == list(range(174))


def test_moments_labels_are_words(tmp_path):
    rows = rows_of("moments", class_miniatures.moments(tmp_path))
    assert rows[0].video == "adult+male+singing/yt-Invented0_0.mp4"
    assert rows[0].extra == {"label": "adult male singing"}


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("kinetics400", {"clips": "youtube_id,time_start,time_end,split\na,0,10,test\n"}, "label not in"),
        (
            "kinetics400",
            {"clips": "label,youtube_id,time_start,time_end\nx,a,ten,20\n"},
            "'time_start' must be a number",
        ),
        ("kinetics400", {"clips": "label,youtube_id,time_start,time_end\n" + "x,a,0,10\n" * 2}, "is used already"),
        ("kinetics400", {"clips": "a/b.mp4 3\nc/d.mp4 4\n"}, "must name the columns label"),
        (
            "kinetics400_list",
            {"clips": "a.mp4 2\n", "classes": "x\ny\n"},
            r"line 1: class number 2, but .* has 2: 0 to 1",
        ),
        ("kinetics400_list", {"clips": "a.mp4\n", "classes": "x\ny\n"}, "must be a clip and the number of its class"),
        ("kinetics400_list", {"clips": "label,youtube_id\nx,abc\n", "classes": "x\n"}, "must be a clip and the number"),
        ("kinetics400_list", {"clips": "\n", "classes": "x\n"}, "has no lines"),
        ("ucf101_1", {"clips": "1 ApplyEyeMakeup\n2 ApplyLipstick\n"}, "must be a class and a clip"),
        ("ucf101_1", {"clips": "Archery/v_Archery_g01_c01.avi\n" * 2}, "line 2"),
        ("hmdb51_1", {"clap": "a_clap.avi 3\n"}, "must be a clip .* and 0, 1 or 2"),
        ("ssv2", {"clips": '[{"id": "1", "label": "x"}]', "classes": '{"X": "0"}'}, "no 'template'"),
        (
            "ssv2",
            {"clips": '[{"id": "1", "template": "Y"}]', "classes": '{"X": "0"}'},
            "'Y' is not in the file of labels",
        ),
        (
            "moments",
            {"clips": "a/b.mp4,flying,3,0\n", "classes": "running,0\n"},
            "'flying' is not in the file of categ",
        ),
        ("moments", {"clips": "a/b.mp4,running\n", "classes": "running,0\n"}, "2 cells, but 4 columns"),
    ],
)
def test_a_faulty_file_is_one_line(name, files, message, tmp_path):
    paths = {purpose: written(tmp_path / purpose, text) for purpose, text in files.items() if purpose != "classes"}
    if "classes" in files:
        suffix = ".json" if files["classes"].startswith("{") else ".txt"
        paths["classes"] = written(tmp_path / f"classes{suffix}", files["classes"])
    with pytest.raises(DataError, match=message) as error:
        read_files(BENCHMARKS[name], paths, partial=True)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_official_table_of_kinetics_may_serve_as_its_class_list(tmp_path):
    class_miniatures.kinetics(tmp_path)
    assert read_classes(tmp_path / "val.csv") == sorted(ACTIONS)
    with (tmp_path / "val.csv").open(encoding="utf-8") as stream:
        assert len(list(csv.DictReader(stream))) == 8
