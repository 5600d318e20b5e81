"""The linear probe: what is minimised, what is held out, and the evaluation with a store."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harvest_jax.errors import ConfigError, DataError
from harvest_jax.evaluate.report.grids import checked_queries
from harvest_jax.evaluate.report.query_scores import METRICS
from harvest_jax.evaluate.report.result_files import read_result
from harvest_jax.evaluate.scores import linear_probe
from harvest_jax.evaluate.scores.cosines import unit_vectors
from tests.helpers.colour_evaluation import COLOURS, evaluate, manifest


@pytest.fixture(scope="module")
def clouds():
    """Embeddings of three classes that overlap."""
    rng = np.random.default_rng(5)
    labels = np.arange(90) % 3
    return (rng.normal(size=(3, 6))[labels] + rng.normal(size=(90, 6))).astype(np.float32), labels


def loss(weights, bias, features, labels, decay):
    logits = features @ weights + bias
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -chosen.mean() + decay / 2 * (weights**2).sum()


@pytest.mark.parametrize("decay", [1e-3, 0.1])
def test_the_loss_is_at_its_minimum(clouds, decay):
    embeddings, labels = clouds
    probe = linear_probe.fit(embeddings, labels, 3, decay)
    features = (unit_vectors(embeddings, "video") - probe.mean) * probe.scale
    np.testing.assert_allclose([features.mean(), (features**2).mean()], [0, 1], atol=1e-12)
    slopes = jax.grad(loss, argnums=(0, 1))(probe.weights, probe.bias, features, labels, decay)
    assert max(float(jnp.abs(slope).max()) for slope in slopes) < 1e-4
    start = jax.grad(loss, argnums=(0, 1))(0 * probe.weights, 0 * probe.bias, features, labels, decay)
    assert float(jnp.abs(start[0]).max()) > 0.05
    right = probe.scores(embeddings).argmax(axis=1) == labels
    assert 0.6 < right.mean() < 1
    np.testing.assert_allclose(probe.scores(3 * embeddings[:2]), probe.scores(embeddings)[:2], rtol=1e-5)


def test_the_decay_is_that_of_the_best_accuracy_on_clips_that_were_not_trained_on():
    rng = np.random.default_rng(0)
    labels = np.int64(np.arange(90) % 3 == 0)  # with a huge decay all clips are the larger class
    embeddings = np.concatenate([4 * labels[:, None] + rng.normal(size=(90, 1)), rng.normal(size=(90, 5))], axis=1)
    held = linear_probe.held_out(labels, [f"{number:02}" for number in range(90)])
    assert np.flatnonzero(held).tolist() == list(range(18))  # a fifth of each class, in the given order
    decays = (1e-2, 1e4)
    found = {}
    for decay in decays:
        probe = linear_probe.fit(embeddings[18:], labels[18:], 2, decay)
        found[decay] = 100 * (probe.scores(embeddings[:18]).argmax(axis=1) == labels[:18]).mean()
    best = max(found.values())
    decay, accuracy = linear_probe.choose_decay(embeddings, labels, 2, decays, held)
    assert accuracy == best
    assert decay == max(one for one in decays if found[one] == best)
    assert len(set(found.values())) > 1


def test_one_clip_of_a_class_is_never_held_out():
    held = linear_probe.held_out(np.array([0, 1, 1, 2]), ["d", "c", "b", "a"])
    assert held.tolist() == [False, False, True, False]


@pytest.fixture
def probe(videos, model, tmp_path):
    """Test clips of four colours; training clips are parts of them."""
    test = manifest(videos, tmp_path, [{"video": f"{name}.mp4", "label": name} for name in COLOURS])

    def score(rows, *words, code=0):
        train = manifest(videos, tmp_path, rows, "train.jsonl")
        words = [*(word.replace("config.data", "config.train") for word in train), *words]
        return evaluate("linear_probe", [*test, *words], tmp_path, code)

    return score


def parts(*names):
    return [
        {"id": f"{name} {end}", "video": f"{name}.mp4", "end": end, "label": name}
        for name in names
        for end in (0.4, 0.6)
    ]


def test_training_clips_are_embedded_once_for_all_that_is_tried(probe, model, tmp_path, capsys):
    store = ["--store", str(tmp_path / "store")]
    result = probe(parts(*COLOURS), *store)
    assert model.clips_seen == 4 + 8
    metrics = result["metrics"]
    assert (metrics["top1"], metrics["n"], metrics["train_clips"], metrics["held_out_clips"]) == (100, 4, 8, 4)
    assert "held_out_top1" in capsys.readouterr().out
    assert result["inputs"]["train_manifest"]["name"] == "train.jsonl"
    other = probe(parts(*COLOURS), *store, "--config.weight_decays=(1e-5,)")
    assert model.clips_seen == 12
    assert other["metrics"]["weight_decay"] == 1e-5
    assert f"weight_decay{'1e-05':>22}" in capsys.readouterr().out
    assert other["protocol_hash"] != result["protocol_hash"]
    assert probe(parts(*COLOURS))["protocol"] == result["protocol"]


def test_the_training_set_decides_and_is_in_the_protocol(probe, tmp_path):
    right = probe(parts(*COLOURS))
    swapped = {"red": "green", "green": "red"}
    wrong = probe([row | {"label": swapped.get(row["label"], row["label"])} for row in parts(*COLOURS)])
    written = read_result(tmp_path / "out" / "result.json")
    for metric in METRICS["linear_probe"]:
        assert written.number(metric.path) is not None
        if metric.part:
            checked_queries(written, metric)  # refuses a mean that is not the score
    assert (right["metrics"]["top1"], wrong["metrics"]["top1"]) == (100, 50)
    assert right["protocol"]["train"]["sha256"] != wrong["protocol"]["train"]["sha256"]
    mixed = [row | {"video": "red_then_blue.mp4", "start": 0.3, "end": 1 + row["end"]} for row in parts("red")]
    unseen = probe([*mixed, *parts("green", "blue", "yellow")])
    # Parts of a clip of one colour look like the whole; those of red, then blue do not.
    assert (right["metrics"]["seen_in_training"], unseen["metrics"]["seen_in_training"]) == (4, 3)


def test_faults_of_the_training_set_are_named_in_a_line(probe, model, capsys):
    once = [row for row in parts(*COLOURS) if row["end"] == 0.4]
    gone = {"id": "gone", "video": "gone.mp4", "label": "red"}
    broken = {"id": "broken", "video": "broken.mp4", "label": "red"}
    for rows, said in (
        (parts("red", "green", "blue"), "1 labels are not a class, the first: 'yellow'"),
        (once, "no class has two training videos"),
        (
            [*once, once[0] | {"id": "again", "label": "blue"}],
            "again has a label that another row of its video has not",
        ),
        ([*parts(*COLOURS), gone], "1 of the 9 training videos of train.jsonl cannot be read, the first: gone.mp4"),
        ([*parts(*COLOURS), broken], "1 of the 9 training videos of train.jsonl cannot be read, the first: broken.mp4"),
    ):
        probe(rows, code=DataError.exit_code)
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert probe(once, "--config.weight_decays=(0.01,)")["metrics"]["top1"] == 100
    found = probe([*parts(*COLOURS), gone, broken], "--config.train.skip_missing=True")
    assert (found["metrics"]["train_clips"], found["n_missing"]) == (8, 0)
    probe(once, "--config.weight_decays=(0.0,)", code=ConfigError.exit_code)
    assert "give one or several numbers above 0" in capsys.readouterr().err
