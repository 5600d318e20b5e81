"""`harvest eval` on real video files and shards, with a small model whose answers are known."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

import harvest_jax
from data_pipeline.decode import pool
from data_pipeline.decode.clip import decode_clip
from data_pipeline.decode.video_file import DecodeSpec
from data_pipeline.media_paths import VideoRejected
from data_pipeline.shards import shard_format
from harvest_jax import cli
from harvest_jax.errors import ConfigError, DataError, NonFiniteError
from harvest_jax.evaluate import results, tasks
from harvest_jax.input.tokenizer import Tokenizer
from harvest_jax.pixels.square import prepare_clip
from tests.helpers import video_files
from tests.helpers.shard_files import write_records

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "configs" / "eval"
SHARED = REPOSITORY.parent / "shared" / "data"
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "yellow": (220, 220, 20)}


class InThisProcess:
    """`VideoDecoder` without its worker processes, which have tests of their own and take a second to start."""

    def __init__(self, num_frames, short_side, workers=1, fit=""):
        self.spec = DecodeSpec(num_frames=num_frames, short_side=short_side, fit=fit)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def decode_all(self, spans):
        for path, start, end in spans:
            try:
                yield decode_clip(Path(path), self.spec, start, end).frames
            except VideoRejected as fault:
                yield fault


class ColourModel:
    """Sees the mean colour of all frames; reads colour words; answers with the colour that is nearest."""

    name = "colours"
    num_frames = 4
    logit_scale = 20.0

    def __init__(self):
        self.config = SimpleNamespace(
            video=SimpleNamespace(image_size=16),
            text=SimpleNamespace(context_length=24),
            decoder=SimpleNamespace(),
            preprocessing=SimpleNamespace(resize="crop"),
        )
        self.tokenizer = Tokenizer()
        self.clips_seen = 0
        self.batches = []

    @staticmethod
    def unit(x):
        x = np.asarray(x, np.float32) - 100
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    def encode_video(self, videos):
        assert videos.dtype == np.uint8
        assert videos.shape[1:] == (self.frames_expected, 16, 16, 3)
        self.clips_seen += len(videos)
        self.batches.append(len(videos))
        return self.unit(videos.mean(axis=(1, 2, 3)))

    frames_expected = 4

    def encode_text(self, texts):
        found = [[colour for word, colour in COLOURS.items() if word in text] or [(120, 90, 101)] for text in texts]
        return self.unit([np.mean(colours, axis=0) for colours in found])

    def answer_logits(self, videos, ids, slot):
        assert np.all(ids[np.arange(len(ids)), slot] == 0)
        self.batches.append(len(videos))
        logits = np.zeros((len(videos), self.tokenizer.vocab_size), np.float32)
        cosines = self.unit(videos.mean(axis=(1, 2, 3))) @ self.unit(list(COLOURS.values())).T
        for i, word in enumerate(COLOURS):
            logits[:, self.tokenizer.encode(word)[0]] = cosines[:, i]
        return logits


def write_video(path, colours, size=(48, 32)):
    """A real H.264 file: eight frames of each colour."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for colour in colours:
            for _ in range(8):
                pixels = np.full((size[1], size[0], 3), colour, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, colour in COLOURS.items():
        write_video(folder / f"{name}.mp4", [colour])
    write_video(folder / "red_then_blue.mp4", [COLOURS["red"], COLOURS["blue"]])
    (folder / "broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom" + b"no video at all" * 20)
    return folder


@pytest.fixture
def model(monkeypatch):
    stub = ColourModel()
    monkeypatch.setattr(pool, "VideoDecoder", InThisProcess)
    monkeypatch.setitem(harvest_jax.__dict__, "load", lambda folder: stub)
    return stub


def manifest(videos, tmp_path, rows, name="set.jsonl"):
    """A manifest in a folder of its own; the videos are found through data.root."""
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [f"--config.data.manifest={path}", f"--config.data.root={videos}"]


def evaluate(task, words, tmp_path, code=0):
    out = tmp_path / "out" / "result.json"
    assert (
        cli.main(["eval", "--config", str(CONFIGS / f"{task}.py"), "--model", "m", "--out", str(out), *words]) == code
    )
    return json.loads(out.read_text("utf-8")) if code == 0 else None


def captioned(*names):
    return [{"video": f"{name}.mp4", "caption": f"a {name} square"} for name in names]


def test_retrieval_of_readable_videos(videos, model, tmp_path, capsys):
    result = evaluate("retrieval", manifest(videos, tmp_path, captioned(*COLOURS)), tmp_path)
    fields = "task protocol protocol_hash n_expected n_missing missing metrics warnings model seed version"
    assert list(result) == fields.split()
    assert (result["task"], result["n_expected"], result["n_missing"], result["missing"]) == ("retrieval", 4, 0, [])
    assert result["metrics"]["t2v"]["R@1"] == result["metrics"]["v2t"]["R@1"] == 100
    assert result["protocol_hash"] == results.digest(result["protocol"])
    assert result["warnings"] == []
    shown = capsys.readouterr().out
    assert "text to video" in shown
    assert "100.00" in shown
    assert result["protocol_hash"][:12] in shown


def test_missing_videos_count_as_wrong_and_are_reported(videos, model, tmp_path, capsys):
    rows = [*captioned(*COLOURS), *captioned("broken", "gone")]
    result = evaluate("retrieval", manifest(videos, tmp_path, rows), tmp_path)
    assert (result["n_expected"], result["n_missing"]) == (6, 2)
    assert [entry["video"] for entry in result["missing"]] == ["broken.mp4", "gone.mp4"]
    assert all(entry["reason"] for entry in result["missing"])
    assert result["protocol"]["gallery"] == 6
    for direction in ("t2v", "v2t"):
        assert result["metrics"][direction]["n_queries"] == 6
        assert result["metrics"][direction]["R@1"] == pytest.approx(400 / 6)
        assert result["metrics"][direction]["MnR"] == pytest.approx((4 * 1 + 2 * 6) / 6)
    assert "2 of 6 counted as wrong" in capsys.readouterr().out


def test_worker_processes_give_the_same_result(videos, model, tmp_path, monkeypatch):
    rows = [
        *captioned(*COLOURS, "broken"),
        {"id": "end", "video": "red_then_blue.mp4", "start": 1.2, "caption": "blue end"},
    ]
    words = [*manifest(videos, tmp_path, rows), "--config.data.workers=2"]
    here = evaluate("retrieval", words, tmp_path)
    monkeypatch.undo()
    monkeypatch.setitem(harvest_jax.__dict__, "load", lambda folder: model)
    assert pool.VideoDecoder is not InThisProcess
    assert evaluate("retrieval", words, tmp_path) == here
    assert (here["n_expected"], here["n_missing"]) == (6, 1)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_pictures_are_shown_as_in_the_models_training(videos, model, tmp_path, resize, stored, monkeypatch):
    """Blue margins left and right of a red square: a model trained on crops never sees them."""
    frame = np.full((32, 64, 3), COLOURS["blue"], np.uint8)
    frame[:, 16:48] = COLOURS["red"]
    frame[::3, 20:44:3] = 90  # something fine, by which to tell one scaler from another
    video_files.write_video(tmp_path / "margins.mp4", np.stack([frame] * 8))
    seen = []
    monkeypatch.setattr(model.config.preprocessing, "resize", resize)
    monkeypatch.setattr(
        model, "encode_video", lambda clips: seen.append(clips) or model.unit(clips.mean(axis=(1, 2, 3)))
    )
    if stored:
        words = write_shards(tmp_path / "shards", tmp_path, [("m", "margins", ("red",), {})])
    else:
        words = manifest(tmp_path, tmp_path, captioned("margins"))
    result = evaluate("retrieval", words, tmp_path)
    red, _, blue = np.concatenate(seen).mean(axis=(0, 1, 2, 3))
    assert (red > 190) == (resize == "crop")
    assert (blue > 100) == (resize == "squash")
    assert result["protocol"]["resize"] == tasks.RESIZES[resize]
    if not stored:
        whole = decode_clip(tmp_path / "margins.mp4", DecodeSpec(num_frames=4)).frames
        assert np.array_equal(seen[0][0], prepare_clip(whole, 4, 16, resize))


def test_a_video_outside_the_root_is_refused(videos, model, tmp_path, capsys):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.mp4").symlink_to(videos / "red.mp4")
    shutil.copy(videos / "blue.mp4", root)
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in captioned("link", "blue")), encoding="utf-8")
    words = [f"--config.data.manifest={path}", f"--config.data.root={root}"]
    evaluate("retrieval", words, tmp_path, code=DataError.exit_code)
    assert "leads out of the root" in capsys.readouterr().err


