"""Fine-tuning by the commands: train, go on, load, evaluate by the head, start another run from it."""

import json
import shutil

import numpy as np
import pytest

import harvest_jax
from harvest_jax import cli
from harvest_jax.demo.image_clip import SHIPPED
from harvest_jax.demo.world import MOTIONS
from harvest_jax.errors import ConfigError, DataError
from harvest_jax.weights.folder import load_config, load_model

SMALL = {
    "model.size": "demo",
    "model.dtype": "float32",
    "model.num_frames": 4,
    "model.keep_ratio": 0.25,
    "text.length": 24,
    "data.workers": 0,
    "train.steps": 4,
    "train.batch_size": 8,
    "train.warmup_steps": 1,
    "train.learning_rate": 1e-3,
    "train.log_every": 1,
    "train.save_every": 2,
}


def train(task, shards, workdir, init_from=SHIPPED, code=0, **fields):
    words = SMALL | {"data.shards": shards, "model.init_from": init_from} | fields
    overrides = [f"--config.{name}={value}" for name, value in words.items()]
    assert cli.main(["train", "--config", f"finetune/{task}", "--workdir", str(workdir), *overrides]) == code
    return workdir / "export"


def evaluate(task, model, shards, out, *words, code=0):
    data = [f"--config.data.shards={shards}", "--config.answer_from=head", *words]
    assert cli.main(["eval", "--config", f"eval/{task}", "--model", str(model), "--out", str(out), *data]) == code
    return json.loads(out.read_text()) if code == 0 else None


def lines(workdir, *names):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [[row[name] for name in names] for row in rows]


@pytest.fixture(scope="module")
def classified(world_shards, tmp_path_factory):
    """The workdir of a classification; its decoder is there so that the other tasks can start from it."""
    workdir = tmp_path_factory.mktemp("runs") / "classes"
    train("classification", world_shards, workdir, **{"objective.head": "attentive", "model.decoder_layers": 1})
    return workdir


def test_the_head_is_part_of_the_model_folder(classified):
    described = json.loads((classified / "export" / "config.json").read_text())["model"]
    assert described["head"] == {"kind": "attentive", "classes": sorted(MOTIONS)}
    config, params = load_model(classified / "export")
    assert params["head"]["classifier"]["kernel"].shape == (config.video.width, 10)
    assert "head" not in json.loads((SHIPPED / "config.json").read_text())["model"]


def test_the_log_has_the_accuracy(classified):
    found = lines(classified, "loss", "accuracy", "with_a_class")
    assert len(found) == 4
    assert all(share == 1 and 0 <= accuracy <= 1 for _, accuracy, share in found)


def test_a_run_goes_on_with_the_classes_of_its_start(classified, world_shards, tmp_path):
    shutil.copytree(classified, tmp_path / "run")
    for gone in (tmp_path / "run/checkpoints/4", tmp_path / "run/export"):
        shutil.rmtree(gone)
    fields = {"objective.head": "attentive", "model.decoder_layers": 1}
    train("classification", world_shards, tmp_path / "run", **fields)
    assert lines(tmp_path / "run", "step", "loss", "grad_norm") == lines(classified, "step", "loss", "grad_norm")
    assert harvest_jax.load(tmp_path / "run/export").digest == harvest_jax.load(classified / "export").digest
    train("classification", world_shards, tmp_path / "run", code=5, **fields | {"objective.head": "linear"})


def test_a_checkpoint_classifies_as_its_export(classified, world_clips):
    video = sorted(world_clips.parent.glob("test*.mp4"))[:2]
    model = harvest_jax.load(classified / "export")
    assert model.classes == tuple(sorted(MOTIONS))
    logits = model.class_logits(video)
    assert (logits.shape, logits.dtype) == ((2, 10), np.float32)
    np.testing.assert_array_equal(logits, harvest_jax.load(classified).class_logits(video))
    assert model.encode_video(video).shape == (2, 64)
    with pytest.raises(DataError, match="a head for classes: `harvest train --config finetune/videoqa` makes one"):
        model.head_answer_logits(video, np.zeros((2, 4), np.int32), np.ones(2, np.int32))
    with pytest.raises(DataError, match="has no head"):
        harvest_jax.load(SHIPPED).class_logits(video)


