"""Benchmarks about the order in time: miniatures in the official forms, and what is wrong with other files."""

import json

import pytest

from harvest_jax.config.files import load_dict
from harvest_jax.errors import DataError
from harvest_jax.evaluate.benchmarks.benchmark import counts
from harvest_jax.evaluate.benchmarks.locate_annotations import locate
from harvest_jax.evaluate.datasets import chirality, negbench, rtime, ssv2_retrieval, velociti, vinoground, vitatecs
from harvest_jax.evaluate.evaluation import load_task, task_names
from harvest_jax.evaluate.tasks.multiple_choice import read_options
from tests.helpers import time_annotations as files
from tests.helpers.colour_evaluation import CONFIGS

MODULES = (chirality, negbench, rtime, ssv2_retrieval, velociti, vinoground, vitatecs)
BENCHMARKS = {benchmark.name: benchmark for module in MODULES for benchmark in module.BENCHMARKS}


def rows(name, path):
    benchmark = BENCHMARKS[name]
    return benchmark.read(locate(benchmark, path))


def refused(name, path):
    with pytest.raises(DataError) as error:
        rows(name, path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_benchmark_has_a_task_and_settings_that_its_config_has():
    assert len(BENCHMARKS) == sum(len(module.BENCHMARKS) for module in MODULES) == 10
    for benchmark in BENCHMARKS.values():
        assert benchmark.task in task_names()
        config = load_dict(str(CONFIGS / f"{benchmark.task}.py"), [], "evaluation")
        assert set(benchmark.settings) <= set(config)
        if benchmark.task in ("multiple_choice", "retrieval"):
            assert benchmark.settings["frame_average"] is True
        else:
            assert "frame_average" in load_task(benchmark.task).__dict__
        assert benchmark.source
        assert benchmark.licence


def test_vitatecs(tmp_path):
    found = rows("vitatecs", files.vitatecs(tmp_path))
    assert len(found) == 12
    assert len({row.id for row in found}) == 12
    assert {row.video for row in found} == {"MSRVTT/video7.mp4", "VATEX/q-Y_000001_000011.mp4"}
    assert read_options("", found[0].extra) == (["a cat climbs up a lamp", "a cat climbs down a lamp"], 0)
    assert [row.extra["type"] for row in found[::2]] == [aspect.lower() for aspect in vitatecs.ASPECTS]


def test_vitatecs_takes_the_folder_data_before_other_versions(tmp_path):
    files.vitatecs(tmp_path)
    other = tmp_path / "data_opt"
    other.mkdir()
    for aspect in vitatecs.ASPECTS:
        (other / f"{aspect}.jsonl").write_text("{}\n")
    assert len(rows("vitatecs", tmp_path)) == 12


def test_vitatecs_refuses_files_in_each_others_place_and_missing_ones(tmp_path):
    assert "the aspect is 'Type', but this is the file of Direction" in refused(
        "vitatecs", files.vitatecs(tmp_path / "a", aspect="Type")
    )
    assert "'counterfactual' is empty" in refused("vitatecs", files.vitatecs(tmp_path / "b", counterfactual=" "))
    folder = files.vitatecs(tmp_path / "c")
    (folder / "data" / "Sequence.jsonl").unlink()
    assert "Sequence.jsonl" in refused("vitatecs", folder)
    (folder / "data" / "Sequence.jsonl").write_text('{"caption": "x"\n')
    assert "Sequence.jsonl, line 1" in refused("vitatecs", folder)


def test_rtime(tmp_path):
    path = files.rtime(tmp_path)
    origin = rows("rtime_origin", path)
    assert [(row.id, row.video, row.captions) for row in origin] == [
        (name, name, ("a boat leaves the lake",)) for name in ("11", "12", "13")
    ]
    both = rows("rtime_hard_binary", tmp_path)
    assert [row.id for row in both] == ["11", "12"]
    assert both[0].captions == ("a boat leaves the lake",)
    assert both[0].extra == {"reversed_caption": "a boat comes to the lake"}


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (files.rtime_video(forward_captions=[]), "video 11: 'forward_captions' is an empty list"),
        (files.rtime_video(reverse_captions=[3]), "video 11: 'reverse_captions[0]' must be a text"),
        (files.rtime_video(reverse="yes"), "video 11: 'reverse' must be true or false"),
        ({"url": "x"}, "video 11: no 'reverse'"),
        (["a"], "must be an object"),
    ],
)
def test_rtime_refuses(tmp_path, video, message):
    assert message in refused("rtime_hard_binary", files.rtime(tmp_path, {"11": video}))


def test_rtime_refuses_a_list(tmp_path):
    assert "holds a list" in refused("rtime_origin", files.rtime(tmp_path, [files.rtime_video()]))