def write_shards(folder, videos, rows):
    """Real shards of the split "test": (id, video, captions, extra)."""
    raws = []
    for name, video, captions, extra in rows:
        clip = decode_clip(videos / f"{video}.mp4", DecodeSpec(num_frames=8, short_side=32))
        jpegs = tuple(shard_format.encode_jpeg(frame) for frame in clip.frames)
        seconds = tuple(clip.seconds.tolist())
        record = shard_format.Record(name, captions, jpegs, seconds, clip.width, clip.height, extra)
        raws.append(shard_format.encode(record))
    write_records(folder, "test", raws)
    return [f"--config.data.shards={folder}"]


def test_shards_are_scored_like_videos(videos, model, tmp_path):
    words = write_shards(
        tmp_path / "shards", videos, [(f"id {n}", n, (f"a {n} one", f"a {n} two"), {}) for n in COLOURS]
    )
    result = evaluate("retrieval", words, tmp_path)
    assert (result["n_expected"], result["n_missing"], result["protocol"]["captions"]) == (4, 0, 8)
    assert result["metrics"]["t2v"]["R@1"] == result["metrics"]["v2t"]["R@1"] == 100
    assert result["protocol"]["data"]["kind"] == "shards"


def test_other_columns_come_out_of_shards(videos, model, tmp_path, capsys):
    rows = [(n, n, (), {"label": n, "question": "what is it?", "answer": n}) for n in ("green", "red")]
    words = write_shards(tmp_path / "shards", videos, rows)
    assert evaluate("zero_shot", words, tmp_path)["metrics"]["top1"] == 100
    assert evaluate("videoqa", words, tmp_path)["metrics"]["acc_all"] == 100
    evaluate("retrieval", words, tmp_path, code=DataError.exit_code)
    assert "2 rows have no caption, the first: green" in capsys.readouterr().err


