"""Parts of the evaluation on their own: settings, results, sets of clips, and annotation files as published."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate import clips, embed, results, settings, tasks

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "configs" / "eval"
ANNOTATIONS = REPOSITORY.parent / "shared" / "data" / "annotations"


@pytest.mark.parametrize("task", sorted(settings.TASKS))
def test_every_config_is_sound_and_opens_with_its_command(task):
    from harvest_jax.config import files as config_files

    path = CONFIGS / f"{task}.py"
    checked = settings.check(config_files.load_dict(str(path), ["data.manifest=x.csv"]))
    assert (checked.task, type(checked)) == (task, settings.TASKS[task])
    assert f"harvest eval --config configs/eval/{task}.py" in path.read_text("utf-8").split('"""')[1]


def test_settings_list_every_fault():
    values = {"task": "zero_shot", "data": {"manifest": "x", "rot": ""}, "frames": "8", "strict": 1, "ensemble": "x"}
    with pytest.raises(ConfigError) as error:
        settings.check(values)
    for fault in (
        "unknown field data.rot (did you mean data.root?)",
        "missing field data.shards",
        "frames must be int, not '8'",
        "strict must be bool, not 1",
        "missing field prompts",
    ):
        assert fault in str(error.value)
    with pytest.raises(ConfigError, match="data must be a group"):
        settings.check({"task": "retrieval", "data": "x.csv"})


def test_prompts_may_be_a_list_in_a_config(tmp_path):
    values = {
        "task": "zero_shot",
        "seed": 0,
        "frames": 0,
        "batch_size": 1,
        "strict": False,
        "label_column": "label",
        "classes": "",
        "ensemble": "mean_vector",
        "prompts": ["a {}", "b {}"],
        "data": {"manifest": "x", "root": "", "shards": "", "split": "", "workers": 0},
    }
    assert settings.check(values).prompts == ("a {}", "b {}")
    for prompts, message in (([1], "prompts must be"), (["a"], "once"), ([], "empty"), (7, "prompts must be")):
        with pytest.raises(ConfigError, match=message):
            settings.check(values | {"prompts": prompts})


def test_results_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    results.write(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.write(path, {"b": list(range(10000)), "a": float("nan")})
    assert json.loads(path.read_text("utf-8")) == {"a": 1}

    def fail(*arguments):
        raise OSError("killed here")

    monkeypatch.setattr(results.os, "replace", fail)
    with pytest.raises(OSError, match="killed here"):
        results.write(path, {"a": 2})
    assert json.loads(path.read_text("utf-8")) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.json"]


def test_equal_texts_are_embedded_once_and_alike():
    calls = []

    def encode_text(texts):
        calls.append(texts)
        return np.array([[len(text), len(calls)] for text in texts], np.float32)  # depends on the batch it comes in

    names = ("config", "name", "tokenizer", "num_frames", "logit_scale", "encode_video", "answer_logits")
    model = SimpleNamespace(encode_text=encode_text, **dict.fromkeys(names, len))
    values = embed.embed_texts(model, ["red", "blue", "red", "green", "blue"], 2)
    assert calls == [["red", "blue"], ["green"]]
    np.testing.assert_array_equal(values[0], values[2])
    np.testing.assert_array_equal(values[1], values[4])
    assert not np.array_equal(values[0], values[1])


def test_a_reader_that_loses_or_doubles_a_clip_is_caught():
    def of(numbers):
        pair = (clips.Clip("a"), clips.Clip("b"))
        return clips.EvaluationSet(
            "x", "manifest", "", (), pair, lambda t, s, r: iter([(n, "reason") for n in numbers])
        )

    assert len(list(of([1, 0]).frames(1, 1, "crop"))) == 2
    with pytest.raises(DataError, match="1 of 2 clips never came"):
        list(of([0]).frames(1, 1, "crop"))
    with pytest.raises(DataError, match="came twice"):
        list(of([0, 0]).frames(1, 1, "crop"))


def test_the_widest_tie_is_found_at_any_depth():
    metrics = {"a": {"optimistic": {"R@1": 9.0, "MedR": 1}, "pessimistic": {"R@1": 7.5, "MedR": 99}}, "n": 3}
    assert tasks.tie_spread(metrics) == 1.5
    assert tasks.tie_spread({"n": 3}) == 0


def test_progress_is_for_terminals_only():
    from harvest_jax.evaluate.command import Progress

    for terminal in (False, True):
        written = []
        stream = SimpleNamespace(isatty=lambda t=terminal: t, write=written.append, flush=lambda: None)
        Progress(stream)(4, 4)
        assert ("4/4 clips" in "".join(written)) == terminal


def opened(tmp_path, rows):
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return clips.open_set(settings.DataSettings(str(path), "", "", "test", 1))


@pytest.mark.skipif(not (ANNOTATIONS / "msrvtt").is_dir(), reason="no annotation files here")
def test_msrvtt_1k_a_is_one_caption_for_each_of_a_thousand_videos(tmp_path):
    with (ANNOTATIONS / "msrvtt" / "MSRVTT_JSFUSION_test.csv").open(encoding="utf-8") as stream:
        rows = [{"video": f"{row['video_id']}.mp4", "caption": row["sentence"]} for row in csv.DictReader(stream)]
    data = opened(tmp_path, rows)
    assert (len(data.clips), len(data.samples)) == (1000, 1000)
    assert all(len(sample.captions) == 1 for sample in data.samples)


@pytest.mark.skipif(not (ANNOTATIONS / "msvd").is_dir(), reason="no annotation files here")
def test_msvd_is_many_captions_for_each_of_670_videos(tmp_path):
    table = json.loads((ANNOTATIONS / "msvd" / "msvd_caption_test.json").read_text("utf-8"))
    data = opened(tmp_path, table)
    assert len(data.clips) == 670
    assert sum(len(sample.captions) for sample in data.samples) == sum(len(row["caption"]) for row in table)
    flat = [
        {"id": f"{row['video']} {n}", "video": row["video"], "caption": caption}
        for row in table[:40]
        for n, caption in enumerate(row["caption"])
    ]
    one_a_row = opened(tmp_path, flat)  # the same set, written one caption a row
    assert one_a_row.clips == data.clips[:40]
    assert len(one_a_row.samples) == len(flat)