def test_ssv2_label_and_template(tmp_path):
    files.ssv2_label(tmp_path)
    files.ssv2_template(tmp_path)
    label = rows("ssv2_label", tmp_path)
    assert [(row.video, row.captions) for row in label] == [
        ("5.webm", ("unrolling a red carpet",)),
        ("6.webm", ("rolling up a carpet",)),
    ]
    template = rows("ssv2_template", tmp_path)
    assert [row.video for row in template] == ["1.webm", "2.webm", "3.webm", "4.webm", "5.webm"]
    assert [row.captions[0] for row in template] == ["Unrolling something"] * 3 + ["Rolling something up something"] * 2
    assert counts(template) == {"rows": 5, "videos": 5, "captions": 5}
    path = tmp_path / "ssv2_ret_label_val_small.json"
    path.write_text(json.dumps([{"image": "1.webm", "caption": "x"}]))
    assert "entry 1: no 'video'" in refused("ssv2_label", path)


def test_chirality(tmp_path):
    found = rows("chirality_ssv2", files.chirality(tmp_path))
    assert [row.id for row in found] == ["ab12-1", "ab12-2", "cd34-2", "cd34-3"]
    assert [row.video for row in found] == ["1", "2", "2", "3"]
    assert [read_options(row.id, row.extra) for row in found] == [
        (["Unrolling something", "Rolling up something"], 0),
        (["Unrolling something", "Rolling up something"], 1),
        (["Rolling up something", "Dropping something"], 0),
        (["Rolling up something", "Dropping something"], 1),
    ]
    assert found[0].extra["type"] == found[1].extra["type"] == "Unrolling something / Rolling up something"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((9, "x", "Turning [something]", "zz", 0.5), "line 7: 'chiral_label' must be 0 or 1, is 0.5"),
        ((9, "x", "Turning [something]", "zz", ""), "line 7: 'chiral_label' must be a number"),
        ((9, "x", "Turning [something]", "zz", 1), "pair zz has one action alone"),
        ((1, "x", "Rolling up [something]", "ab12", 0), "line 7: video 1 shows both actions of pair ab12"),
    ],
)
def test_chirality_refuses(tmp_path, row, message):
    assert message in refused("chirality_ssv2", files.chirality(tmp_path, row))


def test_vinoground(tmp_path):
    found = rows("vinoground", files.vinoground(tmp_path))
    assert [(row.id, row.video) for row in found] == [
        (f"{group}_{side}", f"vinoground_videos/{group}_{side}.mp4") for group in (0, 1) for side in ("pos", "neg")
    ]
    assert [row.captions[0] for row in found[:2]] == ["she sits, then sings", "she sings, then sits"]
    assert found[0].extra == found[1].extra == {"group": "0", "type": "action"}
    assert found[2].extra == {"group": "1", "type": "object;spatial;cyclical"}


def test_vinoground_refuses(tmp_path):
    more = (500, "action", "", "x", 0, 1, "a", "x", 0, 1, "b")
    error = refused("vinoground", files.vinoground(tmp_path, more))
    assert "line 4: 'index' must be a whole number from 0 to 499" in error
    more = (2, "action", "", "x", 0, 1, "a", "x", 0, 1, "")
    assert "line 4: 'neg_cap' is empty" in refused("vinoground", files.vinoground(tmp_path, more))
    path = files.write_table(tmp_path / "other.csv", files.VINOGROUND[:5], (0, "action", "", "x", 1))
    assert "pos_cap, neg_cap not in" in refused("vinoground", path)


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_velociti(tmp_path, form):
    files.velociti(tmp_path, form)
    found = rows("velociti", tmp_path)
    assert [(row.id, row.video, row.extra["type"]) for row in found] == [
        ("chrono-0", "v_a_seg_0_10.mp4", "chrono"),
        ("agent_bind-1", "v_a_seg_0_10.mp4", "agent_bind"),
        ("chrono-2", "v_b_seg_5_15.mp4", "chrono"),
    ]
    assert read_options("", found[0].extra) == (["he nods before he leaves", "he leaves before he nods"], 0)
    assert [row.id for row in rows("velociti_subset", tmp_path)] == ["chrono-0"]


def test_velociti_refuses(tmp_path):
    path = files.write_table(tmp_path / "a.csv", files.VELOCITI, ("v.mp4", "chrono", "Ev1", "a", "b", "perhaps"))
    assert "line 2: 'in_subset' must be true or false" in refused("velociti_subset", path)
    path = files.write_table(tmp_path / "b.csv", files.VELOCITI[:3], ("v.mp4", "chrono", "Ev1"))
    assert "pos, neg, in_subset not in" in refused("velociti", path)


def test_negbench(tmp_path):
    found = rows("negbench_msrvtt_mcq", files.negbench(tmp_path))
    assert [row.video.rpartition("/")[2] for row in found] == ["video9.mp4", "video8.mp4"]
    assert read_options("", found[1].extra) == (["a", "b", "c, quoted", "d"], 2)
    assert [row.extra["type"] for row in found] == ["hybrid", "negative"]


@pytest.mark.parametrize(
    ("answer", "message"), [(4, "'correct_answer' must be a whole number from 0 to 3, is 4"), ("b", "is 'b'")]
)
def test_negbench_refuses(tmp_path, answer, message):
    more = (answer, "a", "b", "c", "d", "positive", "video1.mp4")
    error = refused("negbench_msrvtt_mcq", files.negbench(tmp_path, more))
    assert "line 4: " in error
    assert message in error