def test_a_manifest_over_shards_says_which_clips_are_missing_there(videos, model, tmp_path):
    rows = captioned(*COLOURS)
    shards = write_shards(tmp_path / "shards", videos, [(n, n, (n,), {}) for n in ("red", "blue")])
    (tmp_path / "shards" / "rejects-test.tsv").write_text("id\tvideo\treason\nyellow\tyellow.mp4\tdamaged: cut\n")
    (tmp_path / "empty").mkdir()
    result = evaluate("retrieval", [*manifest(tmp_path / "empty", tmp_path, rows), *shards], tmp_path)
    assert (result["n_expected"], result["n_missing"]) == (4, 2)
    assert {entry["video"]: entry["reason"] for entry in result["missing"]} == {
        "green.mp4": "not in split test of the shards",
        "yellow.mp4": "damaged: cut",
    }
    assert result["metrics"]["t2v"]["R@1"] == 50
    assert len(result["warnings"]) == 1
    alone = evaluate("retrieval", shards, tmp_path)
    assert (alone["n_expected"], alone["n_missing"]) == (2, 0)
    assert alone["warnings"] == [
        "1 rows were rejected when the shards were made and are not counted: give data.manifest too"
    ]


def test_a_split_that_is_not_there_is_one_line(videos, model, tmp_path, capsys):
    words = write_shards(tmp_path / "shards", videos, [("red", "red", ("x",), {})])
    evaluate("retrieval", [*words, "--config.data.split=val"], tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err
    assert "no split 'val'" in error
    assert error.count("\n") == 1


def test_strict_stops_where_a_video_is_missing(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, [*captioned(*COLOURS), *captioned("gone")])
    evaluate("retrieval", [*words, "--config.strict=true"], tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err
    assert "strict=True: 1 of 5 counted as wrong" in error
    assert "gone.mp4" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / "result.json").exists()


def test_no_readable_video_is_an_error_not_a_zero(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, captioned("gone", "away"))
    for task in ("retrieval", "zero_shot", "videoqa"):
        rows = [
            {"video": f"{name}.mp4", "caption": "c", "label": "l", "question": "q", "answer": "red"} for name in "ab"
        ]
        words = manifest(videos, tmp_path, rows)
        evaluate(task, words, tmp_path, code=DataError.exit_code)
        assert "none of the 2 videos of set.jsonl could be read; the first, a.mp4" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["retrieval", "zero_shot", "videoqa"])