def test_classes_are_scored_by_the_head(classified, world_shards, tmp_path, capsys):
    result = evaluate("zero_shot", classified / "export", world_shards, tmp_path / "result.json")
    assert result["protocol"]["answer_from"] == "head"
    assert (result["protocol"]["classes"], result["n_expected"], result["metrics"]["chance"]) == (10, 10, 10)
    # the figures are those of the logits
    model = harvest_jax.load(classified / "export")
    from harvest_jax.input.pipeline import evaluation_clips

    records, frames = zip(*evaluation_clips(world_shards, "test", 4, 64, "crop"), strict=True)
    right = [model.classes.index(record.extra["label"]) for record in records]
    found = model.class_logits(np.stack(frames)).argmax(axis=1)
    assert result["metrics"]["top1"] == pytest.approx(100 * np.mean(found == right))
    capsys.readouterr()
    evaluate("zero_shot", SHIPPED, world_shards, tmp_path / "none.json", code=DataError.exit_code)
    assert "has no head of classification, which answer_from=head needs" in capsys.readouterr().err
    column = "--config.label_column=question"
    evaluate("zero_shot", classified / "export", world_shards, tmp_path / "no.json", column, code=DataError.exit_code)
    assert "10 labels are not a class" in capsys.readouterr().err


@pytest.mark.slow
def test_questions_are_answered_by_the_head(classified, world_shards, tmp_path, capsys):
    model = train("videoqa", world_shards, tmp_path / "qa", classified / "export", **{"model.decoder_layers": 1})
    assert load_config(model).head.classes == ("0", "1")
    result = evaluate("videoqa", model, world_shards, tmp_path / "result.json")
    assert result["protocol"]["answer_score"] == "logit of a fine-tuned head"
    assert (result["metrics"]["n_answers"], result["metrics"]["chance"], result["metrics"]["coverage"]) == (2, 50, 100)
    capsys.readouterr()
    both = "--config.answers=test_set"
    evaluate("videoqa", model, world_shards, tmp_path / "no.json", both, code=ConfigError.exit_code)
    assert "the head has its own answers" in capsys.readouterr().err


@pytest.mark.slow
def test_the_word_at_the_mask_is_trained_without_a_head(classified, world_shards, tmp_path):
    fields = {
        "model.decoder_layers": 1,
        "objective.answer_from": "mask",
        "train.accumulate": 2,
        "train.batch_size": 16,
        "train.steps": 1,
    }
    model = train("videoqa", world_shards, tmp_path / "qa", classified / "export", **fields)
    assert load_config(model).head is None
    words = ("--config.answer_from=mask", "--config.answers=test_set")
    assert evaluate("videoqa", model, world_shards, tmp_path / "result.json", *words)["metrics"]["n_answers"] == 2


def test_retrieval_starts_from_a_fine_tuned_model_and_has_no_head(classified, world_shards, tmp_path):
    model = train("retrieval", world_shards, tmp_path / "run", classified / "export", **{"train.steps": 1})
    config = load_config(model)
    assert (config.head, config.decoder) == (None, None)
    assert lines(tmp_path / "run", "loss") == lines(tmp_path / "run", "contrastive_loss")


@pytest.mark.slow
def test_the_same_classes_go_on_from_the_head_and_others_start_anew(classified, world_shards, tmp_path):
    fields = {"objective.head": "attentive", "train.steps": 1, "train.learning_rate": 0.0}
    before = load_model(classified / "export")[1]["head"]["classifier"]["kernel"]
    same = train("classification", world_shards, tmp_path / "same", classified / "export", **fields)
    np.testing.assert_array_equal(load_model(same)[1]["head"]["classifier"]["kernel"], before)
    (tmp_path / "classes.txt").write_text("\n".join(reversed(MOTIONS)))
    named = fields | {"objective.classes": tmp_path / "classes.txt"}
    other = train("classification", world_shards, tmp_path / "other", classified / "export", **named)
    config, params = load_model(other)
    assert config.head.classes == tuple(reversed(MOTIONS))
    assert np.any(params["head"]["classifier"]["kernel"] != before)


def test_what_cannot_be_trained_is_refused_in_a_line(world_shards, tmp_path, capsys):
    def refused(task, words, **fields):
        train(task, world_shards, tmp_path / "run", code=ConfigError.exit_code, **fields)
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert words in error

    refused("videoqa", "objective.name=videoqa reads the decoder", **{"model.decoder_layers": 0})
    refused("videoqa", "must contain {question} and {mask} once each", **{"objective.prompt": "{question}"})
    refused("classification", "max_classes is for answers", **{"objective.max_classes": 3})
    refused("classification", "did you mean linear", **{"objective.head": "liner"})
    assert not (tmp_path / "run").exists()