def test_a_model_gone_wrong_is_an_error_not_a_hundred_percent(videos, model, tmp_path, monkeypatch, capsys, task):
    for name in ("encode_video", "answer_logits"):
        method = getattr(ColourModel, name)
        monkeypatch.setattr(ColourModel, name, lambda *arguments, method=method: method(*arguments) * np.nan)
    rows = [
        question("red", "what?", "red", caption="c", label="red"),
        question("blue", "what?", "blue", caption="c", label="b"),
    ]
    evaluate(task, manifest(videos, tmp_path, rows), tmp_path, code=NonFiniteError.exit_code)
    error = capsys.readouterr().err
    assert "not finite" in error
    assert error.count("\n") == 1


def test_rows_of_one_video_are_one_clip_with_several_captions(videos, model, tmp_path):
    rows = [
        {"id": f"{name}-{n}", "video": f"{name}.mp4", "caption": f"{name} {n}"} for name in COLOURS for n in range(3)
    ]
    rows.append({"id": "list", "video": "red.mp4", "caption": ["red four", "red five"]})
    result = evaluate("retrieval", manifest(videos, tmp_path, rows), tmp_path)
    assert (result["n_expected"], result["protocol"]["captions"], model.clips_seen) == (4, 14, 4)
    assert result["metrics"]["t2v"]["n_queries"] == 14
    assert result["metrics"]["v2t"]["n_queries"] == 4
    assert result["metrics"]["v2t"]["R@1"] == 100


def test_spans_of_one_file_are_different_clips(videos, model, tmp_path):
    rows = [
        {"id": "first", "video": "red_then_blue.mp4", "start": 0, "end": 0.9, "caption": "red"},
        {"id": "second", "video": "red_then_blue.mp4", "start": 1.1, "end": 2, "caption": "blue"},
    ]
    result = evaluate("retrieval", manifest(videos, tmp_path, rows), tmp_path)
    assert result["n_expected"] == 2
    assert result["metrics"]["t2v"]["R@1"] == 100


def test_batches_neither_drop_nor_double(videos, model, tmp_path):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    whole = evaluate("retrieval", words, tmp_path)
    assert model.batches == [4]
    model.batches.clear()
    parts = evaluate("retrieval", [*words, "--config.batch_size=3"], tmp_path)
    assert model.batches == [3, 1]
    assert parts == whole  # the batch size is no part of the protocol


def test_dual_softmax_is_a_block_of_its_own(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    plain = evaluate("retrieval", words, tmp_path)
    boosted = evaluate("retrieval", [*words, "--config.dual_softmax_scale=100"], tmp_path)
    assert boosted["metrics"]["dual_softmax"]["scale"] == 100
    assert {key: boosted["metrics"][key] for key in ("t2v", "v2t")} == plain["metrics"]
    assert boosted["protocol_hash"] != plain["protocol_hash"]
    assert "dual softmax 100" in capsys.readouterr().out


def test_fewer_frames_are_another_protocol_and_more_are_an_error(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    plain = evaluate("retrieval", words, tmp_path)
    model.frames_expected = 1
    still = evaluate("retrieval", [*words, "--config.frames=1"], tmp_path)
    assert (plain["protocol"]["frames"], still["protocol"]["frames"]) == (4, 1)
    assert plain["protocol_hash"] != still["protocol_hash"]
    capsys.readouterr()
    evaluate("retrieval", [*words, "--config.frames=5"], tmp_path, code=ConfigError.exit_code)
    assert "frames=5, but this model takes 4" in capsys.readouterr().err


def test_the_protocol_names_no_folder(videos, model, tmp_path):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    here = evaluate("retrieval", words, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(videos, elsewhere)
    shutil.copy(tmp_path / "set.jsonl", elsewhere / "set.jsonl")
    there = evaluate("retrieval", [f"--config.data.manifest={elsewhere / 'set.jsonl'}"], tmp_path)
    assert here["protocol_hash"] == there["protocol_hash"]
    changed = evaluate("retrieval", manifest(videos, tmp_path, captioned("red", "green", "blue")), tmp_path)
    assert changed["protocol_hash"] != here["protocol_hash"]


def test_zero_shot(videos, model, tmp_path, capsys):
    rows = [{"video": f"{name}.mp4", "label": name} for name in COLOURS] + [{"video": "broken.mp4", "label": "red"}]
    (tmp_path / "classes.txt").write_text("\n".join([*COLOURS, "grey_stone"]), encoding="utf-8")
    words = manifest(videos, tmp_path, rows)
    result = evaluate("zero_shot", [*words, f"--config.classes={tmp_path / 'classes.txt'}"], tmp_path)
    assert (result["n_expected"], result["n_missing"]) == (5, 1)
    assert (result["metrics"]["top1"], result["metrics"]["top5"], result["metrics"]["AVG"]) == (80, 80, 80)
    assert result["metrics"]["per_class"]["red"] == {"n": 2, "top1": 50}
    assert result["metrics"]["chance"] == 20
    assert len(result["protocol"]["prompts"]) == 16
    assert "top1" in capsys.readouterr().out
    hashes = {result["protocol_hash"]}
    for word in ("ensemble=mean_cosine", "ensemble=mean_probability", "prompts=kinetics_28", "prompts=one {} here"):
        hashes.add(evaluate("zero_shot", [*words, f"--config.{word}"], tmp_path)["protocol_hash"])
    assert len(hashes) == 5


def test_labels_may_stand_in_another_column_and_must_be_classes(videos, model, tmp_path, capsys):
    rows = [{"video": f"{name}.mp4", "caption": "c", "category": name} for name in COLOURS]
    words = manifest(videos, tmp_path, rows)
    assert evaluate("zero_shot", [*words, "--config.label_column=category"], tmp_path)["metrics"]["top1"] == 100
    evaluate("zero_shot", words, tmp_path, code=DataError.exit_code)
    assert "4 rows have no `label`, the first: red" in capsys.readouterr().err


def test_multiple_choice(videos, model, tmp_path):
    names = list(COLOURS)
    rows = [
        {"video": f"{name}.mp4", "options": [f"a {other} thing" for other in names], "answer": i, "type": "colour"}
        for i, name in enumerate(names)
    ]
    rows.append({"id": "same", "video": "red.mp4", "options": ["it is red", "it is red"], "answer": 1, "type": "tie"})
    rows.append({"video": "broken.mp4", "options": ["red", "blue"], "answer": 0, "type": "colour"})
    result = evaluate("multiple_choice", manifest(videos, tmp_path, rows), tmp_path)
    assert (result["n_expected"], result["n_missing"]) == (6, 1)
    assert result["metrics"]["accuracy"] == pytest.approx(100 * 4.5 / 6)
    assert result["metrics"]["chance"] == pytest.approx((4 * 25 + 2 * 50) / 6)
    assert result["metrics"]["per_type"]["tie"] == {"n": 1, "accuracy": 50}
    assert model.clips_seen == 4  # two questions about one video: seen once
    assert any("equal scores" in warning for warning in result["warnings"])


def test_options_may_be_asked_with_their_question(videos, model, tmp_path, capsys):
    rows = [
        {"id": "a", "video": "red.mp4", "question": "blue?", "a1": "no", "a2": "yes", "answer": 0},
        {"id": "b", "video": "blue.mp4", "question": "blue?", "a1": "no", "a2": "yes", "answer": 1},
    ]
    words = manifest(videos, tmp_path, rows)
    result = evaluate("multiple_choice", [*words, "--config.prompt={question} {option}"], tmp_path)
    assert result["metrics"]["accuracy"] == 50  # this model reads no yes and no: all options tie
    del rows[1]["question"]
    rows[1]["label"] = "x"
    words = manifest(videos, tmp_path, rows)
    evaluate("multiple_choice", [*words, "--config.prompt={question} {option}"], tmp_path, code=DataError.exit_code)
    assert "1 rows have no `question`, the first: b" in capsys.readouterr().err


def question(name, asked, answer, **more):
    return {"id": f"{name} {asked}", "video": f"{name}.mp4", "question": asked, "answer": answer, **more}


def test_videoqa(videos, model, tmp_path):
    rows = [question(name, "what colour is it?", name) for name in COLOURS]
    rows += [question("red", "who is it?", "nobody"), question("gone", "what is it?", "red")]
    (tmp_path / "answers.txt").write_text("\n".join(COLOURS), encoding="utf-8")
    words = [*manifest(videos, tmp_path, rows), f"--config.answers={tmp_path / 'answers.txt'}"]
    result = evaluate("videoqa", words, tmp_path)
    assert (result["n_expected"], result["n_missing"]) == (6, 1)
    metrics = result["metrics"]
    assert metrics["acc_all"] == pytest.approx(400 / 6)
    assert metrics["acc_in_vocab"] == pytest.approx(400 / 5)
    assert metrics["coverage"] == pytest.approx(500 / 6)
    assert metrics["per_type"] == {"what": {"n": 5, "acc_all": 80}, "who": {"n": 1, "acc_all": 0}}
    assert (metrics["n_answers"], metrics["n_colliding_answers"], metrics["n_cut_questions"]) == (4, 0, 0)
    assert sum(model.batches) == 5  # one answer a question whose video is there, none twice


def test_videoqa_batches_and_types_of_the_manifest(videos, model, tmp_path):
    rows = [
        question(name, f"what {n}?", name, type="even" if n % 2 == 0 else "odd") for name in COLOURS for n in range(5)
    ]
    result = evaluate("videoqa", [*manifest(videos, tmp_path, rows), "--config.batch_size=3"], tmp_path)
    assert result["metrics"]["acc_all"] == 100
    assert result["metrics"]["per_type"] == {"even": {"n": 12, "acc_all": 100}, "odd": {"n": 8, "acc_all": 100}}
    assert result["protocol"]["answers_from"] == "answers of the set itself"
    assert sum(model.batches) == 20
    assert max(model.batches) <= 3


def test_a_model_without_decoder_cannot_answer(videos, model, tmp_path, capsys):
    model.config.decoder = None
    words = manifest(videos, tmp_path, [question("red", "what?", "red")])
    evaluate("videoqa", words, tmp_path, code=DataError.exit_code)
    assert "has no decoder" in capsys.readouterr().err


def test_a_text_longer_than_the_model_takes_is_an_error(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, [question("red", "what?", "red")])
    evaluate("videoqa", [*words, "--config.text_length=77"], tmp_path, code=ConfigError.exit_code)
    assert "text_length=77, but this model takes 24" in capsys.readouterr().err


def test_without_out_the_result_is_the_last_line(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    assert cli.main(["eval", "--config", str(CONFIGS / "retrieval.py"), "--model", "m", *words]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]["t2v"]["R@1"] == 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.data.manifest="], "set data.manifest"),
        (["--config.batch_sise=4"], "did you mean batch_size?"),
        (["--config.data.manifets=x"], "did you mean data.manifest?"),
        (["--config.batch_size=four"], "batch_size=four"),
        (["--config.batch_size=0"], "batch_size=0 is outside 1..65536"),
        (["--config.dual_softmax_scale=nan"], "dual_softmax_scale=nan"),
        (["--config.task=retreival"], "task='retreival' is none of"),
        (["--config.frames=-1"], "frames=-1"),
    ],
)
def test_a_wrong_field_is_one_line(words, message, tmp_path, capsys):
    words = ["--config.data.manifest=gone.csv", *words]
    evaluate("retrieval", words, tmp_path, code=ConfigError.exit_code)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_missing_and_broken_manifests_are_one_line(videos, model, tmp_path, capsys):
    evaluate("retrieval", ["--config.data.manifest=gone.csv"], tmp_path, code=DataError.exit_code)
    assert "gone.csv" in capsys.readouterr().err
    words = manifest(videos, tmp_path, [*captioned("red"), {"video": "blue.mp4", "caption": ""}])
    evaluate("retrieval", words, tmp_path, code=DataError.exit_code)
    error = capsys.readouterr().err
    assert "1 rows cannot be used" in error
    assert "caption" in error
    assert error.count("\n") == 1
    words = manifest(videos, tmp_path, [{"video": "red.mp4", "label": "red"}])
    evaluate("retrieval", words, tmp_path, code=DataError.exit_code)
    assert "1 rows have no caption, the first: red" in capsys.readouterr().err


def test_out_must_be_a_file(videos, model, tmp_path, capsys):
    words = manifest(videos, tmp_path, captioned(*COLOURS))
    config = str(CONFIGS / "retrieval.py")
    assert (
        cli.main(["eval", "--config", config, "--model", "m", "--out", str(tmp_path), *words]) == ConfigError.exit_code
    )
    assert "is a folder" in capsys.readouterr().err
    assert model.batches == []  # said before the work


def test_a_real_model_folder_is_scored_as_its_own_api_says(videos, tmp_path, monkeypatch):
    import jax

    from harvest_jax.evaluate import ranking
    from harvest_jax.model.config import DecoderConfig, HarvestConfig, TextConfig, VideoConfig
    from harvest_jax.model.harvest import Harvest
    from harvest_jax.weights.folder import save_model

    monkeypatch.setattr(pool, "VideoDecoder", InThisProcess)
    config = HarvestConfig(
        "tiny", VideoConfig(16, 8, 2, 8, 1, 2, 8), TextConfig(600, 24, 8, 1, 2, 8), DecoderConfig(1, 8, 2, 8, 600)
    )
    shapes = jax.eval_shape(Harvest(config).init, jax.random.key(0))
    rng = np.random.default_rng(0)  # drawn here: compiling the model's own initialisation takes longer than the rest
    params = jax.tree.map(lambda leaf: np.asarray(rng.normal(size=leaf.shape), np.float32), shapes)
    save_model(tmp_path / "model", config, params, {})
    names = [*COLOURS, "red_then_blue"]
    rows = [
        {"video": f"{n}.mp4", "caption": f"a {n} square", "label": n, "question": "what?", "options": ["a", n]}
        for n in names
    ]
    words = manifest(videos, tmp_path, [{**row, "answer": 1} for row in rows])
    answers = manifest(videos, tmp_path, [{**row, "answer": n} for row, n in zip(rows, names, strict=True)], "qa.jsonl")
    model = harvest_jax.load(tmp_path / "model")
    monkeypatch.setitem(harvest_jax.__dict__, "load", lambda folder: model)  # compile once
    video = model.encode_video([videos / f"{n}.mp4" for n in names])
    text = model.encode_text([f"a {n} square" for n in names])
    by_hand = ranking.summary(ranking.text_to_video(ranking.similarity(video, text), np.arange(5)))
    assert evaluate("retrieval", words, tmp_path)["metrics"]["t2v"] == by_hand
    assert evaluate("zero_shot", words, tmp_path)["metrics"]["n"] == 5
    assert evaluate("multiple_choice", words, tmp_path)["metrics"]["chance"] == 50
    questions = evaluate("videoqa", answers, tmp_path)["metrics"]
    assert (questions["n"], questions["n_answers"], questions["coverage"]) == (5, 5, 100)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real clips here")
def test_real_clips_are_all_read(model, tmp_path):
    words = [f"--config.data.manifest={SHARED / 'web_clips.csv'}"]
    result = evaluate("retrieval", words, tmp_path)
    assert (result["n_expected"], result["n_missing"], model.clips_seen) == (12, 0, 12)
    zero_shot = evaluate("zero_shot", [*words, "--config.label_column=category", "--config.data.split="], tmp_path)
    assert (zero_shot["n_expected"], zero_shot["protocol"]["classes"]) == (48, 8)
